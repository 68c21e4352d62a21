//! Which page of the key-value cache belongs to whom.
//!
//! Pages are counted by reference. A page whose 32 tokens are all computed is *registered* under its tokens and the
//! page before it, so that a later sequence with the same beginning finds it; it is never written again. When its last
//! user leaves, it stays idle until the room is needed; the page idle for longest goes first. This module moves no
//! keys or values: it only keeps the books.
//!
//! Source: Efficient Memory Management for Large Language Model Serving with PagedAttention, arXiv:2309.06180, §4; the
//! prefix cache is keyed by exact tokens, not by a hash that may collide.

use rhetor_kernels::kv::PAGE_LEN;
use std::collections::{BTreeMap, HashMap};

/// A place in the chain of registered pages: the last registered page of a prefix. `Chain::default()` is the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Chain(u64);

/// The tokens of a page and all that stands before it.
type Key = (Chain, Box<[u32]>);

#[derive(Debug, Clone, Default)]
struct Block {
    refs: u32,
    /// When the last user left, if registered and idle.
    idle_since: u64,
    registered: Option<(Key, Chain)>,
}

/// The books of all pages.
#[derive(Debug)]
pub struct KvBlocks {
    blocks: Vec<Block>,
    free: Vec<u32>,
    index: HashMap<Key, u32>,
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

impl KvBlocks {
    /// Books for `n_pages` empty pages.
    pub fn new(n_pages: usize) -> KvBlocks {
        KvBlocks {
            blocks: vec![Block::default(); n_pages],
            // Popped from the end: low pages first, and a page just freed, still warm, before an untouched one.
            free: (0..n_pages as u32).rev().collect(),
            index: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// All pages.
    pub fn n_pages(&self) -> usize {
        self.blocks.len()
    }

    /// Pages that [`KvBlocks::allocate`] can still give: free ones, and idle ones that would be forgotten.
    pub fn n_available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages that are idle: kept only because a later prompt may begin with them.
    pub fn n_idle(&self) -> usize {
        self.idle.len()
    }

    /// A beginning that no other sequence has, for a set of adapters, pictures or a source: prefixes after different
    /// beginnings are never taken for one another.
    pub fn fresh_root(&mut self) -> Chain {
        self.clock += 1;
        Chain(self.clock)
    }

    /// Takes a page for one user, forgetting the longest idle one if none is free.
    pub fn allocate(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                self.forget(page);
                page
            }
        };
        self.blocks[page as usize].refs = 1;
        Some(page)
    }

    /// Adds a user to a page.
    pub fn retain(&mut self, page: u32) {
        let block = &mut self.blocks[page as usize];
        if block.refs == 0 {
            self.idle.remove(&block.idle_since);
        }
        block.refs += 1;
    }

    /// Removes a user from a page.
    ///
    /// Panics if the page has no user.
    pub fn release(&mut self, page: u32) {
        let block = &mut self.blocks[page as usize];
        assert!(block.refs > 0, "page {page} is released once more than it was taken");
        block.refs -= 1;
        if block.refs > 0 {
            return;
        }
        if block.registered.is_some() {
            self.clock += 1;
            block.idle_since = self.clock;
            self.idle.insert(self.clock, page);
        } else {
            self.free.push(page);
        }
    }

    /// Removes a user from all pages of a sequence, the last page first: of an idle prefix, the end is forgotten first.
    pub fn release_all(&mut self, pages: &[u32]) {
        for &page in pages.iter().rev() {
            self.release(page);
        }
    }

    /// Whether more than one sequence uses the page, so that a writer must copy it first.
    pub fn is_shared(&self, page: u32) -> bool {
        self.blocks[page as usize].refs > 1
    }

    /// Makes a full, computed page findable, and returns the place from which the next page is registered.
    ///
    /// If an equal page is registered already, this one stays private and the place of the other is returned.
    pub fn register(&mut self, page: u32, after: Chain, tokens: &[u32]) -> Chain {
        assert_eq!(tokens.len(), PAGE_LEN, "only full pages are registered");
        let key = (after, Box::from(tokens));
        if let Some(&other) = self.index.get(&key) {
            let (_, chain) =
                self.blocks[other as usize].registered.as_ref().expect("indexed pages are registered");
            return *chain;
        }
        // A number that was never used before: pages that follow a forgotten page can never be found by mistake.
        self.clock += 1;
        let chain = Chain(self.clock);
        self.index.insert(key.clone(), page);
        self.blocks[page as usize].registered = Some((key, chain));
        chain
    }

    /// The registered pages that hold the beginning of `tokens`, each taken for one more user, and the place after them.
    ///
    /// `root` is the [beginning](KvBlocks::fresh_root) of the sequence.
    pub fn take_prefix(&mut self, root: Chain, tokens: &[u32]) -> (Vec<u32>, Chain) {
        let mut pages = Vec::new();
        let mut chain = root;
        for full in tokens.chunks_exact(PAGE_LEN) {
            let Some((page, next)) = self.find(chain, full) else { break };
            self.retain(page);
            pages.push(page);
            chain = next;
        }
        (pages, chain)
    }

