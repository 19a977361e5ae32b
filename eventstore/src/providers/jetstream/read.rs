//! Reading: batches from any replica, ends from the leader. Every hash is checked, and no hole is
//! skipped.

use std::sync::Arc;

use async_nats::jetstream::message::StreamMessage;
use convergio_domain::stream::{Seq, StreamKey};
use tokio::time::Instant;

use super::log_core::{Backoff, LogCore, RETRY_TIMEOUT};
use super::wire;
use crate::error::LogError;
use crate::log::RecordPage;
use crate::record::{Position, RawRecord, Record, StreamHead};

/// Messages per batch.
const BATCH_MESSAGES: usize = 512;

impl LogCore {
    pub(super) async fn read_head(
        &self,
        stream: &StreamKey,
    ) -> Result<Option<StreamHead>, LogError> {
        Ok(self.last_record(stream).await?.map(|(record, _)| record.stream_head()))
    }

    /// Reads a stream's last record, at least as new as what is known of the stream: a leader that
    /// was just elected may not have applied all records yet.
    async fn last_record(
        &self,
        stream: &StreamKey,
    ) -> Result<Option<(Record, StreamMessage)>, LogError> {
        self.check_open()?;
        let subject = self.names.record_subject(stream);
        let known = self.heads.newest_head(stream).map_or(0, |head| head.position.0);
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut waits = Backoff::default();
        loop {
            let last = self
                .retry_until_answered(|| self.api.last_message(&self.names.log, &subject))
                .await?;
            let end = last.as_ref().map_or(0, |message| message.sequence);
            if end >= known {
                let Some(message) = last else { return Ok(None) };
                return Ok(Some((wire::decode_message(&self.names, &message)?.0, message)));
            }
            if Instant::now() >= deadline {
                let reason = format!("it ends at position {end}, and had a record at {known}");
                return Err(LogError::corrupt(stream, &reason));
            }
            self.sleep_unless_closed(waits.next_delay()).await?;
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

    pub(super) async fn read_stream_raw(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let found = self.stream_messages(stream, after, limit).await?;
        Ok(found.into_iter().map(|(record, message)| to_raw_record(&record, message)).collect())
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
        let head = last.stream_head();
        if head.seq <= after || limit == 0 {
            self.heads.remember_head(stream, head);
            return Ok(Vec::new());
        }
        // Sequential readers continue where the last page ended: its head is cached, so no seek is
        // needed.
        let previous = match self.heads.head_ending_at(stream, after) {
            Some(known) => Some(known),
            None => self.head_near(stream, after, head).await?,
        };
        let mut walk = ChainWalk { previous, stream };
        let mut found = Vec::new();
        // The last record is at hand already; it is often the only one that is asked for.
        if last.first_seq() == walk.seq().offset_by(1) {
            walk.advance_to(&last)?;
            if last.first_seq() > after {
                found.push((last, message));
            }
        }
        while found.len() < limit && walk.position() < head.position {
            // Records before `after` are read only to check the chain.
            let left_out =
                usize::try_from(after.0.saturating_sub(walk.seq().0)).unwrap_or(BATCH_MESSAGES);
            let wanted = left_out.saturating_add(limit - found.len()).min(BATCH_MESSAGES);
            for message in self.messages_after(stream, walk.position(), wanted).await? {
                let (record, _) = wire::decode_message(&self.names, &message)?;
                if record.position > head.position || found.len() == limit {
                    break;
                }
                walk.advance_to(&record)?;
                if record.first_seq() > after {
                    found.push((record, message));
                }
            }
        }
        if let Some((end, _)) = found.last() {
            self.heads.remember_head(stream, end.stream_head());
        }
        Ok(found)
    }

    /// Reads messages of a stream after a position, at least one, since one is known to exist.
    async fn messages_after(
        &self,
        stream: &StreamKey,
        position: Position,
        wanted: usize,
    ) -> Result<Vec<StreamMessage>, LogError> {
        let (log, subject) = (&self.names.log, self.names.record_subject(stream));
        let from = position.0 + 1;
        let messages =
            self.retry_until_answered(|| self.api.read_batch(log, &subject, from, wanted)).await?;
        if !messages.is_empty() {
            return Ok(messages);
        }
        // The replica that answered lags; the leader does not.
        let next = self.retry_until_answered(|| self.api.next_message(log, &subject, from)).await?;
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
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut waits = Backoff::default();
        loop {
            let known = self.ack_marker.highest_seen();
            let info = self.retry_until_answered(|| self.api.stream_info(&self.names.log)).await?;
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
            if is_alone || Instant::now() >= deadline {
                let reason = format!("it ends at {}, and had {} records", tail.0, known.0);
                return Err(LogError::corrupt(&self.names.log, &reason));
            }
            self.sleep_unless_closed(waits.next_delay()).await?;
        }
    }

    pub(super) async fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<RecordPage, LogError> {
        let tail = self.tail_position().await?;
        let found = self.log_messages(after, limit, tail).await?;
        let next = found.last().map_or(after, |(record, _)| record.position);
        let records = found.into_iter().map(|(record, _)| Arc::new(record)).collect();
        Ok(RecordPage { records, next, tail })
    }

    pub(super) async fn read_all_raw(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let tail = self.tail_position().await?;
        let found = self.log_messages(after, limit, tail).await?;
        Ok(found.into_iter().map(|(record, message)| to_raw_record(&record, message)).collect())
    }

    async fn log_messages(
        &self,
        after: Position,
        limit: usize,
        tail: Position,
    ) -> Result<Vec<(Record, StreamMessage)>, LogError> {
        let end = after.0.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX)).min(tail.0);
        let (mut found, mut next) = (Vec::new(), after);
        while next.0 < end {
            let wanted =
                usize::try_from(end - next.0).unwrap_or(BATCH_MESSAGES).min(BATCH_MESSAGES);
            for message in self.dense_messages(next, wanted).await? {
                let (record, _) = wire::decode_message(&self.names, &message)?;
                next = record.position;
                found.push((record, message));
            }
        }
        Ok(found)
    }

