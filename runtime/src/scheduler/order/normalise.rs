//! Takes out of a graph the values that several tasks use.
//!
//! Such a node ties together parts of a graph which have nothing to do with each other. A value costs nothing to have,
//! so it should have no say in the order.

use super::DATA_NODE;
use super::edges::{Edges, Rows};

/// A graph reduced to work. Removed nodes keep their index, but have no edges and are not [`Graph::kept`].
pub struct Graph {
    /// The remaining edges.
    pub edges: Edges,
    /// Whether the node takes part.
    pub kept: Vec<bool>,
    /// The values taken out, by user; empty if there are none.
    data: Rows,
}

impl Graph {
    /// The values that this task uses and which were taken out.
    pub fn data_of(&self, task: u32) -> &[u32] {
        if self.data.len() == 0 {
            &[]
        } else {
            self.data.row(task)
        }
    }

    /// The nodes that take part, ascending.
    pub fn nodes(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.kept.len() as u32).filter(|&node| self.kept[node as usize])
    }

    /// What a node needs.
    pub fn dependencies(&self, node: u32) -> &[u32] {
        self.edges.dependencies.row(node)
    }

    /// Who needs a node.
    pub fn dependents(&self, node: u32) -> &[u32] {
        self.edges.dependents.row(node)
    }
}

/// Reduces `all`, whose first `n` nodes are the graph's own and whose others are external data.
pub fn normalise(all: Edges, n: usize, flags: &[u8]) -> Graph {
    let is_value =
        |at: usize| at >= n || flags.get(at).is_some_and(|&flags| flags & DATA_NODE != 0);
    let is_shared_value = |node: u32| {
        is_value(node as usize)
            && all.dependencies.row(node).is_empty()
            && all.dependents.row(node).len() > 1
    };
    let kept: Vec<bool> = (0..all.len() as u32)
        .map(|node| !is_shared_value(node))
        .collect();
    if kept.iter().all(|&kept| kept) {
        return Graph {
            edges: all,
            kept,
            data: Rows::default(),
        };
    }
    let is_work = |(_, dep): &(u32, u32)| kept[*dep as usize];
    let data = Rows::group(all.len(), || {
        all.dependencies.pairs().filter(|pair| !is_work(pair))
    });
    let work = Rows::group(all.len(), || all.dependencies.pairs().filter(is_work));
    Graph {
        edges: Edges::new(work),
        kept,
        data,
    }
}
