//! Token trees: several continuations of one sequence, verified in one pass.
//!
//! The root is the sequence's last token; every path from it is one continuation. Rows of one span of a batch hold the
//! nodes, parents before children; attention shows each row what came before the span, its ancestors and itself.
//! Source: SpecInfer, arXiv:2305.09781, section 4.2; Medusa, arXiv:2401.10774, section 2.1.2.

use rhetor_kernels::attention::Tree;

/// Which node of a tree hangs on which. Nodes are numbered, parents before their children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTree {
    parents: Vec<Option<usize>>,
    depths: Vec<usize>,
    /// `[n, n]`: whether node j is node i or an ancestor of it.
    sees: Vec<bool>,
}

impl TokenTree {
    /// The tree in which node `i` hangs on `parents[i]`, or on what came before the tree.
    ///
    /// Panics if a parent does not come before its child.
    #[track_caller]
    pub fn new(parents: Vec<Option<usize>>) -> TokenTree {
        let n = parents.len();
        let (mut depths, mut sees) = (vec![0; n], vec![false; n * n]);
        for (i, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                assert!(parent < i, "node {i} comes before its parent {parent}");
                depths[i] = depths[parent] + 1;
                sees.copy_within(parent * n..(parent + 1) * n, i * n);
            }
            sees[i * n + i] = true;
        }
        TokenTree { parents, depths, sees }
    }

    /// Nodes.
    pub fn n_nodes(&self) -> usize {
        self.parents.len()
    }

    /// What each node hangs on. `[n]`
    pub fn parents(&self) -> &[Option<usize>] {
        &self.parents
    }

    /// Ancestors of each node in the tree. `[n]`
    pub fn depths(&self) -> &[usize] {
        &self.depths
    }

    /// Whether node `j` is node `i` or an ancestor of it.
    pub fn sees(&self, i: usize, j: usize) -> bool {
        self.sees[i * self.n_nodes() + j]
    }

    /// The nodes from the top of the tree down to `node`.
    pub fn path(&self, node: usize) -> Vec<usize> {
        (0..=node).filter(|&j| self.sees(node, j)).collect()
    }

    /// The paths to all leaves, in ascending order of the leaves.
    pub fn paths(&self) -> Vec<Vec<usize>> {
        let is_leaf = |i: &usize| !self.parents.contains(&Some(*i));
        (0..self.n_nodes()).filter(is_leaf).map(|leaf| self.path(leaf)).collect()
    }

    /// As attention takes it.
    pub(crate) fn mask(&self) -> Tree<'_> {
        Tree { depths: &self.depths, sees: &self.sees }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_from_the_root_to_every_leaf() {
        let tree = TokenTree::new(vec![None, Some(0), Some(0), Some(2), Some(2), Some(1)]);
        assert_eq!(tree.depths(), [0, 1, 1, 2, 2, 2]);
        assert_eq!(tree.paths(), [vec![0, 2, 3], vec![0, 2, 4], vec![0, 1, 5]]);
        assert!(tree.sees(5, 1) && !tree.sees(5, 2) && tree.sees(0, 0));
    }

    #[test]
    #[should_panic(expected = "node 1 comes before its parent 2")]
    fn a_child_before_its_parent_panics() {
        TokenTree::new(vec![None, Some(2), Some(0)]);
    }
}
