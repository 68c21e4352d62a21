//! Which tokens a draft proposes: EAGLE-2's tree, grown where the draft head is sure, and EAGLE-1's, always the same.

use crate::tree::TokenTree;

/// How large a dynamic tree becomes. Source: EAGLE-2, arXiv:2406.16858, section 4, and its authors' `topK_genrate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DraftOptions {
    /// Nodes of the tree, its root included.
    pub n_nodes: usize,
    /// How often the likeliest nodes get children after the root has got them.
    pub depth: usize,
    /// Children of a node, and nodes that get children at each depth.
    pub top_k: usize,
}

impl Default for DraftOptions {
    fn default() -> DraftOptions {
        DraftOptions { n_nodes: 60, depth: 7, top_k: 10 }
    }
}

/// Proposed continuations of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The token of each node; that of the root is the sequence's last. `[n]`
    pub tokens: Vec<u32>,
    /// Which node follows which.
    pub tree: TokenTree,
}

/// A node that might become one of the tree's.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    /// ln of the probability of the path to it.
    score: f32,
    /// Its parent among the candidates; `None` = the root.
    parent: Option<usize>,
}

/// A dynamic tree while it grows.
pub struct Growth {
    options: DraftOptions,
    root: u32,
    candidates: Vec<Candidate>,
    /// Candidates that get children next, the likeliest first.
    frontier: Vec<usize>,
    /// Candidates that have children or get them next, in the order in which they were chosen.
    open: Vec<usize>,
}

impl Growth {
    /// A tree of one node.
    pub fn new(root: u32, options: DraftOptions) -> Growth {
        assert!(options.n_nodes > 0 && options.top_k > 0, "{options:?}");
        Growth { options, root, candidates: Vec::new(), frontier: Vec::new(), open: Vec::new() }
    }

    /// Gives the root its children, or later each node of the frontier; the likeliest of the new nodes are the next
    /// frontier. `log_probs`: of each of these nodes ln p of all tokens, `[n, V]`; `token_of` names the V columns.
    pub fn grow(&mut self, log_probs: &[f32], vocab_size: usize, token_of: impl Fn(usize) -> u32) {
        let parents: Vec<Option<usize>> = match self.candidates.is_empty() {
            true => vec![None],
            false => self.frontier.iter().map(|&node| Some(node)).collect(),
        };
        assert_eq!(log_probs.len(), parents.len() * vocab_size, "a row for each node");
        let first = self.candidates.len();
        for (parent, row) in parents.into_iter().zip(log_probs.chunks_exact(vocab_size)) {
            let before = parent.map_or(0.0, |parent| self.candidates[parent].score);
            for column in likeliest(row.iter().copied(), self.options.top_k) {
                let (token, score) = (token_of(column), before + row[column]);
                self.candidates.push(Candidate { token, score, parent });
            }
        }
        let new = self.candidates[first..].iter().map(|candidate| candidate.score);
        self.frontier = likeliest(new, self.options.top_k).into_iter().map(|i| first + i).collect();
        self.open.extend(&self.frontier);
    }

    /// The nodes that have children or get them next, without the root: their tokens, what each hangs on among them,
    /// and the last of them that are the frontier.
    pub fn open(&self) -> (Vec<u32>, TokenTree, usize) {
        let place = |node| self.open.iter().position(|&open| open == node);
        let parents = self.open.iter().map(|&node| self.candidates[node].parent.and_then(place));
        let tokens = self.open.iter().map(|&node| self.candidates[node].token).collect();
        (tokens, TokenTree::new(parents.collect()), self.frontier.len())
    }

    /// Whether all depths have got their nodes.
    pub fn is_grown(&self) -> bool {
        let levels = self.candidates.len().saturating_sub(self.options.top_k);
        self.candidates.len() >= self.options.top_k
            && levels >= self.options.depth * self.options.top_k.pow(2)
    }

