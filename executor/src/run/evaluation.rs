//! The wait for an evaluation outside of the actor, between an abandoned plan and the next one.

use std::time::Duration;

use convergio_evaluation::{EvaluationError, EvaluationJob};
use tokio::sync::Notify;

use super::actor::RunActor;
use crate::error::ActorError;
use crate::step::with_fingerprint;

/// Delay before an evaluation that was refused as busy is tried again.
const BUSY_RETRY_DELAY: Duration = Duration::from_secs(1);

impl RunActor {
    /// Waits for an evaluation, and handles everything else that happens to the run meanwhile. The
    /// end or a pause of the run stops the wait.
    pub(super) async fn wait_for_evaluation(
        &mut self,
        job: EvaluationJob,
        signal: &Notify,
    ) -> Result<(), ActorError> {
        // The abandoned plan had taken steps from the ready ones.
        self.rebuild_derived()?;
        self.caches.evaluations.unmark_used();
        let (job, print) = with_fingerprint(job).await?;
        let evaluator = self.shared.config.evaluator.clone();
        let (tenant, abandon_token) =
            (self.run.stream.tenant.clone(), self.shared.abandon_token.clone());
        let evaluation = async {
            loop {
                match evaluator.evaluate_isolated(&tenant, &job).await {
                    // The evaluator has no capacity for this tenant now.
                    Err(EvaluationError::Busy(reason)) => {
                        tracing::warn!(reason, "a run waits for an evaluation");
                        tokio::time::sleep(BUSY_RETRY_DELAY).await;
                    }
                    answer => return answer,
                }
            }
        };
        tokio::pin!(evaluation);
        loop {
            tokio::select! {
                answer = &mut evaluation => {
                    self.caches.evaluations.add_answer(print, answer);
                    return Ok(());
                }
                Some(done) = self.inbox.effects.join_next() => self.handle_finished_effect(done),
                () = signal.notified() => {
                    if self.shared.repository.refresh(&mut self.run).await? {
                        self.sync_with_state().await?;
                        self.ensure_due_children().await?;
                    }
                    if self.run.state.phase.is_ended() || self.run.state.paused {
                        return Ok(());
                    }
                }
                () = abandon_token.cancelled() => return Err(ActorError::Stopping),
            }
        }
    }
}
