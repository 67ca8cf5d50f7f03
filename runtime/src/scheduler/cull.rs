//! Which tasks of a graph are needed for what was asked for.

/// Marks `targets` and everything they depend on, directly or through others.
///
/// The dependencies of task `i` are `deps[dep_offsets[i]..dep_offsets[i + 1]]`; indices of `n` or more stand for tasks
/// outside of the graph and are ignored, as are targets outside of it.
pub fn cull(n: usize, dep_offsets: &[u32], deps: &[u32], targets: &[u32]) -> Vec<bool> {
    let mut needed = vec![false; n];
    let mut pending: Vec<u32> = Vec::new();
    let mut mark = |task: u32, pending: &mut Vec<u32>| {
        if let Some(seen) = needed.get_mut(task as usize)
            && !*seen
        {
            *seen = true;
            pending.push(task);
        }
    };
    for &target in targets {
        mark(target, &mut pending);
    }
    while let Some(task) = pending.pop() {
        let row = dep_offsets[task as usize] as usize..dep_offsets[task as usize + 1] as usize;
        for &dep in &deps[row] {
            mark(dep, &mut pending);
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::cull;
    use proptest::prelude::*;

    #[test]
    fn keeps_what_is_reachable() {
        // 0 <- 1 <- 2, 3 <- 4, and 2 also needs the external task 5.
        let offsets = [0, 0, 1, 3, 3, 4];
        let deps = [0, 1, 5, 3];
        assert_eq!(
            cull(5, &offsets, &deps, &[2, 9]),
            [true, true, true, false, false]
        );
        assert_eq!(cull(5, &offsets, &deps, &[]), [false; 5]);
    }

    proptest! {
        #[test]
        fn is_closed_and_minimal(edges in prop::collection::vec((1u32..60, 0u32..60), 0..150), targets in prop::collection::vec(0u32..60, 0..5)) {
            let n = 60;
            let rows: Vec<Vec<u32>> = (0..n).map(|i| edges.iter().filter(|&&(a, b)| a == i && b < a).map(|&(_, b)| b).collect()).collect();
            let mut offsets = vec![0];
            let mut deps = Vec::new();
            for row in &rows {
                deps.extend(row);
                offsets.push(deps.len() as u32);
            }
            let keep = cull(n as usize, &offsets, &deps, &targets);
            for task in 0..n {
                let used = (0..n).any(|user| keep[user as usize] && rows[user as usize].contains(&task));
                prop_assert_eq!(keep[task as usize], used || targets.contains(&task));
            }
        }
    }
}
