//! Cache of recent payloads by stream, from which deltas of the next ones are made.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::stream::{Seq, StreamKey};

use super::matching::{self, LEAST_QUOTE};
use super::{Base, DEPTH_LIMIT, QUOTES_LIMIT, Quote, Reuse};
use crate::commit::Payload;
use crate::error::LogError;
use crate::log::EventLog;
use crate::record::{Head, PayloadMeta};

/// Minimum bytes of a prompt that is stored as a delta.
const LEAST_PROMPT: usize = 1024;
/// Minimum bytes that a prompt must share with a base.
const LEAST_SHARED: usize = 512;
/// Maximum bytes of text that are searched for copies.
const SEARCHED: usize = 1 << 20;
/// Cached prompts per stream; several agents of a run may alternate.
const PROMPTS: usize = 8;
/// Cached inputs and outputs per stream.
const SOURCES: usize = 16;
/// Maximum bytes of inputs and outputs that one search indexes.
const SOURCE_BYTES: usize = 4 << 20;
/// Maximum bytes of the cache.
const KEPT_BYTES: usize = 64 << 20;
/// Maximum number of streams in the cache.
const STREAMS: usize = 1024;
/// Number of events that are read back of a stream that is not cached.
const LOOK_BACK: u64 = 256;

/// A cached payload.
#[derive(Debug, Clone)]
struct Kept {
    reference: PayloadRef,
    depth: u16,
    subject: Option<String>,
    bytes: Bytes,
}

/// Cached payloads of a stream.
#[derive(Debug, Clone, Default)]
struct Stream {
    prompts: VecDeque<Kept>,
    sources: VecDeque<Kept>,
    /// True if no earlier payload of the stream could be useful and is missing here.
    is_complete: bool,
    bytes: usize,
    used: u64,
}

#[derive(Default)]
struct Streams {
    streams: HashMap<StreamKey, Stream>,
    bytes: usize,
    clock: u64,
}

/// Thread-safe cache of recent payloads, least recently used streams evicted first.
#[derive(Default)]
pub(crate) struct Recent {
    streams: Mutex<Streams>,
}

/// Deltas of a commit's payloads, and the cache entry that becomes valid with the commit.
#[derive(Default)]
pub(crate) struct Planned {
    pub(crate) reuse: Vec<Option<Reuse>>,
    stream: Option<Stream>,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds deltas of a commit's payloads against earlier ones. `next` is the sequence number of
    /// its first event.
    pub(crate) async fn plan(
        &self,
        log: &dyn EventLog,
        key: &StreamKey,
        head: Option<Head>,
        next: Seq,
        payloads: &[Payload],
    ) -> Planned {
        if payloads.iter().all(|payload| !is_kept(payload.purpose, payload.bytes.len())) {
            return Planned::default();
        }
        let fresh = || Stream { is_complete: head.is_none(), ..Stream::default() };
        // A copy, because the new payloads become valid only if the commit succeeds.
        let mut stream = self.lock().streams.get(key).cloned().unwrap_or_else(fresh);
        if let (false, Some(head)) = (stream.is_complete, head)
            && payloads.iter().any(is_prompt)
        {
            // Best effort: if reading back fails, the prompt is stored whole.
            stream = read_back(log, key, head.seq).await.unwrap_or(stream);
        }
        let mut reuse = Vec::with_capacity(payloads.len());
        for (slot, payload) in (0_u16..).zip(payloads) {
            let reference = PayloadSlot(slot).at(next);
            let shared = if is_prompt(payload) { stream.shared(payload) } else { None };
            let depth = shared.as_ref().and_then(|s| s.base.as_ref()).map_or(0, |base| base.depth);
            let (subject, bytes) = (payload.subject.clone(), payload.bytes.clone());
            stream.keep(payload.purpose, Kept { reference, depth, subject, bytes });
            reuse.push(shared);
        }
        Planned { reuse, stream: Some(stream) }
    }

    /// Applies a plan once its commit is in the log; only then may later payloads refer to it.
    pub(crate) fn written(&self, key: &StreamKey, planned: Planned) {
        let Some(mut stream) = planned.stream else { return };
        let mut streams = self.lock();
        streams.clock += 1;
        stream.used = streams.clock;
        streams.bytes += stream.bytes;
        if let Some(before) = streams.streams.insert(key.clone(), stream) {
            streams.bytes -= before.bytes;
        }
        while streams.bytes > KEPT_BYTES || streams.streams.len() > STREAMS {
            let oldest = streams.streams.iter().min_by_key(|(_, stream)| stream.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            let gone = streams.streams.remove(&oldest).map_or(0, |stream| stream.bytes);
            streams.bytes -= gone;
        }
    }

    /// Removes a stream: no later payload refers to what it holds.
    pub(crate) fn forget(&self, key: &StreamKey) {
        let mut streams = self.lock();
        let gone = streams.streams.remove(key).map_or(0, |stream| stream.bytes);
        streams.bytes -= gone;
    }
}

fn is_prompt(payload: &Payload) -> bool {
    payload.purpose == Purpose::Prompt && payload.bytes.len() >= LEAST_PROMPT
}

fn is_kept(purpose: Purpose, bytes: usize) -> bool {
    match purpose {
        Purpose::Prompt => bytes >= LEAST_PROMPT,
        Purpose::Input | Purpose::Output => (LEAST_QUOTE..=SOURCE_BYTES).contains(&bytes),
        _ => false,
    }
}

impl Stream {
    fn keep(&mut self, purpose: Purpose, kept: Kept) {
        if !is_kept(purpose, kept.bytes.len()) {
            return;
        }
        self.bytes += kept.bytes.len();
        let (list, limit) = match purpose {
            Purpose::Prompt => (&mut self.prompts, PROMPTS),
            _ => (&mut self.sources, SOURCES),
        };
        list.push_back(kept);
        if list.len() > limit {
            self.bytes -= list.pop_front().map_or(0, |kept| kept.bytes.len());
        }
    }

