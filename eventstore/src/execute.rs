//! Commands to streams that others write to as well: each waits for its turn, is decided on what is
//! there then, and is decided again when another process was faster.

use std::time::Duration;

use convergio_domain::decider::{Context, Decider};
use convergio_domain::stream::{Seq, StreamKey};
use tokio::time::Instant;

use crate::commit::Payload;
use crate::error::LogError;
use crate::record::Head;
use crate::repository::{CommitError, Loaded, Repository};
use crate::write_queue::WriteTurn;

/// First and longest wait before a head is looked at again that is not yet seen to have moved.
const HEAD_WAITS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

impl Repository {
    /// Decides on the stream's last state and appends, after all who came before. What others
    /// append meanwhile is waited for, and then it is decided again.
    ///
    /// # Errors
    /// See [`CommitError`]; `Conflict` when the turn did not come in time.
    pub async fn execute<D: Decider>(
        &self,
        stream: &StreamKey,
        context: &Context,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<Loaded<D>, CommitError<D::Rejection>> {
        let (mut turn, until) = self.take_turn_in_time::<D>(stream).await?;
        let loaded = self.load_in_turn::<D>(&mut turn).await?;
        self.execute_in_turn(turn, loaded, context, command, until).await
    }

    /// The same for who has the stream at hand: what was folded is not read again.
    ///
    /// # Errors
    /// As those of [`Repository::execute`].
    pub async fn execute_on<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        context: &Context,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<(), CommitError<D::Rejection>> {
        let (_turn, until) = self.take_turn_in_time::<D>(&loaded.stream).await?;
        if self.is_behind(loaded) {
            self.refresh(loaded).await?;
        }
        self.decide_until(loaded, context, command, until).await
    }

    /// The same for a command that begins a stream with the history of another one, which is at
    /// hand as it was at that event and is not read again.
    ///
    /// # Errors
    /// As those of [`Repository::execute`].
    pub async fn execute_from<D: Decider>(
        &self,
        origin: Loaded<D>,
        stream: &StreamKey,
        context: &Context,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<Loaded<D>, CommitError<D::Rejection>> {
        let (mut turn, until) = self.take_turn_in_time::<D>(stream).await?;
        let mut loaded = self.load_in_turn::<D>(&mut turn).await?;
        loaded.origin = loaded.head.is_none().then(|| Box::new(origin));
        self.execute_in_turn(turn, loaded, context, command, until).await
    }

    /// The same as [`Repository::execute`] for who does not need the state that follows: with many
    /// writers it goes from one to the next without being copied.
    ///
    /// # Errors
    /// As those of [`Repository::execute`].
    pub async fn submit<D: Decider>(
        &self,
        stream: &StreamKey,
        context: &Context,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<(), CommitError<D::Rejection>> {
        let (mut turn, until) = self.take_turn_in_time::<D>(stream).await?;
        let mut loaded = self.load_in_turn::<D>(&mut turn).await?;
        let done = self.decide_until(&mut loaded, context, command, until).await;
        if is_in_line(&done) && turn.has_waiters() {
            turn.leave_state(loaded);
        }
        done
    }

    async fn take_turn_in_time<D: Decider>(
        &self,
        stream: &StreamKey,
    ) -> Result<(WriteTurn, Instant), CommitError<D::Rejection>> {
        let until = Instant::now() + self.write_patience;
        Ok((self.take_turn_until::<D>(stream, until).await?, until))
    }

    async fn take_turn_until<D: Decider>(
        &self,
        stream: &StreamKey,
        until: Instant,
    ) -> Result<WriteTurn, CommitError<D::Rejection>> {
        let turn = tokio::time::timeout_at(until, self.take_turn(stream)).await;
        turn.map_err(|_| CommitError::Conflict)
    }

    /// The stream as it is now, folded from where the writer before has left it.
    async fn load_in_turn<D: Decider>(&self, turn: &mut WriteTurn) -> Result<Loaded<D>, LogError> {
        let Some(mut loaded) = turn.take_state::<D>() else {
            return self.load(turn.stream()).await;
        };
        self.refresh(&mut loaded).await?;
        Ok(loaded)
    }

    /// Decides while the other writers wait. A stream that begins has none that must wait: who
    /// hears of its first commit early goes on from it while it is being written. Of several that
    /// begin it at once one does, and the others take their turn again.
    async fn execute_in_turn<D: Decider>(
        &self,
        mut turn: WriteTurn,
        mut loaded: Loaded<D>,
        context: &Context,
        mut command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
        until: Instant,
    ) -> Result<Loaded<D>, CommitError<D::Rejection>> {
        if loaded.head.is_none() {
            drop(turn);
            match self.decide_once(&mut loaded, context, &mut command).await {
                Err(CommitError::Conflict) => {}
                done => return done.map(|()| loaded),
            }
            turn = self.take_turn_until::<D>(&loaded.stream, until).await?;
            self.refresh(&mut loaded).await?;
        }
        let done = self.decide_until(&mut loaded, context, command, until).await;
        if is_in_line(&done) && turn.has_waiters() {
            turn.leave_state(loaded.clone());
        }
        done.map(|()| loaded)
    }

    async fn decide_once<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        context: &Context,
        command: &mut impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<(), CommitError<D::Rejection>> {
        let next = loaded.head.map_or(Seq(0), |head| head.seq).plus(1);
        let (command, payloads) = command(&loaded.state, next);
        self.decide(loaded, command, payloads, context, false).await.map(drop)
    }

    /// Decides and appends, again whenever another process was faster.
    async fn decide_until<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        context: &Context,
        mut command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
        until: Instant,
    ) -> Result<(), CommitError<D::Rejection>> {
        loop {
            let before = loaded.head;
            match self.decide_once(loaded, context, &mut command).await {
                Err(CommitError::Conflict) if Instant::now() < until => {
                    self.wait_for_move(loaded, before, until).await?;
                }
                done => return done,
            }
        }
    }

    /// Waits until the stream is seen to have moved on from a head that is not its last one.
    async fn wait_for_move<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        before: Option<Head>,
        until: Instant,
    ) -> Result<(), LogError> {
        let [mut wait, longest] = HEAD_WAITS;
        while loaded.head == before && Instant::now() < until {
            tokio::time::sleep(wait).await;
            wait = longest.min(wait * 2);
            self.refresh(loaded).await?;
        }
        Ok(())
    }
}

/// Whether the state is what the log says, after a command.
fn is_in_line<R: std::error::Error>(done: &Result<(), CommitError<R>>) -> bool {
    !matches!(done, Err(CommitError::Log(_)))
}