    /// Reads messages after a position without a hole, at least one.
    async fn dense_messages(
        &self,
        after: Position,
        wanted: usize,
    ) -> Result<Vec<StreamMessage>, LogError> {
        let (log, all) = (&self.names.log, self.names.all_records());
        let from = after.0 + 1;
        let mut messages =
            self.retry_until_answered(|| self.api.read_batch(log, &all, from, wanted)).await?;
        // Sequence numbers of the log's stream are dense, so a jump is a hole or a lagging replica.
        let dense = (from..).zip(&messages).take_while(|(at, m)| *at == m.sequence).count();
        messages.truncate(dense);
        if messages.is_empty() {
            messages.push(self.message_from_leader(Position(from)).await?);
        }
        Ok(messages)
    }

    /// Reads from the leader the message at a position at which one must exist.
    pub(super) async fn message_from_leader(
        &self,
        position: Position,
    ) -> Result<StreamMessage, LogError> {
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut waits = Backoff::default();
        loop {
            let found = self
                .retry_until_answered(|| self.api.message_at(&self.names.log, position.0))
                .await?;
            match found {
                Some(message) => return Ok(message),
                // A leader that was just elected may not have applied everything yet.
                None if Instant::now() < deadline => {
                    self.sleep_unless_closed(waits.next_delay()).await?;
                }
                None => {
                    let at = format!("{} {}", self.names.log, position.0);
                    return Err(LogError::corrupt(&at, "the record is missing"));
                }
            }
        }
    }
}

/// Converts a record to its raw form.
fn to_raw_record(record: &Record, message: StreamMessage) -> RawRecord {
    RawRecord {
        position: record.position,
        stream: record.stream.clone(),
        seq: record.first_seq(),
        prev_hash: record.prev_hash,
        hash: record.hash,
        body: wire::canonical_body(&message),
    }
}

/// Walks along a stream's hash chain.
struct ChainWalk<'a> {
    previous: Option<StreamHead>,
    stream: &'a StreamKey,
}

impl ChainWalk<'_> {
    fn position(&self) -> Position {
        self.previous.map_or(Position::START, |head| head.position)
    }

    fn seq(&self) -> Seq {
        self.previous.map_or(Seq(0), |head| head.seq)
    }

    /// Checks that a record follows, and moves to it.
    fn advance_to(&mut self, record: &Record) -> Result<(), LogError> {
        let (seq, hash) = self.previous.map_or((Seq(0), [0; 32]), |head| (head.seq, head.hash));
        if record.first_seq() != seq.offset_by(1) || record.prev_hash != hash {
            let at = format!("{} event {}", self.stream, record.first_seq());
            let reason = format!("it does not follow event {seq}");
            return Err(LogError::corrupt(&at, &reason));
        }
        self.previous = Some(record.stream_head());
        Ok(())
    }
}
