//! Commands to streams with several writers. A command waits for its turn in the stream's queue, is
//! decided on the state at that moment, and is decided again if another process appended first.

use std::time::Duration;

use convergio_domain::decider::{Decider, DecisionContext};
use convergio_domain::stream::{Seq, StreamKey};
use tokio::time::Instant;

use crate::commit::Payload;
use crate::error::LogError;
use crate::record::StreamHead;
use crate::repository::{CommitError, LoadedStream, Repository};
use crate::write_queue::WriteTurn;

/// First and longest delay between two reads of a head that is known to be stale.
const HEAD_POLL_DELAYS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

impl Repository {
    /// Executes a command on the stream's latest state, after all writers of this process that came
    /// before. If another process appends first, the command is decided again on the new state.
    ///
    /// # Errors
    /// See [`CommitError`]; `Conflict` if the turn did not come within the write timeout.
    pub async fn execute<D: Decider>(
        &self,
        stream: &StreamKey,
        context: &DecisionContext,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<LoadedStream<D>, CommitError<D::Rejection>> {
        let (mut turn, deadline) = self.take_turn_in_time::<D>(stream).await?;
        let loaded = self.load_in_turn::<D>(&mut turn).await?;
        self.execute_in_turn(turn, loaded, context, command, deadline).await
    }

    /// Executes a command like [`Repository::execute`] on a stream that the caller has loaded: what
    /// is folded already is not read again.
    ///
    /// # Errors
    /// As those of [`Repository::execute`].
    pub async fn execute_on<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        context: &DecisionContext,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<(), CommitError<D::Rejection>> {
        let (_turn, deadline) = self.take_turn_in_time::<D>(&loaded.stream).await?;
        if self.is_behind(loaded) {
            self.refresh(loaded).await?;
        }
        self.decide_until(loaded, context, command, deadline).await
    }

    /// Executes a command that starts a stream with the history of another one. `origin` is that
    /// stream as it was at the inherited event, so that it need not be read again.
    ///
    /// # Errors
    /// As those of [`Repository::execute`].
    pub async fn execute_from<D: Decider>(
        &self,
        origin: LoadedStream<D>,
        stream: &StreamKey,
        context: &DecisionContext,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<LoadedStream<D>, CommitError<D::Rejection>> {
        let (mut turn, deadline) = self.take_turn_in_time::<D>(stream).await?;
        let mut loaded = self.load_in_turn::<D>(&mut turn).await?;
        loaded.origin = loaded.head.is_none().then(|| Box::new(origin));
        self.execute_in_turn(turn, loaded, context, command, deadline).await
    }

    /// Executes a command like [`Repository::execute`] for a caller that does not need the new
    /// state. With many writers the state moves from one to the next without being copied.
    ///
    /// # Errors
    /// As those of [`Repository::execute`].
    pub async fn submit_command<D: Decider>(
        &self,
        stream: &StreamKey,
        context: &DecisionContext,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<(), CommitError<D::Rejection>> {
        let (mut turn, deadline) = self.take_turn_in_time::<D>(stream).await?;
        let mut loaded = self.load_in_turn::<D>(&mut turn).await?;
        let done = self.decide_until(&mut loaded, context, command, deadline).await;
        if is_state_current(&done) && turn.has_waiters() {
            // Only for a waiter: a state that nobody takes over would just hold memory.
            turn.leave_state(loaded);
        }
        done
    }

    async fn take_turn_in_time<D: Decider>(
        &self,
        stream: &StreamKey,
    ) -> Result<(WriteTurn, Instant), CommitError<D::Rejection>> {
        let deadline = Instant::now() + self.write_timeout;
        Ok((self.take_turn_until::<D>(stream, deadline).await?, deadline))
    }

    async fn take_turn_until<D: Decider>(
        &self,
        stream: &StreamKey,
        deadline: Instant,
    ) -> Result<WriteTurn, CommitError<D::Rejection>> {
        let turn = tokio::time::timeout_at(deadline, self.take_turn(stream)).await;
        turn.map_err(|_| CommitError::Conflict)
    }

    /// Loads the stream's latest state, starting from the state that the previous writer left in
    /// the queue.
    async fn load_in_turn<D: Decider>(
        &self,
        turn: &mut WriteTurn,
    ) -> Result<LoadedStream<D>, LogError> {
        let Some(mut loaded) = turn.take_state::<D>() else {
            return self.load(turn.stream()).await;
        };
        self.refresh(&mut loaded).await?;
        Ok(loaded)
    }

    /// Decides while this process's other writers wait. A stream without records has no writer that
    /// must wait: a subscriber of its pending first record appends while that record is being
    /// written. Of several writers that start a stream at once one succeeds, and the others take
    /// their turn again.
    async fn execute_in_turn<D: Decider>(
        &self,
        mut turn: WriteTurn,
        mut loaded: LoadedStream<D>,
        context: &DecisionContext,
        mut command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
        deadline: Instant,
    ) -> Result<LoadedStream<D>, CommitError<D::Rejection>> {
        if loaded.head.is_none() {
            // The subscriber of the pending record needs the turn while this commit is being
            // written; otherwise the two commits cannot share a sync.
            drop(turn);
            match self.decide_once(&mut loaded, context, &mut command).await {
                Err(CommitError::Conflict) => {}
                done => return done.map(|()| loaded),
            }
            turn = self.take_turn_until::<D>(&loaded.stream, deadline).await?;
            self.refresh(&mut loaded).await?;
        }
        let done = self.decide_until(&mut loaded, context, command, deadline).await;
        if is_state_current(&done) && turn.has_waiters() {
            turn.leave_state(loaded.clone());
        }
        done.map(|()| loaded)
    }

    async fn decide_once<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        context: &DecisionContext,
        command: &mut impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<(), CommitError<D::Rejection>> {
        let next = loaded.head.map_or(Seq(0), |head| head.seq).offset_by(1);
        let (command, payloads) = command(&loaded.state, next);
        self.decide_and_append(loaded, command, payloads, context, false).await.map(drop)
    }

    /// Decides and appends, and repeats that while other processes append first.
    async fn decide_until<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        context: &DecisionContext,
        mut command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
        deadline: Instant,
    ) -> Result<(), CommitError<D::Rejection>> {
        loop {
            let before = loaded.head;
            match self.decide_once(loaded, context, &mut command).await {
                Err(CommitError::Conflict) if Instant::now() < deadline => {
                    self.wait_for_move(loaded, before, deadline).await?;
                }
                done => return done,
            }
        }
    }

    /// Waits until the stream's head has moved on from one that the log called stale. A replica
    /// that answers the read may not have applied the rival's commit yet.
    async fn wait_for_move<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        before: Option<StreamHead>,
        deadline: Instant,
    ) -> Result<(), LogError> {
        let [mut wait, longest] = HEAD_POLL_DELAYS;
        while loaded.head == before && Instant::now() < deadline {
            tokio::time::sleep(wait).await;
            wait = longest.min(wait * 2);
            self.refresh(loaded).await?;
        }
        Ok(())
    }
}

/// Returns whether the state still equals the log's after a command: only a failed read leaves it
/// undefined.
fn is_state_current<R: std::error::Error>(done: &Result<(), CommitError<R>>) -> bool {
    !matches!(done, Err(CommitError::Log(_)))
}
