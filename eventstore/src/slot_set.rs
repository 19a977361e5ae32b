//! Division of work among the processes of one log: streams hash into slots, and each process holds
//! a set of slots.
//!
//! Slots are an optimisation that keeps rivals apart. Correctness rests on the expected head of
//! each commit, not on slots.

use convergio_domain::stream::StreamKey;

/// Number of slots that streams hash into.
pub const SLOT_COUNT: u32 = 64;

/// A set of slots, as a bit mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotSet(u64);

impl SlotSet {
    /// All slots: the process works alone.
    pub const ALL: Self = Self(u64::MAX);
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Returns the slot of a stream, from the random end of its UUID.
    pub fn slot_of(stream: &StreamKey) -> u32 {
        let random = stream.id.as_u128() % u128::from(SLOT_COUNT);
        u32::try_from(random).unwrap_or(0)
    }

    /// Returns whether the slot of a stream is in the set.
    pub fn covers_stream(self, stream: &StreamKey) -> bool {
        self.contains_slot(Self::slot_of(stream))
    }

    /// Returns whether a slot, below [`SLOT_COUNT`], is in the set.
    pub fn contains_slot(self, slot: u32) -> bool {
        self.0 >> slot & 1 == 1
    }

    /// Returns the set with one more slot.
    #[must_use]
    pub fn with_slot(self, slot: u32) -> Self {
        Self(self.0 | 1 << slot)
    }

    /// Returns the set without one slot.
    #[must_use]
    pub fn without_slot(self, slot: u32) -> Self {
        Self(self.0 & !(1 << slot))
    }

    /// Returns the number of slots in the set.
    pub fn slot_count(self) -> u32 {
        self.0.count_ones()
    }
}

impl FromIterator<u32> for SlotSet {
    fn from_iter<T: IntoIterator<Item = u32>>(slots: T) -> Self {
        slots.into_iter().fold(Self::NONE, Self::with_slot)
    }
}
