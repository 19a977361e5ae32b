//! Requests under a key: carried out once, whatever happens to the run in between.

use convergio_domain::decider::{Decider, DecisionContext, RecordedEvent};
use convergio_domain::event::Event;
use convergio_domain::idempotency::{IdempotentNoun, REQUESTS_LIMIT, RequestedCommand};
use convergio_domain::run::{Budget, Run, RunCommand, RunRejection};
use uuid::Uuid;

use crate::history::History;

const PAUSE: RunCommand = RunCommand::Pause { reason: None };

impl History {
    /// What a request under a key leads to.
    fn ask(
        &mut self,
        request: u128,
        command: RunCommand,
    ) -> Result<Vec<&'static str>, RunRejection> {
        let context = DecisionContext { now: self.now, actor: "tester".parse().expect("a name") };
        let request = Some(Uuid::from_u128(request));
        let command = RequestedCommand { request, command };
        let next = self.state.seq.offset_by(1);
        let events = IdempotentNoun::<Run>::decide(&self.state, command, &context, next)?;
        for event in &events {
            let seq = self.state.seq.offset_by(1);
            IdempotentNoun::<Run>::evolve(
                &mut self.state,
                RecordedEvent { seq, time: self.now, event },
            );
        }
        Ok(events.iter().map(Event::type_name).collect())
    }
}

#[test]
fn a_request_is_carried_out_once_whatever_the_run_does_meanwhile() {
    let mut run = History::created(Budget::default());
    assert_eq!(run.ask(1, PAUSE), Ok(vec!["request.applied.v1", "run.paused.v1"]));
    assert_eq!(run.ask(2, RunCommand::Resume).map(|events| events.len()), Ok(2));
    assert_eq!(run.ask(1, PAUSE), Ok(Vec::new()), "it was paused by this request before");
    assert!(!run.state.paused);
    assert_eq!(run.ask(3, RunCommand::Cancel { reason: None }).map(|events| events.len()), Ok(2));
    assert_eq!(run.ask(2, RunCommand::Resume), Ok(Vec::new()), "not even refused");
    assert!(run.ask(4, RunCommand::Resume).is_err());
}

#[test]
fn what_is_refused_or_changes_nothing_is_not_remembered() {
    let mut run = History::created(Budget::default());
    assert_eq!(run.ask(1, RunCommand::Resume), Ok(Vec::new()), "it runs");
    assert!(run.state.requests.is_empty());
    assert!(run.ask(1, RunCommand::Retry { steps: Vec::new() }).is_err());
    assert!(run.state.requests.is_empty());
}

#[test]
fn the_last_requests_are_remembered_printed_and_kept() {
    let mut run = History::created(Budget::default());
    let mark = || RunCommand::Mark { label: None };
    let before = run.state.refresh_fingerprint();
    for request in 0..=REQUESTS_LIMIT as u128 {
        assert_eq!(run.ask(request, mark()).map(|events| events.len()), Ok(2));
    }
    assert_ne!(run.state.refresh_fingerprint(), before);
    assert_eq!(run.ask(0, mark()).map(|events| events.len()), Ok(2), "the oldest is forgotten");
    assert_eq!(run.ask(2, mark()), Ok(Vec::new()));
    let mut read =
        Run::decode_snapshot(&Run::encode_snapshot(&run.state).expect("written")).expect("read");
    assert_eq!(read.refresh_fingerprint(), run.state.refresh_fingerprint());
    assert_eq!(read.requests, run.state.requests);
}
