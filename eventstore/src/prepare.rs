//! Preparing a commit for a provider: it is encoded, chained to the head it expects, and its
//! payloads are sealed. All of that happens in the caller's thread, so that a provider's single
//! writer only compares heads and writes.

use convergio_domain::decider::Wake;
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::stream::{Seq, StreamKey};
use uuid::Uuid;

use crate::commit::{Commit, LogLimits, Payload};
use crate::dedup::PayloadDelta;
use crate::error::{AppendError, LogError};
use crate::record::{Hash, PayloadMeta, RecordBody, StreamHead, chain_hash};
use crate::seal::{Opening, PayloadKeys, TenantKey, seal_payload};

/// Maximum bytes of a payload that is handed to the provider's cache of recent payloads.
const RECENT_PAYLOAD_BYTES: usize = 32 << 10;

/// A commit that is valid if the stream's head is the expected one.
pub(crate) struct PreparedCommit {
    pub(crate) stream: StreamKey,
    pub(crate) commit: Uuid,
    pub(crate) expected: Option<StreamHead>,
    pub(crate) prev_hash: Hash,
    pub(crate) hash: Hash,
    pub(crate) body: RecordBody,
    pub(crate) canonical: Vec<u8>,
    /// Sealed payloads by index; empty if the payload was erased before it was archived.
    pub(crate) sealed: Vec<Vec<u8>>,
    pub(crate) wake: Wake,
    /// Payloads that are likely to be read at once, by index.
    pub(crate) recent_payloads: Vec<(u16, Opening)>,
    pub(crate) is_continued: bool,
}

impl PreparedCommit {
    /// Returns the sequence number of the last event.
    pub(crate) fn last_seq(&self) -> Seq {
        self.body.seq.offset_by(self.body.events.len() as u64 - 1)
    }

    /// Sets the expected head to the stream's actual one, if this commit follows it.
    ///
    /// # Errors
    /// [`AppendError::Conflict`] if the previous hash or the sequence number is another.
    pub(crate) fn expect_head(&mut self, actual: Option<StreamHead>) -> Result<(), AppendError> {
        let (seq, hash) = actual.map_or((Seq(0), [0; 32]), |head| (head.seq, head.hash));
        if self.prev_hash != hash || self.body.seq != seq.offset_by(1) {
            return Err(AppendError::Conflict { actual });
        }
        self.expected = actual;
        Ok(())
    }

    /// Returns whether a record with this commit's id holds the same commit. The times may differ:
    /// each retry takes a new one.
    pub(crate) fn is_same_commit(&self, other: &RecordBody) -> bool {
        self.body.events == other.events && self.body.payloads == other.payloads
    }
}

/// Encodes, chains and seals a commit.
///
/// # Errors
/// [`AppendError::TooLarge`] if it exceeds [`LogLimits`], or the tenant's key is not available.
pub(crate) fn prepare_commit(
    commit: Commit,
    keys: &dyn PayloadKeys,
) -> Result<PreparedCommit, AppendError> {
    commit.check_limits()?;
    let Commit {
        stream,
        id,
        expected,
        time,
        actor,
        events,
        fingerprint: fold,
        payloads,
        deltas,
        wake,
        ..
    } = commit;
    let is_continued = commit.is_continued;
    let seq = expected.map_or(Seq(0), |head| head.seq).offset_by(1);
    let key = keys.tenant_key(&stream.tenant)?;
    let SealedPayloads { sealed, metas, recent_payloads } =
        seal_payloads(&key, (&stream, seq), payloads, deltas)?;
    let (tenant, name) = (stream.tenant.clone(), stream.stream_name());
    let body = RecordBody {
        actor,
        commit: id,
        events,
        fold,
        payloads: metas,
        seq,
        stream: name,
        tenant,
        time,
    };
    let canonical = body.to_canonical_json().map_err(|error| LogError::corrupt(&stream, &error))?;
    // Known only now: the size depends on the encoding.
    if canonical.len() > LogLimits::BODY_BYTES {
        let (what, limit) = ("the events of a commit", LogLimits::BODY_BYTES);
        return Err(AppendError::TooLarge { what, limit });
    }
    let prev_hash = expected.map_or([0; 32], |head| head.hash);
    let hash = chain_hash(&prev_hash, &canonical);
    Ok(PreparedCommit {
        stream,
        commit: id,
        expected,
        prev_hash,
        hash,
        body,
        canonical,
        sealed,
        wake,
        recent_payloads,
        is_continued,
    })
}

/// Payloads of a commit as its record and the log hold them.
struct SealedPayloads {
    sealed: Vec<Vec<u8>>,
    metas: Vec<PayloadMeta>,
    recent_payloads: Vec<(u16, Opening)>,
}

/// Seals the payloads of a commit whose first event is at a place of its stream.
fn seal_payloads(
    key: &TenantKey,
    (stream, seq): (&StreamKey, Seq),
    payloads: Vec<Payload>,
    deltas: Vec<Option<PayloadDelta>>,
) -> Result<SealedPayloads, AppendError> {
    let mut sealed = Vec::with_capacity(payloads.len());
    let mut metas = Vec::with_capacity(payloads.len());
    let mut recent_payloads = Vec::new();
    let mut deltas = deltas.into_iter();
    for (index, payload) in (0_u16..).zip(payloads) {
        let place = PayloadSlot(index).to_payload_ref(seq);
        let reuse = deltas.next().flatten();
        let done = seal_payload(key, stream, place, &payload.bytes, reuse.as_ref())?;
        sealed.push(done.bytes);
        if is_read_soon(&payload) {
            recent_payloads
                .push((index, Opening { bytes: payload.bytes.clone(), salt: done.salt }));
        }
        metas.push(PayloadMeta {
            commitment: done.commitment,
            bytes: payload.bytes.len() as u64,
            media_type: payload.media_type,
            purpose: payload.purpose,
            subject: payload.subject,
            reuse,
        });
    }
    Ok(SealedPayloads { sealed, metas, recent_payloads })
}

/// Returns whether a payload is read soon: a run's input is read by its executor, and its output by
/// the client that waits for it.
fn is_read_soon(payload: &Payload) -> bool {
    let is_wanted = matches!(
        payload.purpose,
        PayloadPurpose::Input | PayloadPurpose::Output | PayloadPurpose::Result
    );
    is_wanted && payload.bytes.len() <= RECENT_PAYLOAD_BYTES
}
