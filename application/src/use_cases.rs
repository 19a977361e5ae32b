//! The two handles that use cases are functions of.

use convergio_domain::decider::DecisionContext;
use convergio_domain::time::Timestamp;
use convergio_evaluation::Evaluator;
use convergio_eventstore::Repository;

use crate::caller::Caller;
use crate::ports::Replayer;

/// Use cases that need nothing but the log.
#[derive(Clone, Copy)]
pub struct UseCases<'a> {
    pub(crate) repository: &'a Repository,
    /// Time of commands; the clock's if `None`.
    time: Option<Timestamp>,
}

impl<'a> UseCases<'a> {
    /// Returns the use cases of a log.
    pub fn new(repository: &'a Repository) -> Self {
        Self { repository, time: None }
    }

    /// Gives commands the time of what they are part of, in place of the clock's.
    #[must_use]
    pub fn with_time(self, time: Timestamp) -> Self {
        Self { time: Some(time), ..self }
    }

    /// Builds the context (time and actor) in which a caller's command is decided.
    pub(crate) fn decision_context(self, caller: &Caller) -> DecisionContext {
        let now = self.time.unwrap_or_else(|| self.repository.clock().now());
        DecisionContext { now, actor: caller.actor.clone() }
    }
}

/// Use cases that work with a graph's manifest: they evaluate what strangers wrote under limits of
/// time and memory, and replay runs.
#[derive(Clone, Copy)]
pub struct GraphUseCases<'a> {
    pub(crate) log: UseCases<'a>,
    pub(crate) evaluator: &'a Evaluator,
    pub(crate) replayer: &'a dyn Replayer,
}

impl<'a> GraphUseCases<'a> {
    /// Returns the use cases of a log, with what they evaluate and replay by.
    pub fn new(
        repository: &'a Repository,
        evaluator: &'a Evaluator,
        replayer: &'a dyn Replayer,
    ) -> Self {
        Self { log: UseCases::new(repository), evaluator, replayer }
    }
}
