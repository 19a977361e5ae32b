//! Control of active runs: pause, resume, cancel, retry, signals, decisions about steps, and marks.

use convergio_domain::decider::Fingerprint;
use convergio_domain::id::{GraphId, RunId, SignalName, StepId};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::platform_text;
use convergio_domain::policy::reopening::fatal_steps;
use convergio_domain::request::derive_uuid;
use convergio_domain::run::{
    CommandReason, Resolution, ResolveStep, Run, RunCommand, RunRejection, SendSignal,
};
use convergio_domain::stream::Seq;
use convergio_eventstore::{CommitError, LoadedStream, LogError, Payload};
use serde_json::Value;
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::payload::{REASON_CHARACTERS_LIMIT, seal_reason, value_payload};
use crate::use_cases::UseCases;

/// Maximum characters of a mark's label; further ones are cut.
const LABEL_CHARACTERS_LIMIT: usize = 100;

/// Decision about a step that waits for one.
#[derive(Debug, Clone)]
pub struct NewResolution {
    /// Step of unknown outcome, or one that failed and asks.
    pub step: StepId,
    /// Decision of the person.
    pub resolution: Resolution,
    /// Output that the step is to have.
    pub output: Option<Value>,
    /// Reason in the person's words.
    pub reason: Option<String>,
}

/// A marked point of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunMark {
    /// Event that is the mark.
    pub seq: Seq,
    /// Fingerprint of the state after it.
    pub fingerprint: Fingerprint,
}

