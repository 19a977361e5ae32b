//! Writing a run's file, a record at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_domain::event::Event;
use convergio_domain::graph::GraphNoun;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::stream::{Seq, StreamKey};
use futures_util::stream::{self, Stream};
use serde_json::value::RawValue;

use super::FORMAT;
use super::line::{GraphLine, Header, Line, PayloadLine, RecordLine};
use crate::error::LogError;
use crate::record::{Head, Record, chain};
use crate::repository::Repository;
use crate::seal::{Opening, hex};

/// Records read at once.
const PAGE: usize = 64;

struct Exporter {
    repository: Repository,
    stream: StreamKey,
    end: Head,
    payloads: bool,
    read: VecDeque<Arc<Record>>,
    at: Seq,
    graph: Option<GraphId>,
    written: BTreeSet<GraphVersion>,
}

/// The file of a run as it stands, in pieces that end with a line; `None` if there is no such run.
///
/// # Errors
/// The log cannot be read; while pieces are made: also that a manifest was erased, or that a record
/// is of an older form, whose bytes are not at hand.
pub async fn export(
    repository: Repository,
    run: StreamKey,
    payloads: bool,
) -> Result<Option<impl Stream<Item = Result<Bytes, LogError>> + Send>, LogError> {
    let Some(end) = repository.log().head(&run).await? else { return Ok(None) };
    let header = Header {
        format: FORMAT,
        tenant: run.tenant.clone(),
        run: RunId(run.id),
        seq: end.seq,
        hash: hex(&end.hash),
        payloads,
    };
    let mut first = Vec::new();
    push(&mut first, &Line::Run(header))?;
    let exporter = Exporter {
        repository,
        stream: run,
        end,
        payloads,
        read: VecDeque::new(),
        at: Seq(0),
        graph: None,
        written: BTreeSet::new(),
    };
    let pieces = stream::try_unfold(exporter, async |mut exporter: Exporter| {
        Ok(exporter.piece().await?.map(|piece| (piece, exporter)))
    });
    let first = stream::iter([Ok(Bytes::from(first))]);
    Ok(Some(futures_util::StreamExt::chain(first, pieces)))
}

impl Exporter {
    /// The lines of the next record.
    async fn piece(&mut self) -> Result<Option<Bytes>, LogError> {
        if self.read.is_empty() && self.at < self.end.seq {
            let log = self.repository.log();
            self.read = log.read_stream(&self.stream, self.at, PAGE).await?.into();
        }
        // What was appended since the header was written is not in the file.
        let next = self.read.pop_front().filter(|record| record.last_seq() <= self.end.seq);
        let Some(record) = next else { return Ok(None) };
        self.at = record.last_seq();
        let mut lines = Vec::new();
        self.graphs(&record, &mut lines).await?;
        self.record(&record, &mut lines).await?;
        Ok(Some(Bytes::from(lines)))
    }

    /// Graph versions that the record names and none before it did.
    async fn graphs(&mut self, record: &Record, lines: &mut Vec<u8>) -> Result<(), LogError> {
        for event in &record.body.events {
            let version = match event {
                Event::RunCreated(created) => {
                    self.graph = Some(created.graph);
                    &created.version
                }
                Event::RunMigrated(migrated) => &migrated.to,
                _ => continue,
            };
            let Some(graph) = self.graph else { continue };
            if self.written.insert(version.clone()) {
                let manifest = self.manifest(graph, version).await?;
                let text = std::str::from_utf8(&manifest).unwrap_or_default();
                let manifest: &RawValue = serde_json::from_str(text)
                    .map_err(|error| LogError::corrupt(&format!("graph {graph}"), &error))?;
                let version = version.clone();
                push(lines, &Line::Graph(GraphLine { graph, version, manifest }))?;
            }
        }
        Ok(())
    }

    async fn manifest(&self, graph: GraphId, version: &GraphVersion) -> Result<Bytes, LogError> {
        let stream = StreamKey::graph(self.stream.tenant.clone(), graph);
        let loaded = self.repository.load::<GraphNoun>(&stream).await?;
        let missing = |what: &str| LogError::corrupt(&stream, &format!("{version} {what}"));
        let reference = loaded.state.versions.get(version);
        let reference = *reference.ok_or_else(|| missing("is not registered"))?;
        let manifest = self.repository.payload(&stream, reference).await?;
        manifest.ok_or_else(|| missing("was erased: the run cannot be exported without it"))
    }

    async fn record(&self, record: &Record, lines: &mut Vec<u8>) -> Result<(), LogError> {
        let body = record.body.canonical();
        let body = body.map_err(|error| LogError::corrupt(&record.stream, &error))?;
        if chain(&record.prev_hash, &body) != record.hash {
            let reason = "it was written in an older form, which cannot be exported";
            return Err(LogError::corrupt(&record.stream, reason));
        }
        let body: &RawValue = serde_json::from_slice(&body)
            .map_err(|error| LogError::corrupt(&record.stream, &error))?;
        let (prev_hash, hash) = (hex(&record.prev_hash), hex(&record.hash));
        let recorded_at = record.recorded_at;
        push(lines, &Line::Record(RecordLine { prev_hash, hash, recorded_at, body }))?;
        for (index, meta) in (0_u16..).zip(&record.body.payloads) {
            // Without what models were chosen from, the choice could not be made again.
            if !self.payloads && meta.purpose != Purpose::Candidates {
                continue;
            }
            let reference = PayloadSlot(index).at(record.first_seq());
            let opening = self.repository.log().opening(&record.stream, reference).await?;
            if let Some(opening) = opening {
                push(lines, &Line::Payload(payload(reference, &opening)))?;
            }
        }
        Ok(())
    }
}

fn payload(reference: PayloadRef, opening: &Opening) -> PayloadLine {
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    let text = std::str::from_utf8(&opening.bytes).ok().filter(|text| !text.contains(odd));
    let base64 = text.is_none().then(|| STANDARD.encode(&opening.bytes));
    PayloadLine { reference, salt: hex(&opening.salt), text: text.map(str::to_owned), base64 }
}

fn push(lines: &mut Vec<u8>, line: &Line<'_>) -> Result<(), LogError> {
    serde_json::to_writer(&mut *lines, line)
        .map_err(|error| LogError::corrupt("a line of an export", &error))?;
    lines.push(b'\n');
    Ok(())
}