    /// Finds the delta of a prompt. Only payloads about the same person are combined, since they
    /// are erased together.
    fn shared(&self, payload: &Payload) -> Option<Reuse> {
        let text = &payload.bytes;
        let usable = self
            .prompts
            .iter()
            .filter(|kept| kept.depth + 1 < DEPTH_LIMIT && kept.subject == payload.subject);
        let measured = usable.map(|kept| (kept, matching::ends(&kept.bytes, text)));
        let best = measured.max_by_key(|(_, (prefix, suffix))| prefix + suffix);
        let best = best.filter(|(_, (prefix, suffix))| prefix + suffix >= LEAST_SHARED);
        let (prefix, suffix) = best.as_ref().map_or((0, 0), |(_, ends)| *ends);
        let base = best.map(|(kept, _)| Base {
            from: kept.reference,
            prefix: prefix as u64,
            suffix: suffix as u64,
            depth: kept.depth + 1,
        });
        let quotes =
            self.quotes(&text[prefix..text.len() - suffix], prefix, payload, base.as_ref());
        (base.is_some() || !quotes.is_empty()).then_some(Reuse { base, quotes })
    }

    /// Finds copies in the part that the base does not hold, in the newest sources first. Older
    /// sources than the base are part of its text.
    fn quotes(
        &self,
        text: &[u8],
        begin: usize,
        payload: &Payload,
        base: Option<&Base>,
    ) -> Vec<Quote> {
        if !(LEAST_QUOTE..=SEARCHED).contains(&text.len()) {
            return Vec::new();
        }
        let mut left = SOURCE_BYTES;
        let usable = self.sources.iter().rev().filter(|kept| {
            kept.subject == payload.subject && base.is_none_or(|base| kept.reference > base.from)
        });
        let usable: Vec<&Kept> = usable
            .take_while(|kept| {
                let fits = kept.bytes.len() <= left;
                left = left.saturating_sub(kept.bytes.len());
                fits
            })
            .collect();
        let sources: Vec<&[u8]> = usable.iter().map(|kept| &*kept.bytes).collect();
        let found = matching::quotes(text, &sources, QUOTES_LIMIT);
        let quote = |part: matching::Found| Quote {
            from: usable[part.source].reference,
            start: part.start as u64,
            at: (begin + part.at) as u64,
            bytes: part.bytes as u64,
        };
        found.into_iter().map(quote).collect()
    }
}

/// Reads back the last payloads of a stream that another process wrote, or that was evicted.
async fn read_back(log: &dyn EventLog, key: &StreamKey, head: Seq) -> Result<Stream, LogError> {
    let after = Seq(head.0.saturating_sub(LOOK_BACK));
    let records = log.read_stream(key, after, usize::try_from(LOOK_BACK).unwrap_or(256)).await?;
    let mut named: Vec<(PayloadRef, PayloadMeta)> = Vec::new();
    for record in &records {
        let metas = (0_u16..).zip(&record.body.payloads);
        named.extend(
            metas.map(|(slot, meta)| (PayloadSlot(slot).at(record.first_seq()), meta.clone())),
        );
    }
    named.retain(|(_, meta)| {
        is_kept(meta.purpose, usize::try_from(meta.bytes).unwrap_or(usize::MAX))
    });
    let newest = |is_wanted: &dyn Fn(&PayloadMeta) -> bool, limit: usize| {
        let wanted = named.iter().rev().filter(|(_, meta)| is_wanted(meta)).take(limit);
        wanted.map(|(reference, _)| *reference).min()
    };
    // One prompt suffices: it is the base of the next one.
    let first = [
        newest(&|meta| meta.purpose == Purpose::Prompt, 1),
        newest(&|meta| meta.purpose != Purpose::Prompt, SOURCES),
    ];
    let mut stream = Stream { is_complete: true, ..Stream::default() };
    for (reference, meta) in named {
        let from = first[usize::from(meta.purpose != Purpose::Prompt)];
        if from.is_none_or(|from| reference < from) {
            continue;
        }
        let Some(bytes) = log.payload(key, reference).await? else { continue };
        let depth = meta.reuse.and_then(|reuse| reuse.base).map_or(0, |base| base.depth);
        stream.keep(meta.purpose, Kept { reference, depth, subject: meta.subject, bytes });
    }
    Ok(stream)
}
