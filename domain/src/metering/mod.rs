//! Metering: disjoint classes of usage, the identity of a usage line, and its price.

mod bound;
mod price;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{RunId, StepId, TenantId};
pub use bound::CallBound;
pub(crate) use price::snapshot_base;
pub use price::{
    BaseModel, Charge, OperatorPrices, Price, PriceBook, PriceError, PriceQuery, PriceTier,
    ServicePrice,
};

/// A class of usage. The classes are disjoint: their sum is what the provider bills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Input tokens read for the first time.
    InFresh,
    /// Input tokens served from the provider's prompt cache.
    InCacheRead,
    /// Input tokens written to a cache that lives 5 minutes.
    #[serde(rename = "in_cache_write_5m")]
    InCacheWrite5m,
    /// Input tokens written to a cache that lives an hour.
    #[serde(rename = "in_cache_write_1h")]
    InCacheWrite1h,
    /// Input tokens of audio.
    InAudio,
    /// Input tokens of images.
    InImage,
    /// Output tokens of text.
    OutText,
    /// Output tokens spent on reasoning.
    OutReasoning,
    /// Output tokens of audio.
    OutAudio,
    /// Milliseconds of audio, for models that are billed by time.
    AudioMs,
    /// Characters of text that is spoken, for models that are billed by them.
    Characters,
}

impl Meter {
    /// The name used in events, rows and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InFresh => "in_fresh",
            Self::InCacheRead => "in_cache_read",
            Self::InCacheWrite5m => "in_cache_write_5m",
            Self::InCacheWrite1h => "in_cache_write_1h",
            Self::InAudio => "in_audio",
            Self::InImage => "in_image",
            Self::OutText => "out_text",
            Self::OutReasoning => "out_reasoning",
            Self::OutAudio => "out_audio",
            Self::AudioMs => "audio_ms",
            Self::Characters => "characters",
        }
    }

    /// Whether these are tokens that went to the model.
    pub fn is_input(self) -> bool {
        !self.is_output() && !matches!(self, Self::AudioMs | Self::Characters)
    }

    /// Whether these are tokens that came from the model.
    pub fn is_output(self) -> bool {
        matches!(self, Self::OutText | Self::OutReasoning | Self::OutAudio)
    }
}

/// Quantities by meter; a missing meter is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usage(pub BTreeMap<Meter, u64>);

impl Usage {
    /// Tokens that went to the model.
    pub fn tokens_in(&self) -> u64 {
        self.0.iter().filter(|(meter, _)| meter.is_input()).map(|(_, n)| n).sum()
    }

    /// Tokens that came from the model.
    pub fn tokens_out(&self) -> u64 {
        self.0.iter().filter(|(meter, _)| meter.is_output()).map(|(_, n)| n).sum()
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens_in().saturating_add(self.tokens_out())
    }
}

/// Identity of one usage line, unique for ever:
/// SHA-256(`usage/v1` ‖ tenant ‖ run ‖ step ‖ attempt ‖ meter), parts separated by a zero byte. The
/// attempt of a model call in an agent's turn is written `ATTEMPT.TURN`.
pub fn usage_id(
    tenant: &TenantId,
    run: RunId,
    step: &StepId,
    (attempt, turn): (u32, u32),
    meter: Meter,
) -> String {
    let attempt = if turn == 0 { attempt.to_string() } else { format!("{attempt}.{turn}") };
    let mut hash = Sha256::new();
    let parts = [
        "usage/v1",
        tenant.as_str(),
        &run.to_string(),
        &step.to_string(),
        &attempt,
        meter.as_str(),
    ];
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
