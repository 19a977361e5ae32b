//! Recall: which items of a memory fit into a prompt.

use crate::bindings as c;
use crate::error::KernelError;
use crate::ffi::{self, RawMemory};

/// Weights of the parts of a score, from 0 to 1000; not all 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankWeights {
    /// Weight of BM25 over the words of the query.
    pub text: u32,
    /// Weight of the cosine between item and query.
    pub vector: u32,
    /// Weight of the item's age.
    pub recency: u32,
    /// Weight of the item's importance.
    pub importance: u32,
    /// Age in milliseconds at which recency is one half; above 0.
    pub half_life_ms: i64,
}

impl RankWeights {
    pub(crate) fn to_raw(self) -> c::cvg_weights {
        c::cvg_weights {
            text: self.text,
            vector: self.vector,
            recency: self.recency,
            importance: self.importance,
            half_life_ms: self.half_life_ms,
        }
    }
}

/// An item to be added to a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryItem<'a> {
    /// Text that is indexed by its words.
    pub text: &'a str,
    /// Vector, of as many dimensions as the memory has.
    pub vector: &'a [i8],
    /// Time of the item, in milliseconds.
    pub time_ms: i64,
    /// Tokens that it takes of a prompt.
    pub tokens: u32,
    /// Importance from 0 to 1000.
    pub importance: u32,
}

/// A query to a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryQuery<'a> {
    /// Words that are looked for.
    pub text: &'a str,
    /// Vector of as many dimensions as the memory has.
    pub vector: Option<&'a [i8]>,
    /// Time of the query, in milliseconds.
    pub now_ms: i64,
    /// Weights of the score's parts.
    pub weights: RankWeights,
}

/// An item that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedItem {
    /// Score from 0 to 1.
    pub score: f64,
    /// Number that [`MemoryIndex::add_item`] returned.
    pub item: u32,
    /// Tokens that it takes of a prompt.
    pub tokens: u32,
}

/// Items with an index over their words and vectors.
#[derive(Debug)]
pub struct MemoryIndex {
    raw: RawMemory,
    dimensions: usize,
}

impl MemoryIndex {
    /// Creates an empty memory whose vectors have `dimensions` (0: no vectors).
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] beyond 65,536, [`KernelError::NoMemory`].
    pub fn new(dimensions: usize) -> Result<Self, KernelError> {
        Ok(Self { raw: RawMemory::new(dimensions)?, dimensions })
    }

    /// Adds an item and returns its number: the count of items added before, removed ones included.
    ///
    /// # Errors
    /// [`KernelError::BadArgument`] for a vector of other dimensions or an importance out of range,
    /// [`KernelError::TooLarge`], [`KernelError::NoMemory`].
    pub fn add_item(&mut self, item: &MemoryItem<'_>) -> Result<u32, KernelError> {
        self.check_dimensions(item.vector)?;
        self.raw.add(&c::cvg_memory_item {
            text: ffi::text(item.text),
            vector: item.vector.as_ptr(),
            time_ms: item.time_ms,
            tokens: item.tokens,
            importance: item.importance,
        })
    }

    /// Removes an item: it is never found again and counts in no statistic.
    ///
    /// # Errors
    /// [`KernelError::BadNode`] if there is no such item.
    pub fn remove(&mut self, item: u32) -> Result<(), KernelError> {
        self.raw.remove(item)
    }

    /// Number of items, removed ones not counted.
    #[must_use]
    pub fn item_count(&self) -> u32 {
        self.raw.count()
    }

    /// Returns the best items, at most `limit`, best first: by score, then newer, then of lower
    /// number.
    ///
    /// # Errors
    /// [`KernelError::BadArgument`] for weights out of range or a vector of other dimensions,
    /// [`KernelError::NoMemory`].
    pub fn rank_items(
        &self,
        query: &MemoryQuery<'_>,
        limit: usize,
    ) -> Result<Vec<RankedItem>, KernelError> {
        if let Some(vector) = query.vector {
            self.check_dimensions(vector)?;
        }
        // The buffer has a slot for each item of the limit: a huge limit must not allocate more
        // than there is.
        let limit = limit.min(self.item_count() as usize);
        let raw = c::cvg_query {
            text: ffi::text(query.text),
            vector: query.vector.map_or(std::ptr::null(), <[i8]>::as_ptr),
            now_ms: query.now_ms,
            weights: query.weights.to_raw(),
        };
        let found = self.raw.rank(&raw, limit)?;
        Ok(found.iter().map(RankedItem::from_raw).collect())
    }

    fn check_dimensions(&self, vector: &[i8]) -> Result<(), KernelError> {
        if vector.len() == self.dimensions { Ok(()) } else { Err(KernelError::BadArgument) }
    }
}

impl RankedItem {
    fn from_raw(raw: &c::cvg_recalled) -> Self {
        Self { score: raw.score, item: raw.item, tokens: raw.tokens }
    }
}

/// Keeps of a ranked list what fits into `budget` tokens: each item for which there is room after
/// those kept before it.
#[must_use]
pub fn pack_into_budget(ranked: &[RankedItem], budget: u64) -> Vec<RankedItem> {
    let raw = |r: &RankedItem| c::cvg_recalled { score: r.score, item: r.item, tokens: r.tokens };
    let mut list: Vec<c::cvg_recalled> = ranked.iter().map(raw).collect();
    ffi::pack(&mut list, budget);
    list.iter().map(RankedItem::from_raw).collect()
}

/// Scales a vector of floats to bytes, its largest component by magnitude to 127 or -127.
///
/// # Errors
/// [`KernelError::BadArgument`] for a component that is not finite, [`KernelError::TooLarge`]
/// beyond 65,536 dimensions.
pub fn quantise_vector(vector: &[f32]) -> Result<Vec<i8>, KernelError> {
    ffi::quantise(vector)
}

/// Returns the cosine of two vectors of the same dimensions, from -1 to 1; 0 if one is all zeros.
///
/// # Errors
/// [`KernelError::BadArgument`] for vectors of different dimensions, [`KernelError::TooLarge`].
pub fn cosine_similarity(a: &[i8], b: &[i8]) -> Result<f64, KernelError> {
    if a.len() == b.len() { ffi::cosine(a, b) } else { Err(KernelError::BadArgument) }
}

/// Returns the score of an item, from 0 to 1, from its parts.
///
/// # Errors
/// [`KernelError::BadArgument`] for anything out of range.
pub fn score_item(
    weights: &RankWeights,
    bm25: f64,
    cosine: f64,
    age_ms: i64,
    importance: u32,
) -> Result<f64, KernelError> {
    ffi::score(&weights.to_raw(), bm25, cosine, age_ms, importance)
}
