//! The executor's port for recall, implemented by the read models' memory index.

use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::TenantId;
use convergio_domain::memory::{RecalledMemory, Subject};
use convergio_domain::platform_text;
use convergio_domain::time::Timestamp;
use convergio_executor::memory::MemorySearch;
use convergio_projections::{MemoryError, MemoryIndexes};

/// Recall of memories for an executor.
pub(crate) struct RecallAdapter(pub(crate) Arc<MemoryIndexes>);

#[async_trait]
impl MemorySearch for RecallAdapter {
    async fn recall_memories(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        question: &str,
        now: Timestamp,
        budget_tokens: u32,
    ) -> Result<Vec<RecalledMemory>, UnsealedFailure> {
        let recalled = self.0.recall_memories(tenant, subject, question, now, budget_tokens).await;
        recalled.map_err(|error| {
            let message = platform_text!("the memory cannot be read now");
            let failure = UnsealedFailure::new("log.unavailable", message);
            // Only a log that cannot be read may answer later; an error of the index would come
            // again.
            let retryable = matches!(error, MemoryError::Log(_));
            UnsealedFailure { retryable, ..failure }.with_cause(error)
        })
    }
}
