//! Turns a sequence of token ends into the counts at given offsets.

/// Receives a text's tokens in order.
pub struct Prefixes<'e> {
    /// Ascending offsets; those before `counts.len()` have been passed.
    ends: &'e [usize],
    counts: Vec<u64>,
    tokens: u64,
}

impl<'e> Prefixes<'e> {
    /// Will count at each of `ends`, ascending byte offsets.
    pub fn new(ends: &'e [usize]) -> Self {
        Self {
            ends,
            counts: Vec::with_capacity(ends.len()),
            tokens: 0,
        }
    }

    /// Whether an offset that has not been passed lies before `end`: the tokens up to there have
    /// to be told apart.
    pub fn is_within(&self, end: usize) -> bool {
        self.ends
            .get(self.counts.len())
            .is_some_and(|next| *next < end)
    }

    /// Takes one token that ends at `end`.
    pub fn token(&mut self, end: usize) {
        while self.is_within(end) {
            self.counts.push(self.tokens);
        }
        self.tokens += 1;
    }

    /// Takes several tokens of which none crosses an offset, nor has one behind it among them.
    pub fn tokens(&mut self, tokens: u64) {
        self.tokens += tokens;
    }

    /// The counts, one for each offset.
    pub fn finish(mut self) -> Vec<u64> {
        self.counts.resize(self.ends.len(), self.tokens);
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_crosses_an_offset_comes_after_it() {
        let ends = [0, 2, 3, 3, 7, 9];
        let mut prefixes = Prefixes::new(&ends);
        for end in [2, 4, 7, 9] {
            prefixes.token(end);
        }
        assert_eq!(prefixes.finish(), [0, 1, 1, 1, 3, 4]);
    }

    #[test]
    fn tokens_of_one_character_stay_together() {
        let mut prefixes = Prefixes::new(&[3, 6]);
        for end in [3, 3, 3, 6] {
            prefixes.token(end);
        }
        assert_eq!(prefixes.finish(), [3, 4]);
    }
}
