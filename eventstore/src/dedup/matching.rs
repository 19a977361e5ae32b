//! Common parts of texts: shared beginnings and ends, and copies found by a rolling hash (as in
//! rsync).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Length of the blocks that sources are indexed by, at multiples of it. A copy is found if it
/// holds one such block.
const BLOCK_BYTES: usize = 64;
/// Minimum length of a copy in bytes: any copy of this length holds a whole indexed block, and
/// saves more than its description costs.
pub(super) const MINIMUM_COPY_BYTES: usize = 2 * BLOCK_BYTES;
/// Base of the polynomial hash: an odd number with well mixed bits (2^64 divided by the golden
/// ratio).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Returns the lengths of the common prefix and suffix, which do not overlap in either text.
pub(super) fn common_ends(a: &[u8], b: &[u8]) -> (usize, usize) {
    let prefix = common_prefix(a, b);
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let pairs = a.iter().rev().zip(b.iter().rev());
    (prefix, pairs.take_while(|(x, y)| x == y).count())
}

/// Returns the length of the common prefix, compared in strides, since transcripts are long.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STRIDE: usize = 256;
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE));
    let begin = strides.take_while(|(x, y)| x == y).count() * STRIDE;
    begin + a[begin..].iter().zip(&b[begin..]).take_while(|(x, y)| x == y).count()
}

/// A range that a text and a source have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextMatch {
    /// Index of the source.
    pub(super) source: usize,
    /// Offset in the source.
    pub(super) source_start: usize,
    /// Offset in the text.
    pub(super) text_start: usize,
    pub(super) bytes: usize,
}

/// Finds ranges of a text that the sources hold, in order, without overlap, at most `limit`.
pub(super) fn find_matches(text: &[u8], sources: &[&[u8]], limit: usize) -> Vec<TextMatch> {
    let blocks = index_blocks(sources);
    let mut found: Vec<TextMatch> = Vec::new();
    let (mut at, mut free) = (0, 0);
    let mut hash = None;
    while at + BLOCK_BYTES <= text.len() && found.len() < limit && !blocks.is_empty() {
        let rolled = hash.take().unwrap_or_else(|| hash_block(&text[at..at + BLOCK_BYTES]));
        let place = blocks.get(&rolled).copied();
        match place.and_then(|place| extend_match(text, sources, place, at, free)) {
            Some(part) => {
                at = part.text_start + part.bytes;
                free = at;
                found.push(part);
            }
            None => {
                if let Some(next) = text.get(at + BLOCK_BYTES) {
                    hash = Some(roll_hash(rolled, text[at], *next));
                }
                at += 1;
            }
        }
    }
    found
}

/// Indexes the sources' blocks by their hash: source and offset.
fn index_blocks(
    sources: &[&[u8]],
) -> HashMap<u64, (usize, usize), BuildHasherDefault<IdentityHasher>> {
    let mut blocks = HashMap::default();
    for (number, source) in sources.iter().enumerate() {
        for (block, bytes) in source.chunks_exact(BLOCK_BYTES).enumerate() {
            blocks.insert(hash_block(bytes), (number, block * BLOCK_BYTES));
        }
    }
    blocks
}

/// Extends a block match in both directions; `None` if the hashes collided or the range is too
/// short. It does not extend before `free`, where the previous range ends.
fn extend_match(
    text: &[u8],
    sources: &[&[u8]],
    (source, start): (usize, usize),
    at: usize,
    free: usize,
) -> Option<TextMatch> {
    let source_text = sources.get(source)?;
    let before = source_text[..start].iter().rev().zip(text[free..at].iter().rev());
    let before = before.take_while(|(x, y)| x == y).count();
    let bytes = before + common_prefix(&source_text[start..], &text[at..]);
    let part = TextMatch { source, source_start: start - before, text_start: at - before, bytes };
    (bytes >= MINIMUM_COPY_BYTES).then_some(part)
}

/// Hashes a block as a polynomial of its bytes, which can be rolled by one byte.
fn hash_block(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash: u64, byte| hash_step(hash, *byte))
}

fn hash_step(hash: u64, byte: u8) -> u64 {
    hash.wrapping_mul(MULTIPLIER).wrapping_add(u64::from(byte) + 1)
}

/// Moves the hash by one byte: removes `gone` at the front and appends `come`.
fn roll_hash(hash: u64, gone: u8, come: u8) -> u64 {
    const HIGHEST: u64 = multiplier_power(BLOCK_BYTES - 1);
    let rest = hash.wrapping_sub(HIGHEST.wrapping_mul(u64::from(gone) + 1));
    hash_step(rest, come)
}

const fn multiplier_power(times: usize) -> u64 {
    let (mut result, mut left) = (1_u64, times);
    while left > 0 {
        result = result.wrapping_mul(MULTIPLIER);
        left -= 1;
    }
    result
}

/// Hasher for keys that are hashes already.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = hash_step(self.0, *byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The hash table uses the highest bits; the polynomial mixes the lower ones less.
        self.0 = number ^ number.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{
        BLOCK_BYTES, MINIMUM_COPY_BYTES, common_ends, find_matches, hash_block, roll_hash,
    };

    #[test]
    fn beginnings_and_ends_do_not_overlap() {
        assert_eq!(common_ends(b"abcabc", b"abcabcabc"), (6, 0));
        assert_eq!(common_ends(b"[1,2]}", b"[1,2,3]}"), (4, 2));
        assert_eq!(common_ends(b"", b"a"), (0, 0));
        assert_eq!(common_ends(b"aaa", b"aa"), (2, 0));
    }

    #[test]
    fn a_quote_is_found_wherever_it_stands() {
        let said: Vec<u8> = (0..300_u32).map(|n| (n * n % 251) as u8).collect();
        for shift in 0..2 * BLOCK_BYTES {
            let mut text = vec![b'-'; shift];
            text.extend_from_slice(&said[17..17 + MINIMUM_COPY_BYTES + BLOCK_BYTES]);
            text.extend_from_slice(b"--");
            let found = find_matches(&text, &[b"short", &said], 9);
            assert_eq!(found.len(), 1, "{shift}");
            let part = found[0];
            assert_eq!((part.source, part.source_start, part.text_start), (1, 17, shift));
            assert_eq!(part.bytes, MINIMUM_COPY_BYTES + BLOCK_BYTES);
        }
    }

    proptest! {
        #[test]
        fn a_hash_can_be_moved(bytes in prop::collection::vec(any::<u8>(), BLOCK_BYTES + 1)) {
            let moved = roll_hash(hash_block(&bytes[..BLOCK_BYTES]), bytes[0], bytes[BLOCK_BYTES]);
            prop_assert_eq!(moved, hash_block(&bytes[1..]));
        }

        #[test]
        fn quotes_say_what_they_quote(
            text in prop::collection::vec(0..3_u8, 0..900),
            sources in prop::collection::vec(prop::collection::vec(0..3_u8, 0..900), 0..4),
            cut in 0..900_usize,
        ) {
            let mut text = text;
            if let Some(first) = sources.first() {
                text.splice(cut.min(text.len())..cut.min(text.len()), first.iter().copied());
            }
            let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
            let mut free = 0;
            for part in find_matches(&text, &sources, 5) {
                prop_assert!(part.text_start >= free && part.bytes >= MINIMUM_COPY_BYTES);
                free = part.text_start + part.bytes;
                let said = &sources[part.source][part.source_start..part.source_start + part.bytes];
                prop_assert_eq!(&text[part.text_start..free], said);
            }
        }
    }
}
