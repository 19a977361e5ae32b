//! Child runs that go on after their end: in another attempt of their step they continue where they
//! failed, so that nothing that they paid for is paid again.

use std::sync::Arc;

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::{GraphVersion, RunId, StepId};
use convergio_domain::money::Money;
use convergio_domain::platform_text;
use convergio_domain::run::{
    Budget, Child, ChildReopening, FamilyCommand, Intent, Rejection, ReopenRun, Run, RunCommand,
    RunState, fatal_steps, loosened_node,
};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::{SPAN_LIMIT, Span, Timestamp};
use serde_json::Value;

use super::children::{Callee, NewChild, Wanted, report, told};
use super::effect::{DoneResult, Launch, Work, failure};
use super::plan::Plan;
use super::prepare::Prepared;
use super::{Actor, ActorError, Shared};
use crate::migration::obstacle;
use crate::outputs::OutputError;

impl Actor {
    /// Continues the child run of the step's last attempt: takes the output that it has by now, or
    /// reopens it. Returns `None` if a new child is needed, because the work differs or a person
    /// cancelled the old one.
    pub(super) async fn go_on_with_child(
        &mut self,
        plan: &mut Plan,
        callee: &Callee<'_>,
        wanted: &Wanted,
    ) -> Result<Option<Prepared>, OutputError> {
        let Some((run, known)) = self.last_child(&wanted.step) else { return Ok(None) };
        let Some(ended) = known.ended.clone() else { return Ok(None) };
        let is_other = known.graph != callee.graph
            || wanted.privacy.max(self.privacy()) > known.privacy
            || !self.has_same_inputs(&known, &wanted.inputs).await?;
        // Other inputs or a stricter privacy would mix two pieces of work in one run.
        if is_other {
            return Ok(None);
        }
        if ended.error.is_none() {
            return self.taken(ended.output).await.map(Some);
        }
        let stream = StreamKey::run(self.run.stream.tenant.clone(), run);
        let child = self.shared.repository.load::<Run>(&stream).await?.state;
        // A child that cannot be moved to the wanted version stays as it ended; a new one begins.
        if !ended.is_reopenable() || !self.fits_version(&child, callee).await? {
            return Ok(None);
        }
        let version = Some(callee.version.clone());
        let budget = self.budget_again(plan, callee, wanted, (run, &child));
        let budget = budget.map_err(OutputError::Failure)?;
        let intent = Intent::ReopenChild(ChildReopening { child: run, version, budget });
        let (step, attempt) = (wanted.step.clone(), wanted.attempt);
        let (timeout, work) = (std::time::Duration::MAX, Work::Child(run));
        let launches = vec![Launch { step, attempt, at: None, timeout, work }];
        Ok(Some(Prepared::Start { intent, launches }))
    }

    fn last_child(&self, step: &StepId) -> Option<(RunId, Child)> {
        let state = &self.run.state;
        let run = state.steps.get(step)?.child?;
        Some((run, state.children.get(&run)?.clone()))
    }

