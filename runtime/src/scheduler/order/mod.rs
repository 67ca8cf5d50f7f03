//! Static order of a graph's tasks: which task to prefer when several could run.
//!
//! The order is the one a careful sequential executor would take: it finishes results before it loads more data, so
//! that few intermediate results are alive at any time. It follows the behaviour of `dask.order.order`: walk from a
//! result back to the data it needs along the heaviest dependencies, compute forwards from there, and on the way run
//! whatever became free and frees memory.
//!
//! Everything here is over dense indices in compressed rows (`offsets`, `targets`), and near-linear in tasks and edges.
//!
//! * [`normalise`]: take shared data, which is no work, out of the graph
//! * [`rank`]: a total order of "heaviness" that settles every choice
//! * [`root_sets`]: which roots a task hangs on
//! * [`targets`]: which result to aim for next
//! * [`frontier`]: what has been placed, and what that made free
//! * [`explore`]: free paths onwards from there, to be taken or remembered
//! * [`walk`]: the critical path

mod edges;
mod explore;
mod frontier;
mod normalise;
mod rank;
mod root_sets;
mod targets;
#[cfg(test)]
mod tests;
mod walk;

/// The flag of a node that is a value and not work (a `DataNode`).
pub const DATA_NODE: u8 = 4;

/// Some tasks depend on themselves, directly or through others, so that no order exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cycle detected between {} tasks", tasks.len())]
pub struct CycleError {
    /// The tasks of one cycle, each a dependency of the next, the last one of the first.
    pub tasks: Vec<u32>,
}

/// Priorities of `n` tasks: entry `i` is the position of task `i`, a permutation of `0..n`; smaller runs first.
///
/// * `dep_offsets` (`n + 1` entries) and `deps`: the dependencies of task `i` are `deps[dep_offsets[i]..dep_offsets[i + 1]]`.
///   An index of `n` or more stands for one of `n_external` tasks that exist already and need no place.
/// * `flags`: [`DATA_NODE`] where the node is a value; other flags are of no interest. May be empty.
/// * `names`: the task's name as text; only asked for where nothing else tells two tasks apart.
///
/// # Errors
/// [`CycleError`] if the dependencies are circular.
///
/// # Panics
/// Never for offsets that ascend within `deps` and indices below `n + n_external`; the caller checks these.
pub fn order(
    n: usize,
    dep_offsets: &[u32],
    deps: &[u32],
    flags: &[u8],
    n_external: usize,
    names: &dyn Fn(u32) -> String,
) -> Result<Vec<u32>, CycleError> {
    if deps.is_empty() {
        return Ok((0..n as u32).collect());
    }
    let all = edges::Edges::from_rows(n, dep_offsets, deps, n_external);
    let graph = normalise::normalise(all, n, flags);
    let topological = rank::topological(&graph)?;
    let weights = rank::weigh(&graph, &topological, &|node| {
        // Data that other graphs hold is named by nobody here; it sorts behind the rest.
        if (node as usize) < n {
            names(node)
        } else {
            String::from("\u{10ffff}")
        }
    });
    let sequence = walk::walk(&graph, &weights);
    Ok(priorities(n, &graph, &sequence))
}

/// Positions from the sequence: shared data stands right before its first user.
fn priorities(n: usize, graph: &normalise::Graph, sequence: &[u32]) -> Vec<u32> {
    const UNSET: u32 = u32::MAX;
    let mut position = vec![UNSET; n];
    let mut next = 0;
    let mut place = |node: u32| {
        if let Some(slot) = position.get_mut(node as usize)
            && *slot == UNSET
        {
            *slot = next;
            next += 1;
        }
    };
    for &task in sequence {
        graph.data_of(task).iter().copied().for_each(&mut place);
        place(task);
    }
    position
}
