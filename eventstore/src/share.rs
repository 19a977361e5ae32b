//! Who works on what, where several processes follow one log: streams fall into slots, and each
//! process holds some of them.
//!
//! Holding a slot saves work and keeps rivals apart. That nothing is recorded twice does not rest
//! on it but on the expected version of each commit.

use convergio_domain::stream::StreamKey;

/// Slots that streams fall into.
pub const SLOTS: u32 = 64;

/// The slots that a process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Every slot: the process is alone.
    pub const ALL: Self = Self(u64::MAX);
    /// No slot.
    pub const NONE: Self = Self(0);

    /// The slot of a stream: from the random end of its id.
    pub fn slot(stream: &StreamKey) -> u32 {
        let random = stream.id.as_u128() % u128::from(SLOTS);
        u32::try_from(random).unwrap_or(0)
    }

    /// Whether a stream is in it.
    pub fn covers(self, stream: &StreamKey) -> bool {
        self.holds(Self::slot(stream))
    }

    /// Whether a slot, below [`SLOTS`], is in it.
    pub fn holds(self, slot: u32) -> bool {
        self.0 >> slot & 1 == 1
    }

    /// With one slot more.
    #[must_use]
    pub fn with(self, slot: u32) -> Self {
        Self(self.0 | 1 << slot)
    }

    /// With one slot less.
    #[must_use]
    pub fn without(self, slot: u32) -> Self {
        Self(self.0 & !(1 << slot))
    }

    /// How many slots.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

impl FromIterator<u32> for Share {
    fn from_iter<T: IntoIterator<Item = u32>>(slots: T) -> Self {
        slots.into_iter().fold(Self::NONE, Self::with)
    }
}