    /// The registered page that holds the page of `tokens` after `chain`, and the place after it.
    pub fn find(&self, chain: Chain, tokens: &[u32]) -> Option<(u32, Chain)> {
        let page = *self.index.get(&(chain, Box::from(tokens)))?;
        let registered = self.blocks[page as usize].registered.as_ref();
        Some((page, registered.expect("indexed pages are registered").1))
    }

    /// Registered pages that hold the beginning of `tokens` after `root`.
    pub fn n_held(&self, root: Chain, tokens: &[u32]) -> usize {
        let (mut chain, mut n) = (root, 0);
        for full in tokens.chunks_exact(PAGE_LEN) {
            let Some((_, next)) = self.find(chain, full) else { break };
            (chain, n) = (next, n + 1);
        }
        n
    }

    /// Pages that a later sequence may find.
    #[cfg(test)]
    pub fn n_known(&self) -> usize {
        self.index.len()
    }

    fn forget(&mut self, page: u32) {
        if let Some((key, _)) = self.blocks[page as usize].registered.take() {
            self.index.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(token: u32) -> Vec<u32> {
        vec![token; PAGE_LEN]
    }

    /// Registers `tokens` as the computed prefix of a sequence that then leaves.
    fn leave_behind(blocks: &mut KvBlocks, tokens: &[u32]) -> Vec<u32> {
        let (mut pages, mut chain) = blocks.take_prefix(Chain::default(), tokens);
        for full in tokens.chunks_exact(PAGE_LEN).skip(pages.len()) {
            let page = blocks.allocate().unwrap();
            chain = blocks.register(page, chain, full);
            pages.push(page);
        }
        blocks.release_all(&pages);
        pages
    }

    #[test]
    fn a_prefix_that_was_left_behind_is_found_again() {
        let mut blocks = KvBlocks::new(4);
        let tokens = [page_of(1), page_of(2)].concat();
        let left = leave_behind(&mut blocks, &tokens);
        assert_eq!((blocks.n_available(), blocks.n_idle()), (4, 2));
        let (found, _) = blocks.take_prefix(Chain::default(), &[tokens.clone(), vec![9; 5]].concat());
        assert_eq!(found, left);
        assert_eq!((blocks.n_available(), blocks.n_idle()), (2, 0));
        // The same second page after another first page is another prefix.
        assert!(blocks.take_prefix(Chain::default(), &[page_of(3), page_of(2)].concat()).0.is_empty());
    }

    #[test]
    fn the_end_of_the_longest_idle_prefix_is_forgotten_first() {
        let mut blocks = KvBlocks::new(4);
        let old = [page_of(1), page_of(2)].concat();
        let new = [page_of(3), page_of(4)].concat();
        leave_behind(&mut blocks, &old);
        leave_behind(&mut blocks, &new);
        blocks.allocate().unwrap();
        let (found, _) = blocks.take_prefix(Chain::default(), &old);
        assert_eq!(found.len(), 1, "page 2 of the older prefix went, page 1 stayed");
        let (found, _) = blocks.take_prefix(Chain::default(), &new);
        assert_eq!(found.len(), 2);
        assert_eq!(blocks.n_available(), 0);
        assert_eq!(blocks.allocate(), None);
    }

    #[test]
    fn pages_after_a_forgotten_page_are_not_found_under_its_successor() {
        let mut blocks = KvBlocks::new(3);
        let tokens = [page_of(1), page_of(2)].concat();
        let pages = leave_behind(&mut blocks, &tokens);
        // The first page is forgotten although the second is still known: as if it had been idle for longer.
        blocks.retain(pages[1]);
        blocks.allocate().unwrap();
        blocks.allocate().unwrap();
        let (found, _) = blocks.take_prefix(Chain::default(), &tokens);
        assert!(found.is_empty());
    }

    #[test]
    fn equal_pages_computed_at_the_same_time_share_one_place_in_the_chain() {
        let mut blocks = KvBlocks::new(3);
        let (a, b) = (blocks.allocate().unwrap(), blocks.allocate().unwrap());
        let chain_a = blocks.register(a, Chain::default(), &page_of(1));
        let chain_b = blocks.register(b, Chain::default(), &page_of(1));
        assert_eq!(chain_a, chain_b);
        blocks.release(b);
        assert_eq!(blocks.n_idle(), 0, "the private twin is free at once");
        blocks.release(a);
        assert_eq!((blocks.n_idle(), blocks.n_available()), (1, 3));
    }

    #[test]
    fn a_page_with_two_users_is_shared_until_one_leaves() {
        let mut blocks = KvBlocks::new(1);
        let page = blocks.allocate().unwrap();
        blocks.retain(page);
        assert!(blocks.is_shared(page));
        blocks.release(page);
        assert!(!blocks.is_shared(page));
        assert_eq!(blocks.n_available(), 0);
    }
}