impl UseCases<'_> {
    /// Pauses a run and all runs within it: no further step starts. Twice changes nothing.
    ///
    /// # Errors
    /// There is no such run, it has ended, or the log does not take the commit.
    pub async fn pause_run(
        self,
        caller: &Caller,
        run: RunId,
        reason: Option<String>,
    ) -> Result<(), CommitError<RunRejection>> {
        let (reason, payloads) = seal_reason(reason, REASON_CHARACTERS_LIMIT, 0);
        self.steer_family(caller, run, RunCommand::Pause { reason }, payloads).await
    }

    /// Lets a paused run go on, with all runs within it that are paused with it.
    ///
    /// # Errors
    /// As those of [`UseCases::pause_run`].
    pub async fn resume_run(
        self,
        caller: &Caller,
        run: RunId,
    ) -> Result<(), CommitError<RunRejection>> {
        self.steer_family(caller, run, RunCommand::Resume, Vec::new()).await
    }

    /// Cancels a run with all runs within it. Twice changes nothing.
    ///
    /// # Errors
    /// There is no such run, it has ended otherwise, or the log does not take the commit.
    pub async fn cancel_run(
        self,
        caller: &Caller,
        run: RunId,
        reason: Option<String>,
    ) -> Result<(), CommitError<RunRejection>> {
        let (reason, payloads) = seal_reason(reason, REASON_CHARACTERS_LIMIT, 0);
        self.steer_family(caller, run, RunCommand::Cancel { reason }, payloads).await
    }

    /// Cancels a run because its caller has gone; the text is the platform's.
    ///
    /// # Errors
    /// The run has ended, or the log does not take the commit.
    pub async fn abandon_run(
        self,
        caller: &Caller,
        run: RunId,
    ) -> Result<(), CommitError<RunRejection>> {
        let reason = Some(CommandReason::Platform(platform_text!("the caller has gone")));
        let command = |_: &_, _| (RunCommand::Cancel { reason: reason.clone() }, Vec::new());
        let (stream, context) = (caller.run_stream(run), self.decision_context(caller));
        self.repository.execute::<Run>(&stream, &context, command).await?;
        Ok(())
    }

    async fn steer_family(
        self,
        caller: &Caller,
        run: RunId,
        command: RunCommand,
        payloads: Vec<Payload>,
    ) -> Result<(), CommitError<RunRejection>> {
        let (stream, context) = (caller.run_stream(run), self.decision_context(caller));
        let command = RequestedCommand { request: caller.request_id(), command };
        self.repository.steer_family_once(&stream, &context, command, payloads).await?;
        Ok(())
    }

    /// Executes a command once for each request.
    async fn execute_once(
        self,
        caller: &Caller,
        run: RunId,
        command: RunCommand,
        payloads: Vec<Payload>,
    ) -> Result<LoadedStream<IdempotentNoun<Run>>, CommitError<RunRejection>> {
        let (stream, context) = (caller.run_stream(run), self.decision_context(caller));
        let command = RequestedCommand { request: caller.request_id(), command };
        let command = |_: &_, _| (command.clone(), payloads.clone());
        self.repository.execute::<IdempotentNoun<Run>>(&stream, &context, command).await
    }

    /// Lets a failed run go on: all steps that ended it get another series of tries. `step` must be
    /// one of them, if it is given.
    ///
    /// # Errors
    /// There is no such run, it or the step has not failed, or the log does not take the commit.
    pub async fn retry_run(
        self,
        caller: &Caller,
        run: RunId,
        step: Option<&str>,
    ) -> Result<(), UseCaseError> {
        let state = self.repository.load::<Run>(&caller.run_stream(run)).await?.state;
        let Some((graph, version)) = &state.graph else {
            return Err(UseCaseError::NotFound("run"));
        };
        // A repetition must not retry again if the run has failed once more since.
        let is_repeated = |request| state.requests.seq_of(request).is_some();
        if caller.request_id().is_some_and(is_repeated) {
            return Ok(());
        }
        let (_, graph) = self.load_manifest(&caller.tenant, *graph, Some(version.as_str())).await?;
        let steps = fatal_steps(&state, &graph);
        if let Some(step) = step.filter(|_| !steps.is_empty()) {
            let names: Vec<String> = steps.iter().map(ToString::to_string).collect();
            if !names.iter().any(|name| name == step) {
                let detail = format!("`{step}` did not end the run: {} did", names.join(", "));
                return Err(UseCaseError::Conflict(detail));
            }
        }
        self.execute_once(caller, run, RunCommand::Retry { steps }, Vec::new()).await?;
        Ok(())
    }

    /// Tells a run of an outside event. Under a key it counts once.
    ///
    /// # Errors
    /// The payload is too large, nothing in the run waits for the signal, or the log does not take
    /// the commit.
    pub async fn signal_run(
        self,
        caller: &Caller,
        run: RunId,
        name: SignalName,
        payload: &Value,
    ) -> Result<(), UseCaseError> {
        let payload = value_payload(payload, PayloadPurpose::Signal)?;
        let id = match &caller.key {
            Some(key) => {
                let run = run.to_string();
                derive_uuid(&["signal/v1", caller.tenant.as_str(), &run, key.as_str()])
            }
            None => Uuid::now_v7(),
        };
        // The run remembers each signal by this id, so the command needs no request id.
        let signal = SendSignal { id, name, payload: PayloadSlot(0) };
        self.check_signal(caller, run, &signal).await?;
        let command = |_: &_, _| (RunCommand::Signal(signal.clone()), vec![payload.clone()]);
        let (stream, context) = (caller.run_stream(run), self.decision_context(caller));
        Ok(self.repository.submit_command::<Run>(&stream, &context, command).await?)
    }

    /// Decides what becomes of a step that waits for a decision.
    ///
    /// # Errors
    /// The output is too large, the step does not wait, or the log does not take the commit.
    pub async fn resolve_step(
        self,
        caller: &Caller,
        run: RunId,
        resolution: NewResolution,
    ) -> Result<(), UseCaseError> {
        let NewResolution { step, resolution, output, reason } = resolution;
        let output = output
            .as_ref()
            .map(|output| value_payload(output, PayloadPurpose::Output))
            .transpose()?;
        // The reason's payload follows the output's, if there is one.
        let (reason, reason_payloads) =
            seal_reason(reason, REASON_CHARACTERS_LIMIT, u16::from(output.is_some()));
        let slot = output.as_ref().map(|_| PayloadSlot(0));
        let command = ResolveStep { step, resolution, output: slot, reason };
        let payloads = output.into_iter().chain(reason_payloads).collect();
        self.execute_once(caller, run, RunCommand::Resolve(command), payloads).await?;
        Ok(())
    }

    /// Returns whether a run exists.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn has_run(self, caller: &Caller, run: RunId) -> Result<bool, LogError> {
        let head = self.repository.event_log().stream_head(&caller.run_stream(run)).await?;
        Ok(head.is_some())
    }

    /// Returns the graph of a run; `None` if there is no such run.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn graph_of_run(
        self,
        caller: &Caller,
        run: RunId,
    ) -> Result<Option<GraphId>, LogError> {
        let state = self.repository.load::<Run>(&caller.run_stream(run)).await?.state;
        Ok(state.graph.map(|(graph, _)| graph))
    }

    /// Marks this point of a run, and stores a checkpoint, so that loading the state there folds no
    /// history.
    ///
    /// # Errors
    /// The run does not take the mark, or the log does not take the commit.
    pub async fn mark_run(
        self,
        caller: &Caller,
        run: RunId,
        label: Option<String>,
    ) -> Result<RunMark, UseCaseError> {
        let (label, payloads) = seal_reason(label, LABEL_CHARACTERS_LIMIT, 0);
        let command = RunCommand::Mark { label };
        let mut loaded = self.execute_once(caller, run, command, payloads).await?;
        self.repository.write_checkpoint(&mut loaded);
        let mut state = loaded.state;
        // The mark follows the request's own event; the run may have continued since.
        let request_seq = caller.request_id().and_then(|id| state.requests.seq_of(id));
        let mark_seq = request_seq.map(|seq| seq.offset_by(1));
        if let Some(seq) = mark_seq.filter(|seq| *seq < state.seq) {
            let loaded = self.repository.load_at::<Run>(&loaded.stream, seq, false).await?;
            state = loaded.ok_or(UseCaseError::NotFound("event of this run"))?.state;
        }
        Ok(RunMark { seq: state.seq, fingerprint: state.refresh_fingerprint() })
    }
}
