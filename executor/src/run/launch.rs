//! Effects of a run: launched once their intents are durable, abandoned when the run has ended.

use std::sync::Arc;

use convergio_domain::run::StepStatus;
use convergio_domain::stream::Seq;

use super::actor::RunActor;
use super::inbox::InFlightEffect;
use crate::effect::run_effect;
use crate::error::ActorError;
use crate::plan::{EffectLaunch, EffectWork, NewChild};

impl RunActor {
    /// Launches the effects whose intents are durable now.
    pub(super) fn launch_effects(&mut self, launches: Vec<EffectLaunch>, first_seq: Seq) {
        debug_assert!(self.run.state.seq >= first_seq || launches.is_empty());
        // If the budget ran out, the commit ended the run in place of the turn.
        if self.run.state.phase.is_ended() {
            return;
        }
        for launch in launches {
            let Some(step) = self.run.state.steps.get(&launch.step) else { continue };
            // If the budget ran out, the commit has no start event for the step.
            let StepStatus::Started { at, .. } = step.status else { continue };
            // The token is a child of the executor's, so the end of the grace cancels all effects.
            let cancel = self.shared.abandon_token.child_token();
            let is_agent = step.call.is_some() || step.turns.is_some();
            let in_flight_effect = InFlightEffect { is_agent, cancel: cancel.clone() };
            self.inbox.in_flight.insert((launch.step.clone(), launch.tool_call), in_flight_effect);
            let (shared, stream) = (Arc::clone(&self.shared), self.run.stream.clone());
            let child = match &launch.work {
                EffectWork::Child(run) => NewChild::from_parent(&self.run, *run).map(Box::new),
                _ => None,
            };
            self.inbox.effects.spawn(run_effect(shared, stream, launch, child, at, cancel));
        }
    }

    /// Stops everything in flight of a run that has ended, and records the costs.
    pub(super) async fn settle_costs(&mut self) -> Result<(), ActorError> {
        self.abandon_effects().await;
        self.collect_results();
        self.inbox.results.retain(|done| done.call_report.is_some());
        while !self.inbox.results.is_empty() {
            let plan = self.build_settlement_plan();
            match Box::pin(self.commit_plan(plan, None)).await {
                Ok(()) => {}
                // Nothing was in flight, so there is nothing to settle.
                Err(ActorError::Rejected(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Cancels all effects and collects their results.
    pub(super) async fn abandon_effects(&mut self) {
        for flight in self.inbox.in_flight.values() {
            flight.cancel.cancel();
        }
        while let Some(landed) = self.inbox.effects.join_next().await {
            self.handle_finished_effect(landed);
        }
    }
}
