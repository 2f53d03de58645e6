//! A prefix cache of whole blocks, as vLLM keeps one: an identity for each block of tokens that holds
//! all tokens before it (and the request's salt), a bounded number of them, the least recently used
//! ones evicted first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

/// Tokens in one block, vLLM's default. A block that is not full is not cached.
pub const BLOCK_TOKENS: usize = 16;

/// The blocks that one engine holds.
#[derive(Debug)]
pub struct KvCache {
    blocks_max: usize,
    /// When each block was used last.
    used: HashMap<u64, u64>,
    /// The same, by time.
    by_use: BTreeMap<u64, u64>,
    clock: u64,
}

impl KvCache {
    /// Room for `blocks_max` blocks.
    pub fn new(blocks_max: usize) -> Self {
        Self {
            blocks_max,
            used: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Serves a prompt that is continued by `answer`: how many of its tokens were cached. Both are
    /// afterwards, as far as there is room.
    pub fn serve(&mut self, prompt: &[u32], answer: &[u32], salt: Option<&str>) -> usize {
        let tokens = [prompt, answer].concat();
        let blocks: Vec<u64> = identities(&tokens, salt).collect();
        // The last token is always computed: its logits are what the answer begins with.
        let whole = prompt.len().saturating_sub(1) / BLOCK_TOKENS;
        let held = |block: &&u64| self.used.contains_key(block);
        let hits = blocks.iter().take(whole).take_while(held).count();
        // A finished request gives its blocks back from the end, so that the ends are evicted first.
        for block in blocks.into_iter().rev() {
            self.touch(block);
        }
        while self.used.len() > self.blocks_max {
            if let Some((_, block)) = self.by_use.pop_first() {
                self.used.remove(&block);
            }
        }
        hits * BLOCK_TOKENS
    }

    fn touch(&mut self, block: u64) {
        self.clock += 1;
        if let Some(before) = self.used.insert(block, self.clock) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.clock, block);
    }
}

/// The identity of each whole block: a chain, which the salt begins.
fn identities(tokens: &[u32], salt: Option<&str>) -> impl Iterator<Item = u64> {
    let hash = |parts: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        parts(&mut hasher);
        hasher.finish()
    };
    let mut parent = hash(&|hasher| salt.hash(hasher));
    tokens.chunks_exact(BLOCK_TOKENS).map(move |block| {
        parent = hash(&|hasher| (parent, block).hash(hasher));
        parent
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` tokens that are `first`, `first + 1`, and so on.
    fn tokens(first: u32, count: u32) -> Vec<u32> {
        (first..first + count).collect()
    }

    #[test]
    fn whole_blocks_are_reused_and_the_last_token_never_is() {
        for (count, cached) in [(15, 0), (16, 0), (17, 16), (32, 16), (33, 32), (40, 32)] {
            let mut cache = KvCache::new(100);
            let prompt = tokens(0, count);
            assert_eq!(cache.serve(&prompt, &[], None), 0, "{count}");
            assert_eq!(cache.serve(&prompt, &[], None), cached, "{count}");
        }
    }

    #[test]
    fn the_answer_is_part_of_the_next_prompt() {
        let mut cache = KvCache::new(100);
        let (prompt, answer) = (tokens(0, 40), tokens(100, 40));
        cache.serve(&prompt, &answer, None);
        let next = [prompt, answer, tokens(200, 20)].concat();
        assert_eq!(cache.serve(&next, &[], None), 80);
    }

    #[test]
    fn a_block_is_what_it_is_by_all_before_it() {
        let mut cache = KvCache::new(100);
        cache.serve(&tokens(0, 64), &[], None);
        let mut other = tokens(0, 64);
        other[20] = 9999;
        assert_eq!(cache.serve(&other, &[], None), 16);
        // The same tokens behind another block are others.
        assert_eq!(cache.serve(&tokens(16, 48), &[], None), 0);
    }

    #[test]
    fn salts_share_nothing() {
        let mut cache = KvCache::new(100);
        let prompt = tokens(0, 64);
        for salt in [None, Some("a"), Some("b"), Some("")] {
            assert_eq!(cache.serve(&prompt, &[], salt), 0, "{salt:?}");
            assert_eq!(cache.serve(&prompt, &[], salt), 48, "{salt:?}");
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_ends_before_beginnings() {
        let mut cache = KvCache::new(8);
        let [a, b, c] = [0, 1000, 2000].map(|first| tokens(first, 64));
        cache.serve(&a, &[], None);
        cache.serve(&b, &[], None);
        cache.serve(&a, &[], None);
        // Two blocks' room: the end of b goes, and a is whole.
        cache.serve(&tokens(2000, 32), &[], None);
        assert_eq!(cache.serve(&a, &[], None), 48);
        assert_eq!(cache.serve(&b[..33], &[], None), 32);
        // Four blocks: what b and c have left is older than a.
        cache.serve(&c, &[], None);
        assert_eq!(cache.serve(&a[..17], &[], None), 16);
        assert_eq!(cache.used.len(), cache.by_use.len());
        assert!(cache.used.len() <= 8);
    }
}
