//! A graph's edges in both directions, as compressed rows.

/// Rows of indices: row `i` is `targets[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    offsets: Vec<u32>,
    targets: Vec<u32>,
}

impl Rows {
    /// Groups `(row, target)` pairs by row, keeping their order within a row. `pairs` is run through twice.
    pub fn group<I: Iterator<Item = (u32, u32)>>(n_rows: usize, pairs: impl Fn() -> I) -> Rows {
        let mut offsets = vec![0u32; n_rows + 1];
        for (row, _) in pairs() {
            offsets[row as usize + 1] += 1;
        }
        for row in 0..n_rows {
            offsets[row + 1] += offsets[row];
        }
        let mut targets = vec![0u32; offsets[n_rows] as usize];
        let mut fill = offsets.clone();
        for (row, target) in pairs() {
            let at = &mut fill[row as usize];
            targets[*at as usize] = target;
            *at += 1;
        }
        Rows { offsets, targets }
    }

    /// The targets of a row.
    pub fn row(&self, row: u32) -> &[u32] {
        &self.targets[self.offsets[row as usize] as usize..self.offsets[row as usize + 1] as usize]
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The same edges the other way round, over as many rows.
    pub fn reversed(&self) -> Rows {
        Rows::group(self.len(), || {
            self.pairs().map(|(row, target)| (target, row))
        })
    }

    /// Every `(row, target)`.
    pub fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..self.len() as u32)
            .flat_map(|row| self.row(row).iter().map(move |&target| (row, target)))
    }
}

/// Dependencies and dependents of every node.
#[derive(Debug, Clone, Default)]
pub struct Edges {
    /// What a node needs.
    pub dependencies: Rows,
    /// Who needs a node.
    pub dependents: Rows,
}

impl Edges {
    /// Both directions of `n` rows of dependencies; the nodes `n..n + n_external` have none.
    pub fn from_rows(n: usize, dep_offsets: &[u32], deps: &[u32], n_external: usize) -> Edges {
        let last = dep_offsets.get(n).copied().unwrap_or(0);
        let mut offsets = dep_offsets[..=n].to_vec();
        offsets.resize(n + n_external + 1, last);
        let dependencies = Rows {
            offsets,
            targets: deps.to_vec(),
        };
        Edges::new(dependencies)
    }

    /// Both directions of the given dependencies.
    pub fn new(dependencies: Rows) -> Edges {
        let dependents = dependencies.reversed();
        Edges {
            dependencies,
            dependents,
        }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.dependencies.len()
    }
}
