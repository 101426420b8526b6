//! Random bytes that nobody guesses, in passing: a thread fetches them a block at a time.

use std::cell::RefCell;

/// Bytes that are fetched at once: one fetch for 64 ids costs less than a tenth of the ids themselves.
const BLOCK_BYTES: usize = 1024;

/// The random bytes of a thread.
pub struct Chance(RefCell<Block>);

struct Block {
    bytes: [u8; BLOCK_BYTES],
    used: usize,
}

impl Default for Chance {
    fn default() -> Self {
        Self(RefCell::new(Block { bytes: [0; BLOCK_BYTES], used: BLOCK_BYTES }))
    }
}

impl Chance {
    /// The next ones, up to [`BLOCK_BYTES`].
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut block = self.0.borrow_mut();
        if block.used + N > BLOCK_BYTES {
            block.refill();
        }
        let used = block.used;
        let taken = block.bytes.get_mut(used..used + N);
        // Used once: what went into an id is not kept.
        let bytes = taken.and_then(|taken| {
            let bytes = <[u8; N]>::try_from(&*taken).ok();
            taken.fill(0);
            bytes
        });
        block.used += N;
        bytes.unwrap_or([0; N])
    }
}

impl Block {
    fn refill(&mut self) {
        self.used = 0;
        // The kernel's generator fails at boot alone, if at all. An id that could be guessed is better than no answer.
        if aws_lc_rs::rand::fill(&mut self.bytes).is_err() {
            self.bytes.fill_with(|| fastrand::u8(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn bytes_are_never_given_out_twice() {
        let chance = Chance::default();
        let ids: HashSet<[u8; 16]> = (0..1000).map(|_| chance.bytes()).collect();
        assert_eq!(ids.len(), 1000);
        let parts: HashSet<[u8; 8]> = (0..1000).map(|_| chance.bytes()).collect();
        assert_eq!(parts.len(), 1000);
    }
}
