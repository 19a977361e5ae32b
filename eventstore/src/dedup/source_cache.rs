//! Cache of recent payloads by stream, from which deltas of the next ones are made.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::stream::{Seq, StreamKey};

use super::matching::{self, MINIMUM_COPY_BYTES};
use super::{COPIES_LIMIT, DEPTH_LIMIT, DeltaBase, DeltaCopy, PayloadDelta};
use crate::commit::Payload;
use crate::error::LogError;
use crate::log::EventLog;
use crate::record::{PayloadMeta, StreamHead};

/// Minimum bytes of a prompt that is stored as a delta.
const MINIMUM_PROMPT_BYTES: usize = 1024;
/// Minimum bytes that a prompt must share with a base.
const MINIMUM_SHARED_BYTES: usize = 512;
/// Maximum bytes of text that are searched for copies.
const SEARCH_LIMIT_BYTES: usize = 1 << 20;
/// Cached prompts per stream; several agents of a run may alternate.
const PROMPTS_PER_STREAM: usize = 8;
/// Cached inputs and outputs per stream.
const SOURCES_PER_STREAM: usize = 16;
/// Maximum bytes of inputs and outputs that one search indexes.
const SOURCE_BYTES: usize = 4 << 20;
/// Maximum bytes of the cache.
const CACHE_BYTES: usize = 64 << 20;
/// Maximum number of streams in the cache.
const CACHED_STREAMS: usize = 1024;
/// Number of events that are read back of a stream that is not cached.
const LOOK_BACK_EVENTS: u64 = 256;

/// A cached payload.
#[derive(Debug, Clone)]
struct SourcePayload {
    reference: PayloadRef,
    depth: u16,
    subject: Option<String>,
    bytes: Bytes,
}

/// Cached payloads of a stream.
#[derive(Debug, Clone, Default)]
struct StreamSources {
    prompts: VecDeque<SourcePayload>,
    sources: VecDeque<SourcePayload>,
    /// True if no earlier payload of the stream could be useful and is missing here.
    is_complete: bool,
    bytes: usize,
    last_used: u64,
}

#[derive(Default)]
struct CachedStreams {
    streams: HashMap<StreamKey, StreamSources>,
    bytes: usize,
    use_counter: u64,
}

/// Thread-safe cache of recent payloads, least recently used streams evicted first.
#[derive(Default)]
pub(crate) struct DeltaSourceCache {
    streams: Mutex<CachedStreams>,
}

/// Deltas of a commit's payloads, and the cache entry that becomes valid with the commit.
#[derive(Default)]
pub(crate) struct DeltaPlan {
    pub(crate) deltas: Vec<Option<PayloadDelta>>,
    sources: Option<StreamSources>,
}

impl DeltaSourceCache {
    fn lock_streams(&self) -> MutexGuard<'_, CachedStreams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds deltas of a commit's payloads against earlier ones. `next` is the sequence number of
    /// its first event.
    pub(crate) async fn plan_deltas(
        &self,
        log: &dyn EventLog,
        key: &StreamKey,
        head: Option<StreamHead>,
        next: Seq,
        payloads: &[Payload],
    ) -> DeltaPlan {
        if payloads.iter().all(|payload| !is_cacheable(payload.purpose, payload.bytes.len())) {
            return DeltaPlan::default();
        }
        let fresh = || StreamSources { is_complete: head.is_none(), ..StreamSources::default() };
        // A copy, because the new payloads become valid only if the commit succeeds.
        let mut stream = self.lock_streams().streams.get(key).cloned().unwrap_or_else(fresh);
        if let (false, Some(head)) = (stream.is_complete, head)
            && payloads.iter().any(is_prompt)
        {
            // Best effort: if reading back fails, the prompt is stored whole.
            stream = read_back_sources(log, key, head.seq).await.unwrap_or(stream);
        }
        let mut reuse = Vec::with_capacity(payloads.len());
        for (slot, payload) in (0_u16..).zip(payloads) {
            let reference = PayloadSlot(slot).to_payload_ref(next);
            let shared = if is_prompt(payload) { stream.find_delta(payload) } else { None };
            let depth = shared.as_ref().and_then(|s| s.base.as_ref()).map_or(0, |base| base.depth);
            let (subject, bytes) = (payload.subject.clone(), payload.bytes.clone());
            stream.add_payload(payload.purpose, SourcePayload { reference, depth, subject, bytes });
            reuse.push(shared);
        }
        DeltaPlan { deltas: reuse, sources: Some(stream) }
    }

    /// Applies a plan once its commit is in the log; only then may later payloads refer to it.
    pub(crate) fn apply_plan(&self, key: &StreamKey, planned: DeltaPlan) {
        let Some(mut stream) = planned.sources else { return };
        let mut streams = self.lock_streams();
        streams.use_counter += 1;
        stream.last_used = streams.use_counter;
        streams.bytes += stream.bytes;
        if let Some(before) = streams.streams.insert(key.clone(), stream) {
            streams.bytes -= before.bytes;
        }
        while streams.bytes > CACHE_BYTES || streams.streams.len() > CACHED_STREAMS {
            let oldest = streams.streams.iter().min_by_key(|(_, stream)| stream.last_used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            let gone = streams.streams.remove(&oldest).map_or(0, |stream| stream.bytes);
            streams.bytes -= gone;
        }
    }

    /// Removes a stream: no later payload refers to what it holds.
    pub(crate) fn forget_stream(&self, key: &StreamKey) {
        let mut streams = self.lock_streams();
        let gone = streams.streams.remove(key).map_or(0, |stream| stream.bytes);
        streams.bytes -= gone;
    }
}

fn is_prompt(payload: &Payload) -> bool {
    payload.purpose == PayloadPurpose::Prompt && payload.bytes.len() >= MINIMUM_PROMPT_BYTES
}

fn is_cacheable(purpose: PayloadPurpose, bytes: usize) -> bool {
    match purpose {
        PayloadPurpose::Prompt => bytes >= MINIMUM_PROMPT_BYTES,
        PayloadPurpose::Input | PayloadPurpose::Output => {
            (MINIMUM_COPY_BYTES..=SOURCE_BYTES).contains(&bytes)
        }
        _ => false,
    }
}

impl StreamSources {
    fn add_payload(&mut self, purpose: PayloadPurpose, kept: SourcePayload) {
        if !is_cacheable(purpose, kept.bytes.len()) {
            return;
        }
        self.bytes += kept.bytes.len();
        let (list, limit) = match purpose {
            PayloadPurpose::Prompt => (&mut self.prompts, PROMPTS_PER_STREAM),
            _ => (&mut self.sources, SOURCES_PER_STREAM),
        };
        list.push_back(kept);
        if list.len() > limit {
            self.bytes -= list.pop_front().map_or(0, |kept| kept.bytes.len());
        }
    }

