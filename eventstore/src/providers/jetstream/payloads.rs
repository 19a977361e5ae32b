//! Sealed payloads: a stream of their own, in pieces that can be erased.
//!
//! A payload is stored before the commit that names it. Its subject holds the commit's id and its
//! commitment, so what is stored under it never changes, and storing it again is idempotent. An
//! erased piece leaves an empty message, so that a delayed retry does not bring it back.

use bytes::{Bytes, BytesMut};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::api::PublishOutcome;
use super::log_core::{Backoff, LogCore, RETRY_TIMEOUT};
use super::wire::PayloadPlace;
use crate::dedup::PayloadAssembly;
use crate::error::{AppendError, LogError};
use crate::prepare::PreparedCommit;
use crate::record::{PayloadMeta, Record};
use crate::seal::{Opening, PayloadKeys, StoredPart, open_part};

/// Bytes of one piece; messages are limited to 1 MiB.
const PIECE_BYTES: usize = 512 << 10;
/// Pieces of one commit that are stored concurrently.
const CONCURRENT_PIECES: usize = 8;

impl LogCore {
    /// Stores the payloads of a commit; returns the sequence numbers of the new pieces.
    pub(super) async fn put_payloads(
        &self,
        prepared: &PreparedCommit,
    ) -> Result<Vec<u64>, AppendError> {
        let mut pieces = Vec::new();
        let sealed = prepared.sealed.iter().zip(&prepared.body.payloads);
        for (index, (bytes, meta)) in (0_u16..).zip(sealed) {
            let place = PayloadPlace {
                stream: &prepared.stream,
                commit: prepared.commit,
                index,
                commitment: &meta.commitment,
            };
            if bytes.is_empty() {
                // Erased before it was archived: the empty message marks it as erased, not as lost.
                pieces.push((self.names.payload_subject(&place, 0), Bytes::new()));
            }
            for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                let subject = self.names.payload_subject(&place, number);
                pieces.push((subject, Bytes::copy_from_slice(piece)));
            }
        }
        let stored = stream::iter(pieces)
            .map(|(subject, piece)| self.put_piece(subject, piece, 0))
            .buffer_unordered(CONCURRENT_PIECES);
        let stored: Vec<Option<u64>> = stored.try_collect().await?;
        Ok(stored.into_iter().flatten().collect())
    }

    /// Stores a piece unless its subject has a message newer than `expected`. No commit names the
    /// piece yet, so failing leaves no doubt.
    async fn put_piece(
        &self,
        subject: String,
        piece: Bytes,
        expected: u64,
    ) -> Result<Option<u64>, AppendError> {
        let stream = &self.names.payloads;
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut waits = Backoff::default();
        loop {
            match self.api.publish_message(stream, &subject, Some(expected), piece.clone()).await {
                PublishOutcome::Stored { sequence } => return Ok(Some(sequence)),
                // The subject is taken: by an earlier try with the same bytes, or by an erasure.
                PublishOutcome::WrongVersion => return Ok(None),
                PublishOutcome::Full => return Err(AppendError::Full),
                PublishOutcome::Refused(reason) => return Err(AppendError::Unavailable(reason)),
                PublishOutcome::NotNow(reason) | PublishOutcome::Unknown(reason) => {
                    if Instant::now() >= deadline {
                        return Err(AppendError::Unavailable(reason));
                    }
                }
            }
            self.sleep_unless_closed(waits.next_delay()).await?;
        }
    }

    /// Erases the pieces of a commit that was not appended. Those that remain after an error are
    /// encrypted and unused.
    pub(super) async fn drop_pieces(&self, pieces: Vec<u64>) {
        for sequence in pieces {
            if let Err(error) = self.api.erase_message(&self.names.payloads, sequence).await {
                tracing::debug!(sequence, error = error.0, "an unused payload stays");
            }
        }
    }

    /// Opens a payload, assembling it from the payloads that it is a delta of.
    pub(super) async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        let mut assembly = PayloadAssembly::new(reference);
        while let Some(wanted) = assembly.next_wanted() {
            let Some((meta, own)) = self.read_stored_part(stream, wanted).await? else {
                return Ok(None);
            };
            assembly.add_stored(meta, own)?;
        }
        assembly.into_opening(&self.keys.tenant_key(&stream.tenant)?, stream).map(Some)
    }

    async fn read_stored_part(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<(PayloadMeta, StoredPart)>, LogError> {
        let Some((record, meta)) = self.find_payload_record(stream, reference).await? else {
            return Ok(None);
        };
        let place = PayloadPlace {
            stream,
            commit: record.body.commit,
            index: reference.index,
            commitment: &meta.commitment,
        };
        let mut sealed = BytesMut::new();
        for number in 0.. {
            let subject = self.names.payload_subject(&place, number);
            let piece = self
                .retry_until_answered(|| self.api.last_message(&self.names.payloads, &subject))
                .await?;
            let Some(piece) = piece else { break };
            if piece.payload.is_empty() {
                return Ok(None);
            }
            sealed.extend_from_slice(&piece.payload);
            // Only the last piece is shorter than the maximum; one of exactly that length is
            // followed by a read that finds nothing.
            if piece.payload.len() < PIECE_BYTES {
                break;
            }
        }
        if sealed.is_empty() {
            return Err(LogError::missing_payload(stream, reference));
        }
        let key = self.keys.tenant_key(&stream.tenant)?;
        let own = open_part(&key, stream, reference, &sealed, &meta.commitment, meta.bytes)?;
        Ok(Some((meta, own)))
    }

    /// Finds the record of a payload reference, and the payload's metadata.
    async fn find_payload_record(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<(std::sync::Arc<Record>, PayloadMeta)>, LogError> {
        let Some(before) = reference.seq.0.checked_sub(1) else { return Ok(None) };
        let records = self.read_stream(stream, Seq(before), 1).await?;
        let record = records.into_iter().find(|record| record.first_seq() == reference.seq);
        let Some(record) = record else { return Ok(None) };
        let meta = record.body.payloads.get(usize::from(reference.index)).cloned();
        Ok(meta.map(|meta| (record, meta)))
    }

    /// Erases a payload in the broker's files; true if it existed.
    pub(super) async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        let Some((record, meta)) = self.find_payload_record(stream, reference).await? else {
            return Ok(false);
        };
        let place = PayloadPlace {
            stream,
            commit: record.body.commit,
            index: reference.index,
            commitment: &meta.commitment,
        };
        let payloads = &self.names.payloads;
        let mut erased = false;
        for number in 0.. {
            let subject = self.names.payload_subject(&place, number);
            let last =
                self.retry_until_answered(|| self.api.last_message(payloads, &subject)).await?;
            let Some(last) = last else { break };
            // The empty message first: a delayed retry of the store must find the subject taken.
            if !last.payload.is_empty() {
                self.put_piece(subject.clone(), Bytes::new(), last.sequence).await?;
            }
            erased |= self.erase_pieces(&subject).await?;
        }
        Ok(erased)
    }

    /// Erases all messages of a subject but the empty one; true if there were any.
    async fn erase_pieces(&self, subject: &str) -> Result<bool, AppendError> {
        let payloads = &self.names.payloads;
        let (mut erased, mut from) = (false, 1);
        loop {
            let next = self
                .retry_until_answered(|| self.api.next_message(payloads, subject, from))
                .await?;
            let Some(next) = next else { return Ok(erased) };
            from = next.sequence + 1;
            if !next.payload.is_empty() {
                erased |= self
                    .retry_until_answered(|| self.api.erase_message(payloads, next.sequence))
                    .await?;
            }
        }
    }
}
