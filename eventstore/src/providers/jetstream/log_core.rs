//! State that all parts of an open log share, and the policy of retries.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::ack_marker::AckMarker;
use super::api::{ClusterApi, NoAnswerError};
use super::durability_proof::DurabilityProof;
use super::wire::SubjectNames;
use crate::error::LogError;
use crate::heads::HeadCache;
use crate::seal::MasterKey;

/// Time for which a call without side effects is retried before the log counts as unavailable.
pub(super) const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Shared state of an open log.
pub(super) struct LogCore {
    pub(super) api: ClusterApi,
    pub(super) names: SubjectNames,
    pub(super) keys: MasterKey,
    pub(super) heads: HeadCache,
    pub(super) ack_marker: AckMarker,
    /// Permits of commits in progress.
    pub(super) commit_permits: Semaphore,
    pub(super) closed: watch::Sender<bool>,
    /// Durability as last proven.
    pub(super) proof: watch::Sender<DurabilityProof>,
}

impl LogCore {
    /// Retries a call until it is answered, the log is closed, or [`RETRY_TIMEOUT`] has passed.
    pub(super) async fn retry_until_answered<T, F>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, LogError>
    where
        F: Future<Output = Result<T, NoAnswerError>>,
    {
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut waits = Backoff::default();
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(NoAnswerError(reason)) if Instant::now() >= deadline => {
                    return Err(LogError::Unavailable(reason));
                }
                Err(_) => self.sleep_unless_closed(waits.next_delay()).await?,
            }
        }
    }

    /// Sleeps; returns an error at once when the log is closed.
    pub(super) async fn sleep_unless_closed(&self, wait: Duration) -> Result<(), LogError> {
        let mut closed = self.closed.subscribe();
        match tokio::time::timeout(wait, closed.wait_for(|closed| *closed)).await {
            Ok(_) => Err(LogError::Closed),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn check_open(&self) -> Result<(), LogError> {
        if *self.closed.borrow() { Err(LogError::Closed) } else { Ok(()) }
    }
}

/// Exponential backoff with jitter, so that rivals do not collide again.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_WAIT)
    }
}

impl Backoff {
    pub(super) fn next_delay(&mut self) -> Duration {
        let mut random = [0_u8; 1];
        // Without randomness the delay is the same for all rivals, which costs retries only.
        let _filled = getrandom::fill(&mut random);
        let wait = self.0.mul_f64(0.5 + f64::from(random[0]) / 256.0);
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
        wait
    }
}
