//! Common parts of texts: shared beginnings and ends, and copies found by a rolling hash (as in
//! rsync).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Length of the blocks that sources are indexed by, at multiples of it. A copy is found if it
/// holds one such block.
const BLOCK: usize = 64;
/// Minimum length of a copy in bytes: any copy of this length holds a whole indexed block, and
/// saves more than its description costs.
pub(super) const LEAST_QUOTE: usize = 2 * BLOCK;
/// Base of the polynomial hash: an odd number with well mixed bits (2^64 divided by the golden
/// ratio).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Returns the lengths of the common prefix and suffix, which do not overlap in either text.
pub(super) fn ends(a: &[u8], b: &[u8]) -> (usize, usize) {
    let prefix = common(a, b);
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let pairs = a.iter().rev().zip(b.iter().rev());
    (prefix, pairs.take_while(|(x, y)| x == y).count())
}

/// Returns the length of the common prefix, compared in strides, since transcripts are long.
fn common(a: &[u8], b: &[u8]) -> usize {
    const STRIDE: usize = 256;
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE));
    let begin = strides.take_while(|(x, y)| x == y).count() * STRIDE;
    begin + a[begin..].iter().zip(&b[begin..]).take_while(|(x, y)| x == y).count()
}

/// A range that a text and a source have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Index of the source.
    pub(super) source: usize,
    /// Offset in the source.
    pub(super) start: usize,
    /// Offset in the text.
    pub(super) at: usize,
    pub(super) bytes: usize,
}

/// Finds ranges of a text that the sources hold, in order, without overlap, at most `limit`.
pub(super) fn quotes(text: &[u8], sources: &[&[u8]], limit: usize) -> Vec<Found> {
    let blocks = index(sources);
    let mut found: Vec<Found> = Vec::new();
    let (mut at, mut free) = (0, 0);
    let mut hash = None;
    while at + BLOCK <= text.len() && found.len() < limit && !blocks.is_empty() {
        let rolled = hash.take().unwrap_or_else(|| hash_of(&text[at..at + BLOCK]));
        let place = blocks.get(&rolled).copied();
        match place.and_then(|place| grown(text, sources, place, at, free)) {
            Some(part) => {
                at = part.at + part.bytes;
                free = at;
                found.push(part);
            }
            None => {
                if let Some(next) = text.get(at + BLOCK) {
                    hash = Some(roll(rolled, text[at], *next));
                }
                at += 1;
            }
        }
    }
    found
}

/// Indexes the sources' blocks by their hash: source and offset.
fn index(sources: &[&[u8]]) -> HashMap<u64, (usize, usize), BuildHasherDefault<AsIs>> {
    let mut blocks = HashMap::default();
    for (number, source) in sources.iter().enumerate() {
        for (block, bytes) in source.chunks_exact(BLOCK).enumerate() {
            blocks.insert(hash_of(bytes), (number, block * BLOCK));
        }
    }
    blocks
}

/// Extends a block match in both directions; `None` if the hashes collided or the range is too
/// short. It does not extend before `free`, where the previous range ends.
fn grown(
    text: &[u8],
    sources: &[&[u8]],
    (source, start): (usize, usize),
    at: usize,
    free: usize,
) -> Option<Found> {
    let said = sources.get(source)?;
    let before = said[..start].iter().rev().zip(text[free..at].iter().rev());
    let before = before.take_while(|(x, y)| x == y).count();
    let bytes = before + common(&said[start..], &text[at..]);
    let part = Found { source, start: start - before, at: at - before, bytes };
    (bytes >= LEAST_QUOTE).then_some(part)
}

/// Hashes a block as a polynomial of its bytes, which can be rolled by one byte.
fn hash_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash: u64, byte| step(hash, *byte))
}

fn step(hash: u64, byte: u8) -> u64 {
    hash.wrapping_mul(MULTIPLIER).wrapping_add(u64::from(byte) + 1)
}

/// Moves the hash by one byte: removes `gone` at the front and appends `come`.
fn roll(hash: u64, gone: u8, come: u8) -> u64 {
    const HIGHEST: u64 = power(BLOCK - 1);
    let rest = hash.wrapping_sub(HIGHEST.wrapping_mul(u64::from(gone) + 1));
    step(rest, come)
}

const fn power(times: usize) -> u64 {
    let (mut result, mut left) = (1_u64, times);
    while left > 0 {
        result = result.wrapping_mul(MULTIPLIER);
        left -= 1;
    }
    result
}

/// Hasher for keys that are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = step(self.0, *byte);
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

    use super::{BLOCK, LEAST_QUOTE, ends, hash_of, quotes, roll};

    #[test]
    fn beginnings_and_ends_do_not_overlap() {
        assert_eq!(ends(b"abcabc", b"abcabcabc"), (6, 0));
        assert_eq!(ends(b"[1,2]}", b"[1,2,3]}"), (4, 2));
        assert_eq!(ends(b"", b"a"), (0, 0));
        assert_eq!(ends(b"aaa", b"aa"), (2, 0));
    }

    #[test]
    fn a_quote_is_found_wherever_it_stands() {
        let said: Vec<u8> = (0..300_u32).map(|n| (n * n % 251) as u8).collect();
        for shift in 0..2 * BLOCK {
            let mut text = vec![b'-'; shift];
            text.extend_from_slice(&said[17..17 + LEAST_QUOTE + BLOCK]);
            text.extend_from_slice(b"--");
            let found = quotes(&text, &[b"short", &said], 9);
            assert_eq!(found.len(), 1, "{shift}");
            let part = found[0];
            assert_eq!((part.source, part.start, part.at), (1, 17, shift));
            assert_eq!(part.bytes, LEAST_QUOTE + BLOCK);
        }
    }

    proptest! {
        #[test]
        fn a_hash_can_be_moved(bytes in prop::collection::vec(any::<u8>(), BLOCK + 1)) {
            let moved = roll(hash_of(&bytes[..BLOCK]), bytes[0], bytes[BLOCK]);
            prop_assert_eq!(moved, hash_of(&bytes[1..]));
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
            for part in quotes(&text, &sources, 5) {
                prop_assert!(part.at >= free && part.bytes >= LEAST_QUOTE);
                free = part.at + part.bytes;
                let said = &sources[part.source][part.start..part.start + part.bytes];
                prop_assert_eq!(&text[part.at..free], said);
            }
        }
    }
}
