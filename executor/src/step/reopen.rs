//! Child runs that go on after their end: in another attempt of their step they continue where they
//! failed, so that nothing that they paid for is paid again.

use std::time::Duration;

use convergio_domain::billing::{allot_child_budget, extend_budget};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::{RunId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{
    Budget, ChildReopening, Run, RunChild, RunState, StepIntent, find_loosened_node,
};
use convergio_domain::stream::StreamKey;
use serde_json::Value;

use super::planner::Planner;
use super::sub_run::{ChildGraph, ChildSpec};
use crate::migration::find_migration_obstacle;
use crate::outputs::OutputError;
use crate::plan::{CommitPlan, EffectLaunch, EffectOutcome, EffectWork, PreparedStep};

impl Planner<'_> {
    /// Continues the child run of the step's last attempt: takes the output that it has by now, or
    /// reopens it. Returns `None` if a new child is needed, because the work differs or a person
    /// cancelled the old one.
    pub(super) async fn continue_last_child(
        &mut self,
        plan: &mut CommitPlan,
        child_graph: &ChildGraph<'_>,
        child_spec: &ChildSpec,
    ) -> Result<Option<PreparedStep>, OutputError> {
        let Some((run, last_child)) = self.last_child(&child_spec.step) else { return Ok(None) };
        let Some(ended) = last_child.ended.clone() else { return Ok(None) };
        let is_other = last_child.graph != child_graph.graph
            || child_spec.privacy.max(self.effective_privacy()) > last_child.privacy
            || !self.has_equal_inputs(&last_child, &child_spec.inputs).await?;
        // Other inputs or a stricter privacy would mix two pieces of work in one run.
        if is_other {
            return Ok(None);
        }
        if ended.error.is_none() {
            return self.take_child_output(ended.output).await.map(Some);
        }
        let stream = StreamKey::for_run(self.run.stream.tenant.clone(), run);
        let child = self.shared.repository.load::<Run>(&stream).await?.state;
        // A child that cannot be moved to the wanted version stays as it ended; a new one begins.
        if !ended.is_reopenable() || !self.fits_version(&child, child_graph).await? {
            return Ok(None);
        }
        let version = Some(child_graph.version.clone());
        let budget = self.reopened_budget(plan, child_graph, child_spec, (run, &child));
        let budget = budget.map_err(OutputError::Failure)?;
        let intent = StepIntent::ReopenChild(ChildReopening { child: run, version, budget });
        let (step, attempt) = (child_spec.step.clone(), child_spec.attempt);
        let (timeout, work) = (Duration::MAX, EffectWork::Child(run));
        let launches = vec![EffectLaunch { step, attempt, tool_call: None, timeout, work }];
        Ok(Some(PreparedStep::Start { intent, launches }))
    }

    fn last_child(&self, step: &StepId) -> Option<(RunId, RunChild)> {
        let state = &self.run.state;
        let run = state.steps.get(step)?.child?;
        Some((run, state.children.get(&run)?.clone()))
    }

    async fn has_equal_inputs(
        &mut self,
        last_child: &RunChild,
        inputs: &Value,
    ) -> Result<bool, OutputError> {
        match self.caches.outputs.load_own_value(last_child.input).await {
            Ok(given) => Ok(*given == *inputs),
            // Erased inputs cannot be compared, and must not be used again.
            Err(OutputError::Failure(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn take_child_output(
        &mut self,
        output: Option<PayloadRef>,
    ) -> Result<PreparedStep, OutputError> {
        let loaded = match output {
            Some(reference) => {
                Some((reference, self.caches.outputs.load_own_value(reference).await?))
            }
            None => None,
        };
        Ok(PreparedStep::Instant(EffectOutcome::ChildOutputLoaded(loaded)))
    }

    /// Returns whether the child can go on with the graph version that the step names now.
    async fn fits_version(
        &self,
        child: &RunState,
        child_graph: &ChildGraph<'_>,
    ) -> Result<bool, OutputError> {
        let Some((graph, version)) = &child.graph else { return Ok(false) };
        if *version == child_graph.version {
            return Ok(true);
        }
        let own_graph = self.compiled_graph(*graph, version).await?;
        Ok(find_loosened_node(&own_graph.graph, child_graph.manifest).is_none()
            && find_migration_obstacle(&own_graph.graph, child_graph.manifest, child).is_none())
    }

    /// Computes the total budget of a reopened child: what a new child would get, plus what it has
    /// used.
    fn reopened_budget(
        &self,
        plan: &mut CommitPlan,
        child_graph: &ChildGraph<'_>,
        child_spec: &ChildSpec,
        (run, child): (RunId, &RunState),
    ) -> Result<Budget, UnsealedFailure> {
        let (state, now) = (&self.run.state, self.shared.current_time());
        let budget_left = state.child_budget(plan.budget_usage, child_spec.budget_shares, now);
        let added_budget =
            allot_child_budget(budget_left, child_graph.manifest.budget, child_spec.budget)?;
        let deadline = budget_left.narrowed_by(child_spec.budget).deadline;
        plan.hold_budget(added_budget.tokens.unwrap_or(0), added_budget.cost.unwrap_or_default());
        Ok(extend_budget(
            Budget { deadline, ..added_budget },
            state.reported_child_usage(run),
            child.active_time(now),
            now.span_since(child.created),
        ))
    }
}
