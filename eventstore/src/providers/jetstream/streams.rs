//! The JetStream streams of a log: created once, and checked whenever the log is opened.

use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, Info, RetentionPolicy, StorageType,
};

use super::api::{ClusterApi, NoAnswerError};
use super::config::{ClusterAddress, Layout};
use super::wire::SubjectNames;
use crate::error::LogError;
use crate::seal::to_hex;

/// Number of tries to read a stream's settings.
const INFO_TRIES: usize = 4;
/// Maximum bytes of a message: a record or a piece of a payload, with headers.
const MESSAGE_BYTES: i32 = 1 << 20;
/// Maximum bytes of derived data.
const DERIVED_BYTES: u64 = 256 << 20;
const KEY_METADATA: &str = "cvg-payload-key";
const FORMAT_METADATA: &str = "cvg-format";
/// Version of subjects, headers, bodies and sealed payloads.
const FORMAT_VERSION: &str = "3";
/// Earlier versions that can be read.
const EARLIER_FORMATS: [&str; 2] = ["1", "2"];

pub(super) fn unanswered_error(error: NoAnswerError) -> LogError {
    LogError::Unavailable(error.0)
}

/// Creates the streams of a new log.
pub(super) async fn create_streams(
    api: &ClusterApi,
    names: &SubjectNames,
    layout: &Layout,
    key: &[u8; 32],
) -> Result<(), LogError> {
    let refuse = |reason: String| Err(LogError::Unavailable(reason));
    if api.stream_info(&names.log).await.map_err(unanswered_error)?.is_some() {
        return refuse(format!("the stream {} exists already", names.log));
    }
    let payloads = api.stream_info(&names.payloads).await.map_err(unanswered_error)?;
    if payloads.is_some_and(|info| info.state.messages > 0) {
        let (log, payloads) = (&names.log, &names.payloads);
        return refuse(format!("{payloads} has payloads and {log} is gone: restore the log"));
    }
    // The log's stream is created last: where it exists, the others do. Streams of an interrupted
    // try are reused.
    let streams = [
        (&names.derived, names.all_derived(), DERIVED_BYTES),
        (&names.payloads, names.all_payloads(), layout.payload_bytes),
        (&names.log, names.all_records(), layout.log_bytes),
    ];
    for (name, subject, bytes) in streams {
        let config = StreamConfig {
            max_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            // Only the newest message of a derived subject counts.
            max_messages_per_subject: if name == &names.derived { 1 } else { -1 },
            metadata: [
                (KEY_METADATA.into(), key_fingerprint(key)),
                (FORMAT_METADATA.into(), FORMAT_VERSION.into()),
            ]
            .into(),
            ..stream_config(name, subject, layout.replicas)
        };
        let created = api.context.create_stream(config).await;
        created.map_err(|error| {
            LogError::Unavailable(format!("the stream {name} cannot be made: {error}"))
        })?;
    }
    Ok(())
}

fn stream_config(name: &str, subject: String, replicas: usize) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        subjects: vec![subject],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        max_message_size: MESSAGE_BYTES,
        allow_direct: true,
        ..StreamConfig::default()
    }
}

/// Reads a stream's settings with retries: while the servers elect a leader nobody replies.
async fn stream_info_retrying(
    api: &ClusterApi,
    stream: &str,
) -> Result<Option<Info>, NoAnswerError> {
    let mut answer = api.stream_info(stream).await;
    for _ in 1..INFO_TRIES {
        match &answer {
            Err(error) if error.0.contains("timed out") && api.is_connected() => {
                answer = api.stream_info(stream).await;
            }
            _ => break,
        }
    }
    answer
}

/// Returns the settings of the log's stream, if all streams exist and are set as they must be.
pub(super) async fn check_streams(
    api: &ClusterApi,
    names: &SubjectNames,
    address: &ClusterAddress,
    key: &[u8; 32],
) -> Result<Info, LogError> {
    let mut found = Vec::new();
    for stream in [&names.payloads, &names.derived, &names.log] {
        let info =
            stream_info_retrying(api, stream).await.map_err(|error| match api.is_connected() {
                true => {
                    LogError::Unavailable(format!("{address} has no JetStream for us: {}", error.0))
                }
                false => unanswered_error(error),
            })?;
        let missing = || {
            LogError::Unavailable(format!(
                "the stream {stream} does not exist on {address}: \
                 make it with `convergio log create`, or restore it from the archive"
            ))
        };
        let info = info.ok_or_else(missing)?;
        check_settings(&info, key)?;
        found.push(raise_format(api, info).await?);
    }
    // The log's stream was checked last.
    found.pop().ok_or_else(|| LogError::Unavailable("no stream".into()))
}

/// Marks a stream of an earlier format as one of this format, so that an older program refuses to
/// open the log instead of misreading new messages.
async fn raise_format(api: &ClusterApi, info: Info) -> Result<Info, LogError> {
    let mut config = info.config.clone();
    let known = config.metadata.insert(FORMAT_METADATA.into(), FORMAT_VERSION.into());
    if known.as_deref() == Some(FORMAT_VERSION) {
        return Ok(info);
    }
    let raised = api.context.update_stream(&config).await;
    raised.map_err(|error| {
        LogError::Unavailable(format!(
            "the stream {} cannot be marked as format {FORMAT_VERSION}: {error}",
            config.name
        ))
    })
}

/// Refuses settings under which an acknowledged record could be lost or a payload not be read.
fn check_settings(info: &Info, key: &[u8; 32]) -> Result<(), LogError> {
    let config = &info.config;
    let wrong =
        |what: &str| Err(LogError::Unavailable(format!("the stream {} {what}", config.name)));
    if config.storage != StorageType::File {
        return wrong("is kept in memory: it must be a file");
    }
    if config.discard != DiscardPolicy::New || !config.max_age.is_zero() {
        return wrong("drops old records: it must have discard=new and no max_age");
    }
    if config.retention != RetentionPolicy::Limits || config.no_ack {
        return wrong("must have retention=limits and acknowledge");
    }
    let format = config.metadata.get(FORMAT_METADATA).map(String::as_str);
    let is_known = |known| known == FORMAT_VERSION || EARLIER_FORMATS.contains(&known);
    if !format.is_some_and(is_known) {
        return wrong("is not a convergio log of format 1 to 3: use the program that wrote it");
    }
    if config.metadata.get(KEY_METADATA).is_none_or(|known| *known != key_fingerprint(key)) {
        return wrong("was made with another payload key: use the same payload.key everywhere");
    }
    Ok(())
}

/// Returns a public fingerprint of a payload key.
fn key_fingerprint(key: &[u8; 32]) -> String {
    to_hex(&blake3::derive_key("convergio payload key fingerprint v1", key)[..16])
}
