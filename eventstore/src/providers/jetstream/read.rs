//! Reading: batches from any replica, ends from the leader. Every hash is checked, and no hole is
//! skipped.

use std::sync::Arc;

use async_nats::jetstream::message::StreamMessage;
use convergio_domain::stream::{Seq, StreamKey};
use tokio::time::Instant;

use super::inner::{Inner, PATIENCE, Waits};
use super::wire;
use crate::error::LogError;
use crate::log::Page;
use crate::record::{Head, Position, RawRecord, Record};

/// Messages per batch.
const BATCH: usize = 512;

impl Inner {
    pub(super) async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        Ok(self.last_record(stream).await?.map(|(record, _)| record.head()))
    }

    /// Reads a stream's last record, at least as new as what is known of the stream: a leader that
    /// was just elected may not have applied all records yet.
    async fn last_record(
        &self,
        stream: &StreamKey,
    ) -> Result<Option<(Record, StreamMessage)>, LogError> {
        self.check_open()?;
        let subject = self.names.records(stream);
        let known = self.heads.newest(stream).map_or(0, |head| head.position.0);
        let until = Instant::now() + PATIENCE;
        let mut waits = Waits::default();
        loop {
            let last = self.patiently(|| self.api.last(&self.names.log, &subject)).await?;
            let end = last.as_ref().map_or(0, |message| message.sequence);
            if end >= known {
                let Some(message) = last else { return Ok(None) };
                return Ok(Some((wire::read(&self.names, &message)?.0, message)));
            }
            if Instant::now() >= until {
                let reason = format!("it ends at position {end}, and had a record at {known}");
                return Err(LogError::corrupt(stream, &reason));
            }
            self.pause(waits.next()).await?;
        }
    }

    pub(super) async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        let found = self.stream_messages(stream, after, limit).await?;
        Ok(found.into_iter().map(|(record, _)| Arc::new(record)).collect())
    }

    pub(super) async fn stream_raw(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let found = self.stream_messages(stream, after, limit).await?;
        Ok(found.into_iter().map(|(record, message)| raw(&record, message)).collect())
    }

    async fn stream_messages(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<(Record, StreamMessage)>, LogError> {
        let Some((last, message)) = self.last_record(stream).await? else {
            return Ok(Vec::new());
        };
        let head = last.head();
        if head.seq <= after || limit == 0 {
            self.heads.saw(stream, head);
            return Ok(Vec::new());
        }
        // Sequential readers continue where the last page ended: its head is cached, so no seek is
        // needed.
        let previous = match self.heads.ending_with(stream, after) {
            Some(known) => Some(known),
            None => self.near(stream, after, head).await?,
        };
        let mut walk = Walk { previous, stream };
        let mut found = Vec::new();
        // The last record is at hand already; it is often the only one that is asked for.
        if last.first_seq() == walk.seq().plus(1) {
            walk.step(&last)?;
            if last.first_seq() > after {
                found.push((last, message));
            }
        }
        while found.len() < limit && walk.position() < head.position {
            // Records before `after` are read only to check the chain.
            let left_out = usize::try_from(after.0.saturating_sub(walk.seq().0)).unwrap_or(BATCH);
            let wanted = left_out.saturating_add(limit - found.len()).min(BATCH);
            for message in self.after(stream, walk.position(), wanted).await? {
                let (record, _) = wire::read(&self.names, &message)?;
                if record.position > head.position || found.len() == limit {
                    break;
                }
                walk.step(&record)?;
                if record.first_seq() > after {
                    found.push((record, message));
                }
            }
        }
        if let Some((end, _)) = found.last() {
            self.heads.saw(stream, end.head());
        }
        Ok(found)
    }

    /// Reads messages of a stream after a position, at least one, since one is known to exist.
    async fn after(
        &self,
        stream: &StreamKey,
        position: Position,
        wanted: usize,
    ) -> Result<Vec<StreamMessage>, LogError> {
        let (log, subject) = (&self.names.log, self.names.records(stream));
        let from = position.0 + 1;
        let messages = self.patiently(|| self.api.batch(log, &subject, from, wanted)).await?;
        if !messages.is_empty() {
            return Ok(messages);
        }
        // The replica that answered lags; the leader does not.
        let next = self.patiently(|| self.api.next(log, &subject, from)).await?;
        let next = next.ok_or_else(|| {
            LogError::corrupt(
                stream,
                &format!("the record after position {} is missing", position.0),
            )
        })?;
        Ok(vec![next])
    }

    /// Reads the log's last position from the leader, at least as new as the acknowledgement
    /// marker.
    pub(super) async fn tail_position(&self) -> Result<Position, LogError> {
        self.check_open()?;
        let until = Instant::now() + PATIENCE;
        let mut waits = Waits::default();
        loop {
            let known = self.witness.seen();
            let info = self.patiently(|| self.api.info(&self.names.log)).await?;
            let missing = || {
                let log = &self.names.log;
                LogError::Unavailable(format!("the stream {log} does not exist any more"))
            };
            let info = info.ok_or_else(missing)?;
            let tail = Position(info.state.last_sequence);
            let is_alone = info.config.num_replicas == 1;
            if tail >= known {
                return Ok(tail);
            }
            // A leader that was just elected may not have applied all records yet; a single server
            // has no such excuse.
            if is_alone || Instant::now() >= until {
                let reason = format!("it ends at {}, and had {} records", tail.0, known.0);
                return Err(LogError::corrupt(&self.names.log, &reason));
            }
            self.pause(waits.next()).await?;
        }
    }

    pub(super) async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        let tail = self.tail_position().await?;
        let found = self.messages(after, limit, tail).await?;
        let next = found.last().map_or(after, |(record, _)| record.position);
        let records = found.into_iter().map(|(record, _)| Arc::new(record)).collect();
        Ok(Page { records, next, tail })
    }

    pub(super) async fn all_raw(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let tail = self.tail_position().await?;
        let found = self.messages(after, limit, tail).await?;
        Ok(found.into_iter().map(|(record, message)| raw(&record, message)).collect())
    }

    async fn messages(
        &self,
        after: Position,
        limit: usize,
        tail: Position,
    ) -> Result<Vec<(Record, StreamMessage)>, LogError> {
        let end = after.0.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX)).min(tail.0);
        let (mut found, mut next) = (Vec::new(), after);
        while next.0 < end {
            let wanted = usize::try_from(end - next.0).unwrap_or(BATCH).min(BATCH);
            for message in self.dense(next, wanted).await? {
                let (record, _) = wire::read(&self.names, &message)?;
                next = record.position;
                found.push((record, message));
            }
        }
        Ok(found)
    }

    /// Reads messages after a position without a hole, at least one.
    async fn dense(&self, after: Position, wanted: usize) -> Result<Vec<StreamMessage>, LogError> {
        let (log, all) = (&self.names.log, self.names.all_records());
        let from = after.0 + 1;
        let mut messages = self.patiently(|| self.api.batch(log, &all, from, wanted)).await?;
        // Sequence numbers of the log's stream are dense, so a jump is a hole or a lagging replica.
        let dense = (from..).zip(&messages).take_while(|(at, m)| *at == m.sequence).count();
        messages.truncate(dense);
        if messages.is_empty() {
            messages.push(self.leaders(Position(from)).await?);
        }
        Ok(messages)
    }

    /// Reads from the leader the message at a position at which one must exist.
    pub(super) async fn leaders(&self, position: Position) -> Result<StreamMessage, LogError> {
        let until = Instant::now() + PATIENCE;
        let mut waits = Waits::default();
        loop {
            let found = self.patiently(|| self.api.at(&self.names.log, position.0)).await?;
            match found {
                Some(message) => return Ok(message),
                // A leader that was just elected may not have applied everything yet.
                None if Instant::now() < until => self.pause(waits.next()).await?,
                None => {
                    let at = format!("{} {}", self.names.log, position.0);
                    return Err(LogError::corrupt(&at, "the record is missing"));
                }
            }
        }
    }
}

/// Converts a record to its raw form.
fn raw(record: &Record, message: StreamMessage) -> RawRecord {
    RawRecord {
        position: record.position,
        stream: record.stream.clone(),
        seq: record.first_seq(),
        prev_hash: record.prev_hash,
        hash: record.hash,
        body: wire::canonical(&message),
    }
}

/// Walks along a stream's hash chain.
struct Walk<'a> {
    previous: Option<Head>,
    stream: &'a StreamKey,
}

impl Walk<'_> {
    fn position(&self) -> Position {
        self.previous.map_or(Position::START, |head| head.position)
    }

    fn seq(&self) -> Seq {
        self.previous.map_or(Seq(0), |head| head.seq)
    }

    /// Checks that a record follows, and moves to it.
    fn step(&mut self, record: &Record) -> Result<(), LogError> {
        let (seq, hash) = self.previous.map_or((Seq(0), [0; 32]), |head| (head.seq, head.hash));
        if record.first_seq() != seq.plus(1) || record.prev_hash != hash {
            let at = format!("{} event {}", self.stream, record.first_seq());
            let reason = format!("it does not follow event {seq}");
            return Err(LogError::corrupt(&at, &reason));
        }
        self.previous = Some(record.head());
        Ok(())
    }
}