    /// Finds the delta of a prompt. Only payloads about the same person are combined, since they
    /// are erased together.
    fn find_delta(&self, payload: &Payload) -> Option<PayloadDelta> {
        let text = &payload.bytes;
        let usable = self
            .prompts
            .iter()
            .filter(|kept| kept.depth + 1 < DEPTH_LIMIT && kept.subject == payload.subject);
        let measured = usable.map(|kept| (kept, matching::common_ends(&kept.bytes, text)));
        let best = measured.max_by_key(|(_, (prefix, suffix))| prefix + suffix);
        let best = best.filter(|(_, (prefix, suffix))| prefix + suffix >= MINIMUM_SHARED_BYTES);
        let (prefix, suffix) = best.as_ref().map_or((0, 0), |(_, ends)| *ends);
        let base = best.map(|(kept, _)| DeltaBase {
            from: kept.reference,
            prefix: prefix as u64,
            suffix: suffix as u64,
            depth: kept.depth + 1,
        });
        let quotes =
            self.find_copies(&text[prefix..text.len() - suffix], prefix, payload, base.as_ref());
        (base.is_some() || !quotes.is_empty()).then_some(PayloadDelta { base, quotes })
    }

    /// Finds copies in the part that the base does not hold, in the newest sources first. Older
    /// sources than the base are part of its text.
    fn find_copies(
        &self,
        text: &[u8],
        begin: usize,
        payload: &Payload,
        base: Option<&DeltaBase>,
    ) -> Vec<DeltaCopy> {
        if !(MINIMUM_COPY_BYTES..=SEARCH_LIMIT_BYTES).contains(&text.len()) {
            return Vec::new();
        }
        let mut left = SOURCE_BYTES;
        let usable = self.sources.iter().rev().filter(|kept| {
            kept.subject == payload.subject && base.is_none_or(|base| kept.reference > base.from)
        });
        let usable: Vec<&SourcePayload> = usable
            .take_while(|kept| {
                let fits = kept.bytes.len() <= left;
                left = left.saturating_sub(kept.bytes.len());
                fits
            })
            .collect();
        let sources: Vec<&[u8]> = usable.iter().map(|kept| &*kept.bytes).collect();
        let found = matching::find_matches(text, &sources, COPIES_LIMIT);
        let quote = |part: matching::TextMatch| DeltaCopy {
            from: usable[part.source].reference,
            start: part.source_start as u64,
            at: (begin + part.text_start) as u64,
            bytes: part.bytes as u64,
        };
        found.into_iter().map(quote).collect()
    }
}

/// Reads back the last payloads of a stream that another process wrote, or that was evicted.
async fn read_back_sources(
    log: &dyn EventLog,
    key: &StreamKey,
    head: Seq,
) -> Result<StreamSources, LogError> {
    let after = Seq(head.0.saturating_sub(LOOK_BACK_EVENTS));
    let records =
        log.read_stream(key, after, usize::try_from(LOOK_BACK_EVENTS).unwrap_or(256)).await?;
    let mut named: Vec<(PayloadRef, PayloadMeta)> = Vec::new();
    for record in &records {
        let metas = (0_u16..).zip(&record.body.payloads);
        named.extend(metas.map(|(slot, meta)| {
            (PayloadSlot(slot).to_payload_ref(record.first_seq()), meta.clone())
        }));
    }
    named.retain(|(_, meta)| {
        is_cacheable(meta.purpose, usize::try_from(meta.bytes).unwrap_or(usize::MAX))
    });
    let newest = |is_wanted: &dyn Fn(&PayloadMeta) -> bool, limit: usize| {
        let wanted = named.iter().rev().filter(|(_, meta)| is_wanted(meta)).take(limit);
        wanted.map(|(reference, _)| *reference).min()
    };
    // One prompt suffices: it is the base of the next one.
    let first = [
        newest(&|meta| meta.purpose == PayloadPurpose::Prompt, 1),
        newest(&|meta| meta.purpose != PayloadPurpose::Prompt, SOURCES_PER_STREAM),
    ];
    let mut stream = StreamSources { is_complete: true, ..StreamSources::default() };
    for (reference, meta) in named {
        let from = first[usize::from(meta.purpose != PayloadPurpose::Prompt)];
        if from.is_none_or(|from| reference < from) {
            continue;
        }
        let Some(bytes) = log.read_payload(key, reference).await? else { continue };
        let depth = meta.reuse.and_then(|reuse| reuse.base).map_or(0, |base| base.depth);
        stream.add_payload(
            meta.purpose,
            SourcePayload { reference, depth, subject: meta.subject, bytes },
        );
    }
    Ok(stream)
}
