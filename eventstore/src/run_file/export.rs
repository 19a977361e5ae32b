//! Exporting a run file, a record at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_domain::decider::Decider;
use convergio_domain::event::Event;
use convergio_domain::graph::GraphNoun;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::run::Run;
use convergio_domain::stream::{Seq, StreamKey};
use futures_util::stream::{self, Stream};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::line::{
    AncestorLine, GraphLine, PayloadLine, RecordLine, RunFileHeader, RunFileLine, SignatureLine,
};
use super::{FORMAT, UNSIGNED_FORMAT};
use crate::error::LogError;
use crate::record::{Record, chain_hash};
use crate::repository::Repository;
use crate::seal::{Opening, to_hex};
use crate::signature::ExportSigner;

/// Records per read; small, since their payloads are read too.
const PAGE_RECORDS: usize = 64;

/// State of an export between two pieces.
struct RunExporter {
    repository: Repository,
    /// Streams that are still to be written, the oldest first, each up to an event.
    streams: VecDeque<(StreamKey, Seq)>,
    includes_payloads: bool,
    buffered: VecDeque<Arc<Record>>,
    written_seq: Seq,
    current_graph: Option<GraphId>,
    written_versions: BTreeSet<GraphVersion>,
    /// Hash of all lines so far.
    hasher: Sha256,
    /// Signer; taken when the signature is written.
    signer: Option<ExportSigner>,
}

/// Exports a run as it is now, in pieces that end with a line; `None` if there is no such run.
///
/// # Errors
/// The log cannot be read. While pieces are produced also: a manifest was erased, or a record was
/// written in an older event version, whose bytes cannot be reproduced.
pub async fn export_run(
    repository: Repository,
    run: StreamKey,
    payloads: bool,
) -> Result<Option<impl Stream<Item = Result<Bytes, LogError>> + Send>, LogError> {
    let Some(end) = repository.event_log().stream_head(&run).await? else { return Ok(None) };
    let signer = repository.event_log().export_signer();
    let header = RunFileHeader {
        format: if signer.is_some() { FORMAT } else { UNSIGNED_FORMAT },
        tenant: run.tenant.clone(),
        run: RunId(run.id),
        seq: end.seq,
        hash: to_hex(&end.hash),
        payloads,
    };
    let mut first = Vec::new();
    push_line(&mut first, &RunFileLine::Run(header))?;
    let streams = run_history(&repository, run, end.seq).await?;
    if streams.len() > 1 {
        push_ancestor(&streams[0], &mut first)?;
    }
    let exporter = RunExporter {
        repository,
        streams,
        includes_payloads: payloads,
        buffered: VecDeque::new(),
        written_seq: Seq(0),
        current_graph: None,
        written_versions: BTreeSet::new(),
        hasher: Sha256::new_with_prefix(&first),
        signer,
    };
    let pieces = stream::try_unfold(exporter, async |mut exporter: RunExporter| {
        Ok(exporter.next_piece().await?.map(|piece| (piece, exporter)))
    });
    let first = stream::iter([Ok(Bytes::from(first))]);
    Ok(Some(futures_util::StreamExt::chain(first, pieces)))
}

/// Lists the streams of a run's history, the oldest ancestor first, each up to the inherited event.
async fn run_history(
    repository: &Repository,
    run: StreamKey,
    end: Seq,
) -> Result<VecDeque<(StreamKey, Seq)>, LogError> {
    let mut streams = VecDeque::from([(run, end)]);
    while let Some((oldest, _)) = streams.front() {
        let records = repository.event_log().read_stream(oldest, Seq(0), 1).await?;
        let first = records.first().and_then(|record| record.body.events.first());
        let Some(from) = first.and_then(Run::inherited_history) else { break };
        streams.push_front((StreamKey { id: from.id, ..oldest.clone() }, from.seq));
    }
    Ok(streams)
}

/// Writes the line before an ancestor's records.
fn push_ancestor((stream, seq): &(StreamKey, Seq), lines: &mut Vec<u8>) -> Result<(), LogError> {
    push_line(lines, &RunFileLine::Ancestor(AncestorLine { run: RunId(stream.id), seq: *seq }))
}

