//! Sealed payloads: beside the chain, in pieces, each of which can be erased.
//!
//! A payload is stored before the commit that names it. Its subject holds the commit's id and its
//! commitment, so what is stored under it never changes, and storing it again changes nothing. An
//! erased piece leaves an empty one, so that a late try does not bring it back.

use bytes::{Bytes, BytesMut};
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::api::Published;
use super::inner::{Inner, PATIENCE, Waits};
use super::wire::PayloadPlace;
use crate::error::{AppendError, LogError};
use crate::prepare::Prepared;
use crate::record::{PayloadMeta, Record};
use crate::reuse::Assembly;
use crate::seal::{Opening, Own, PayloadKeys, open};

/// Bytes of one piece.
const PIECE: usize = 512 << 10;
/// Pieces under way at once for one commit.
const AT_ONCE: usize = 8;

impl Inner {
    /// Stores the payloads of a commit; gives the sequence numbers of what is new.
    pub(super) async fn put_payloads(&self, prepared: &Prepared) -> Result<Vec<u64>, AppendError> {
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
                // It was erased before it was archived.
                pieces.push((self.names.payload(&place, 0), Bytes::new()));
            }
            for (number, piece) in bytes.chunks(PIECE).enumerate() {
                let subject = self.names.payload(&place, number);
                pieces.push((subject, Bytes::copy_from_slice(piece)));
            }
        }
        let stored = stream::iter(pieces)
            .map(|(subject, piece)| self.put_piece(subject, piece, 0))
            .buffer_unordered(AT_ONCE);
        let stored: Vec<Option<u64>> = stored.try_collect().await?;
        Ok(stored.into_iter().flatten().collect())
    }

    /// Stores a piece unless something newer than `expected` is there. No commit names it yet, so
    /// giving up is a clear answer.
    async fn put_piece(
        &self,
        subject: String,
        piece: Bytes,
        expected: u64,
    ) -> Result<Option<u64>, AppendError> {
        let stream = &self.names.payloads;
        let until = Instant::now() + PATIENCE;
        let mut waits = Waits::default();
        loop {
            match self.api.publish(stream, &subject, Some(expected), piece.clone()).await {
                Published::Stored { sequence } => return Ok(Some(sequence)),
                Published::WrongVersion => return Ok(None),
                Published::Full => return Err(AppendError::Full),
                Published::Refused(reason) => return Err(AppendError::Unavailable(reason)),
                Published::NotNow(reason) | Published::Unknown(reason) => {
                    if Instant::now() >= until {
                        return Err(AppendError::Unavailable(reason));
                    }
                }
            }
            self.pause(waits.next()).await?;
        }
    }

    /// Takes back what no commit names. What stays, by an error here, is unreadable and harmless.
    pub(super) async fn drop_pieces(&self, pieces: Vec<u64>) {
        for sequence in pieces {
            if let Err(error) = self.api.erase(&self.names.payloads, sequence).await {
                tracing::debug!(sequence, error = error.0, "an unused payload stays");
            }
        }
    }

    /// A payload, put together from those that it is built on.
    pub(super) async fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        let mut assembly = Assembly::new(reference);
        while let Some(wanted) = assembly.wants() {
            let Some((meta, own)) = self.stored(stream, wanted).await? else { return Ok(None) };
            assembly.add(meta, own)?;
        }
        assembly.finish(&self.keys.key(&stream.tenant)?, stream).map(Some)
    }

    async fn stored(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<(PayloadMeta, Own)>, LogError> {
        let Some((record, meta)) = self.named(stream, reference).await? else { return Ok(None) };
        let place = PayloadPlace {
            stream,
            commit: record.body.commit,
            index: reference.index,
            commitment: &meta.commitment,
        };
        let mut sealed = BytesMut::new();
        for number in 0.. {
            let subject = self.names.payload(&place, number);
            let piece = self.patiently(|| self.api.last(&self.names.payloads, &subject)).await?;
            let Some(piece) = piece else { break };
            if piece.payload.is_empty() {
                return Ok(None);
            }
            sealed.extend_from_slice(&piece.payload);
            if piece.payload.len() < PIECE {
                break;
            }
        }
        if sealed.is_empty() {
            return Err(LogError::missing_payload(stream, reference));
        }
        let key = self.keys.key(&stream.tenant)?;
        let own = open(&key, stream, reference, &sealed, &meta.commitment, meta.bytes)?;
        Ok(Some((meta, own)))
    }

    /// The record that a reference means, and what it says of the payload.
    async fn named(
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

    /// Overwrites a payload in the broker's files; true if there was one.
    pub(super) async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        let Some((record, meta)) = self.named(stream, reference).await? else { return Ok(false) };
        let place = PayloadPlace {
            stream,
            commit: record.body.commit,
            index: reference.index,
            commitment: &meta.commitment,
        };
        let payloads = &self.names.payloads;
        let mut erased = false;
        for number in 0.. {
            let subject = self.names.payload(&place, number);
            let last = self.patiently(|| self.api.last(payloads, &subject)).await?;
            let Some(last) = last else { break };
            // The empty one first: a late try to store the piece must find something.
            if !last.payload.is_empty() {
                self.put_piece(subject.clone(), Bytes::new(), last.sequence).await?;
            }
            erased |= self.erase_pieces(&subject).await?;
        }
        Ok(erased)
    }

    /// Overwrites all of a subject but its empty message; true if there was anything.
    async fn erase_pieces(&self, subject: &str) -> Result<bool, AppendError> {
        let payloads = &self.names.payloads;
        let (mut erased, mut from) = (false, 1);
        loop {
            let next = self.patiently(|| self.api.next(payloads, subject, from)).await?;
            let Some(next) = next else { return Ok(erased) };
            from = next.sequence + 1;
            if !next.payload.is_empty() {
                erased |= self.patiently(|| self.api.erase(payloads, next.sequence)).await?;
            }
        }
    }
}