    async fn has_same_inputs(
        &mut self,
        known: &Child,
        inputs: &Value,
    ) -> Result<bool, OutputError> {
        match self.outputs.open(known.input).await {
            Ok(given) => Ok(*given == *inputs),
            // Erased inputs cannot be compared, and must not be used again.
            Err(OutputError::Failure(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn taken(
        &mut self,
        output: Option<convergio_domain::payload::PayloadRef>,
    ) -> Result<Prepared, OutputError> {
        let opened = match output {
            Some(reference) => Some((reference, self.outputs.open(reference).await?)),
            None => None,
        };
        Ok(Prepared::Instant(DoneResult::Opened(opened)))
    }

    /// Returns whether the child can go on with the graph version that the step names now.
    async fn fits_version(
        &self,
        child: &RunState,
        callee: &Callee<'_>,
    ) -> Result<bool, OutputError> {
        let Some((graph, version)) = &child.graph else { return Ok(false) };
        if *version == callee.version {
            return Ok(true);
        }
        let own = self.compiled(*graph, version).await?;
        Ok(loosened_node(&own.graph, callee.manifest).is_none()
            && obstacle(&own.graph, callee.manifest, child).is_none())
    }

    /// Computes the total budget of a reopened child: what a new child would get, plus what it has
    /// used.
    fn budget_again(
        &self,
        plan: &mut Plan,
        callee: &Callee<'_>,
        wanted: &Wanted,
        (run, child): (RunId, &RunState),
    ) -> Result<Budget, UnsealedFailure> {
        let (state, now) = (&self.run.state, self.shared.now());
        let left = state.share(plan.spent, wanted.shares, now);
        let more = left.within(callee.manifest.budget).within(wanted.budget);
        // Zero tokens would fail at the first call; better to say it here.
        if more.tokens == Some(0) {
            let message =
                platform_text!("nothing is left of budget.tokens for a run within: raise it");
            return Err(failure("budget.exceeded", message));
        }
        let deadline = left.within(wanted.budget).deadline;
        let (tokens, cost) = state.heard_use(run);
        plan.hold(more.tokens.unwrap_or(0), more.cost.unwrap_or_default());
        Ok(Budget {
            tokens: more.tokens.map(|more| more.saturating_add(tokens)),
            cost: more.cost.map(|more| Money::from_scaled(more.scaled() + cost.scaled())),
            wall: more.wall.map(|more| longer(more, child.active_time(now))),
            deadline: deadline.map(|left| longer(left, now.since(child.created))),
        })
    }
}

fn longer(span: Span, used: Span) -> Span {
    Span(span.0.saturating_add(used.0)).min(SPAN_LIMIT)
}

/// Brings an existing child run in line with its parent: reopens it after its end, and resumes it
/// after a pause.
pub(super) async fn align(
    shared: &Shared,
    parent: &StreamKey,
    new: &NewChild,
) -> Result<(), ActorError> {
    let stream = StreamKey::run(parent.tenant.clone(), new.run);
    let state = shared.repository.load::<Run>(&stream).await?.state;
    // An id of an imported run is taken; executing it would repeat its effects.
    if state.is_imported {
        let message = platform_text!("the run within would be {}, which was imported", new.run);
        return Err(ActorError::Failure(failure("run.imported", message)));
    }
    if state.reopenings < new.child.reopenings {
        return reopen(shared, parent, new, &state).await;
    }
    if state.pause.inherited {
        let family = shared.repository.load::<Run>(parent).await?;
        if !family.state.paused {
            let context = shared.context();
            let repository = &shared.repository;
            repository.steer_descendants(&family, &context, FamilyCommand::Resume).await?;
        }
    }
    Ok(())
}

/// Reopens a child run. One that cannot go on reports its end again.
async fn reopen(
    shared: &Shared,
    parent: &StreamKey,
    new: &NewChild,
    state: &RunState,
) -> Result<(), ActorError> {
    let child = &new.child;
    let own = state.graph.as_ref().map_or(&child.version, |(_, version)| version);
    let version = child.reopened_version.as_ref().unwrap_or(own).clone();
    let graph = graph_of(shared, parent, child, &version).await?;
    let stream = StreamKey::run(parent.tenant.clone(), new.run);
    let command = |state: &RunState, _| {
        let reopen = ReopenRun {
            reopenings: child.reopenings,
            steps: fatal_steps(state, &graph.graph),
            budget: child.budget,
            version: version.clone(),
        };
        (RunCommand::Reopen(reopen), Vec::new())
    };
    let reopened = shared.repository.execute::<Run>(&stream, &shared.context(), command).await;
    match reopened.map_err(ActorError::from) {
        Ok(_) => Ok(()),
        Err(ActorError::Rejected(Rejection::Ended(_))) => {
            let ended = shared.repository.load::<Run>(&stream).await?;
            let (mut end, output) = told(shared, &ended).await?;
            end.reopenings = child.reopenings;
            report(shared, parent, end, output).await
        }
        Err(error) => Err(error),
    }
}

async fn graph_of(
    shared: &Shared,
    parent: &StreamKey,
    child: &Child,
    version: &GraphVersion,
) -> Result<Arc<crate::graphs::CompiledGraph>, ActorError> {
    let (repository, tenant) = (&shared.repository, &parent.tenant);
    Ok(shared.graphs.get(repository, tenant, child.graph, version).await?)
}

/// Returns whether a check of a child run is due.
pub(super) fn is_look_due(state: &RunState, now: Timestamp) -> bool {
    state.next_look().is_some_and(|look| look <= now)
}