impl RunExporter {
    /// Produces the next piece: the lines of a record, and finally the signature.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, LogError> {
        if let Some(piece) = self.next_record_lines().await? {
            self.hasher.update(&piece);
            return Ok(Some(piece));
        }
        let Some(signer) = self.signer.take() else { return Ok(None) };
        let hash = std::mem::take(&mut self.hasher).finalize().into();
        let (key, signature) = (to_hex(&signer.public_key()), to_hex(&signer.sign_content(&hash)));
        let mut line = Vec::new();
        push_line(&mut line, &RunFileLine::Signature(SignatureLine { key, signature }))?;
        Ok(Some(Bytes::from(line)))
    }

    /// Produces the lines of the next record.
    async fn next_record_lines(&mut self) -> Result<Option<Bytes>, LogError> {
        let mut lines = Vec::new();
        self.next_stream(&mut lines)?;
        let Some((stream, end)) = self.streams.front() else { return Ok(None) };
        if self.buffered.is_empty() && self.written_seq < *end {
            self.buffered = self
                .repository
                .event_log()
                .read_stream(stream, self.written_seq, PAGE_RECORDS)
                .await?
                .into();
        }
        // Records that were appended after the header was written are not part of the file.
        let next = self.buffered.pop_front().filter(|record| record.last_seq() <= *end);
        let Some(record) = next else { return Ok(None) };
        self.written_seq = record.last_seq();
        self.push_graphs(&record, &mut lines).await?;
        self.push_record(&record, &mut lines).await?;
        Ok(Some(Bytes::from(lines)))
    }

    /// Moves to the next stream when one is written.
    fn next_stream(&mut self, lines: &mut Vec<u8>) -> Result<(), LogError> {
        let is_written = self.streams.front().is_some_and(|(_, end)| self.written_seq >= *end);
        if !is_written || self.streams.len() == 1 {
            return Ok(());
        }
        self.streams.pop_front();
        self.buffered.clear();
        self.written_seq = Seq(0);
        match self.streams.front().filter(|_| self.streams.len() > 1) {
            Some(ancestor) => push_ancestor(ancestor, lines),
            None => Ok(()),
        }
    }

    /// Writes the graph versions that a record is the first to name.
    async fn push_graphs(&mut self, record: &Record, lines: &mut Vec<u8>) -> Result<(), LogError> {
        for event in &record.body.events {
            let Event::Run(event) = event else { continue };
            let Some((graph, version)) = event.chosen_version() else { continue };
            self.current_graph = graph.or(self.current_graph);
            let Some(graph) = self.current_graph else { continue };
            if self.written_versions.insert(version.clone()) {
                let manifest = self.read_manifest(&record.stream, graph, version).await?;
                let text = std::str::from_utf8(&manifest).unwrap_or_default();
                let manifest: &RawValue = serde_json::from_str(text)
                    .map_err(|error| LogError::corrupt(&format!("graph {graph}"), &error))?;
                let version = version.clone();
                push_line(lines, &RunFileLine::Graph(GraphLine { graph, version, manifest }))?;
            }
        }
        Ok(())
    }

    async fn read_manifest(
        &self,
        run: &StreamKey,
        graph: GraphId,
        version: &GraphVersion,
    ) -> Result<Bytes, LogError> {
        let stream = StreamKey::for_graph(run.tenant.clone(), graph);
        let loaded = self.repository.load::<GraphNoun>(&stream).await?;
        let missing = |what: &str| LogError::corrupt(&stream, &format!("{version} {what}"));
        let reference = loaded.state.versions.get(version);
        let reference = *reference.ok_or_else(|| missing("is not registered"))?;
        let manifest = self.repository.read_payload(&stream, reference).await?;
        manifest.ok_or_else(|| missing("was erased: the run cannot be exported without it"))
    }

    async fn push_record(&self, record: &Record, lines: &mut Vec<u8>) -> Result<(), LogError> {
        let body = record.body.to_canonical_json();
        let body = body.map_err(|error| LogError::corrupt(&record.stream, &error))?;
        // Events are upcast when decoded, so an older record does not encode to its original bytes.
        if chain_hash(&record.prev_hash, &body) != record.hash {
            let reason = "it was written in an older form, which cannot be exported";
            return Err(LogError::corrupt(&record.stream, reason));
        }
        let body: &RawValue = serde_json::from_slice(&body)
            .map_err(|error| LogError::corrupt(&record.stream, &error))?;
        let (prev_hash, hash) = (to_hex(&record.prev_hash), to_hex(&record.hash));
        let recorded_at = record.recorded_at;
        push_line(lines, &RunFileLine::Record(RecordLine { prev_hash, hash, recorded_at, body }))?;
        for (index, meta) in (0_u16..).zip(&record.body.payloads) {
            // Router candidates are always exported: without them the choice of a model cannot be
            // replayed.
            if !self.includes_payloads && meta.purpose != PayloadPurpose::Candidates {
                continue;
            }
            let reference = PayloadSlot(index).to_payload_ref(record.first_seq());
            let opening =
                self.repository.event_log().open_payload(&record.stream, reference).await?;
            if let Some(opening) = opening {
                push_line(lines, &RunFileLine::Payload(to_payload_line(reference, &opening)))?;
            }
        }
        Ok(())
    }
}

fn to_payload_line(reference: PayloadRef, opening: &Opening) -> PayloadLine {
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    let text = std::str::from_utf8(&opening.bytes).ok().filter(|text| !text.contains(odd));
    let base64 = text.is_none().then(|| STANDARD.encode(&opening.bytes));
    PayloadLine { reference, salt: to_hex(&opening.salt), text: text.map(str::to_owned), base64 }
}

fn push_line(lines: &mut Vec<u8>, line: &RunFileLine<'_>) -> Result<(), LogError> {
    serde_json::to_writer(&mut *lines, line)
        .map_err(|error| LogError::corrupt("a line of an export", &error))?;
    lines.push(b'\n');
    Ok(())
}