    /// The tree of the likeliest candidates, in the order in which they were proposed. A parent is at least as likely as
    /// its child, so the tree is connected.
    pub fn finish(self) -> Draft {
        let scores = self.candidates.iter().map(|candidate| candidate.score);
        let mut chosen = likeliest(scores, self.options.n_nodes - 1);
        chosen.sort_unstable();
        let place = |node| 1 + chosen.binary_search(&node).expect("a parent is chosen before its child");
        let parents = chosen.iter().map(|&node| Some(self.candidates[node].parent.map_or(0, place)));
        let tree = TokenTree::new(std::iter::once(None).chain(parents).collect());
        let tokens = chosen.iter().map(|&node| self.candidates[node].token);
        Draft { tokens: std::iter::once(self.root).chain(tokens).collect(), tree }
    }
}

/// The `k` greatest scores, the greatest first; of equal ones the first.
fn likeliest(scores: impl Iterator<Item = f32>, k: usize) -> Vec<usize> {
    let mut all: Vec<(usize, f32)> = scores.enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.into_iter().take(k).map(|(i, _)| i).collect()
}

/// EAGLE-1's tree for 7B models, `mc_sim_7b_63`: each node by the ranks of the children on the way to it.
pub const EAGLE_1_TREE: &[&[usize]] = &[
    &[0],
    &[1],
    &[2],
    &[3],
    &[0, 0],
    &[0, 1],
    &[0, 2],
    &[1, 0],
    &[1, 1],
    &[2, 0],
    &[2, 1],
    &[3, 0],
    &[0, 0, 0],
    &[0, 0, 1],
    &[0, 0, 2],
    &[0, 1, 0],
    &[0, 1, 1],
    &[0, 2, 0],
    &[0, 2, 1],
    &[1, 0, 0],
    &[0, 0, 0, 0],
    &[0, 0, 0, 1],
    &[0, 0, 0, 2],
    &[0, 0, 0, 0, 0],
    &[0, 0, 0, 0, 1],
];

/// The tree of these nodes under a root, and the rank of each node among its parent's children (0 for the root).
///
/// Source: EAGLE, arXiv:2401.15077, section 4.2. Panics if a node stands before its parent, or twice.
#[track_caller]
pub fn static_tree(nodes: &[&[usize]]) -> (TokenTree, Vec<usize>) {
    let (mut parents, mut ranks) = (vec![None], vec![0]);
    for (i, node) in nodes.iter().enumerate() {
        let (&rank, path) = node.split_last().expect("a node has a path");
        assert!(!nodes[..i].contains(node), "{node:?} twice");
        let parent = nodes[..i].iter().position(|other| *other == path).map(|at| at + 1);
        let parent = if path.is_empty() { Some(0) } else { parent };
        parents.push(Some(parent.unwrap_or_else(|| panic!("{node:?} stands before its parent"))));
        ranks.push(rank);
    }
    (TokenTree::new(parents), ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_paths_are_kept_whole() {
        let options = DraftOptions { n_nodes: 5, depth: 1, top_k: 2 };
        let mut growth = Growth::new(9, options);
        growth.grow(&[-1.0, -0.5, -3.0], 3, |column| column as u32);
        let (tokens, tree, n) = growth.open();
        assert_eq!((tokens, tree.parents().to_vec(), n), (vec![1, 0], vec![None, None], 2));
        assert!(!growth.is_grown());
        growth.grow(&[-0.1, -2.0, -3.0, -5.0, -4.0, -0.2], 3, |column| column as u32);
        assert!(growth.is_grown());
        let draft = growth.finish();
        // 1 (-0.5), 0 (-1.0), 1 0 (-0.6), 0 2 (-1.2); 1 1 (-2.5) is left out.
        assert_eq!(draft.tokens, [9, 1, 0, 0, 2]);
        assert_eq!(draft.tree.parents(), [None, Some(0), Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn the_static_tree_of_eagle_1_has_25_nodes_below_its_root() {
        let (tree, ranks) = static_tree(EAGLE_1_TREE);
        assert_eq!((tree.n_nodes(), tree.depths().iter().max()), (26, Some(&5)));
        assert_eq!(tree.path(25), [0, 1, 5, 13, 21, 25]);
        assert_eq!(ranks[25], 1);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|d| tree.depths().iter().filter(|&&at| at == d).count()),
            [4, 8, 8, 3, 2]
        );
    }
}
