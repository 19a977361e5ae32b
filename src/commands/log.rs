//! `convergio log`: creates a log in a cluster, verifies and prints chains, and handles archives.

use std::path::Path;
use std::process::ExitCode;

use convergio_domain::payload::PayloadSlot;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::archive::{self, Import, Inventory};
use convergio_eventstore::jetstream::{JetStreamLog, Layout};
use convergio_eventstore::{AppendError, EventLog, LogError, Position, Record, Verified};
use serde_json::{Value, json};

use super::print_json;
use crate::cli::{CreateArgs, Global, LogCommand};
use crate::data_dir::DataDir;
use crate::exit;
use crate::log_place::LogPlace;
use crate::terminal;

/// Records read at once.
const PRINT_PAGE: usize = 512;

pub(super) async fn run(global: &Global, command: LogCommand) -> anyhow::Result<ExitCode> {
    match command {
        LogCommand::Verify { archive: None, payloads } => verify(global, payloads).await,
        LogCommand::Verify { archive: Some(folder), .. } => {
            told(global, archive::verify(&folder), |found| {
                format!("every file and chain holds: {}", shown(found))
            })
        }
        LogCommand::Print { payloads } => print(global, payloads).await,
        LogCommand::Create(args) => create(global, &args).await,
        LogCommand::Export { folder, stream, tenant } => {
            let tenant = tenant.parse().map_err(|error| exit::bad_input(format!("{error}")))?;
            let stream = stream.map(|name| StreamKey::parse(tenant, &name)).transpose();
            let stream = stream.map_err(|error| exit::bad_input(error.to_string()))?;
            export(global, &folder, stream.as_ref()).await
        }
        LogCommand::Import { folder } => import(global, &folder, Import::Merge).await,
        LogCommand::Restore { folder } => import(global, &folder, Import::Restore).await,
        LogCommand::Backup { to } => backup(global, &to),
    }
}

async fn verify(global: &Global, payloads: bool) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    let log = LogPlace::find(global)?.open(&data).await?.shared();
    let verified = convergio_eventstore::verify(&*log, payloads).await;
    log.close().await?;
    match verified {
        Ok(found) if payloads => {
            let Verified { records, events, payloads, erased } = found;
            match global.json {
                true => print_json(&json!({"ok": true, "files": 0, "records": records,
                    "events": events, "payloads": payloads, "erased": erased}))?,
                false => out_line!(
                    "every chain and payload holds: {records} records, {events} events, \
                     {payloads} payloads, {erased} erased"
                ),
            }
            Ok(ExitCode::SUCCESS)
        }
        verified => {
            let verified = verified.map(|Verified { records, events, .. }| Inventory {
                segments: 0,
                records,
                events,
            });
            told(global, verified, |found| format!("every chain holds: {}", shown(found)))
        }
    }
}

/// Prints every record, decoded, as a line of JSON.
async fn print(global: &Global, payloads: bool) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    let log = LogPlace::find(global)?.open(&data).await?.shared();
    let mut at = Position::START;
    loop {
        let page = log.read_all(at, PRINT_PAGE).await?;
        if page.records.is_empty() {
            break;
        }
        for record in &page.records {
            let mut line = serde_json::to_value(&record.body)?;
            if payloads {
                line["contents"] = contents(&*log, record).await?;
            }
            terminal::print_json_line(&line)?;
        }
        at = page.next;
    }
    log.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// Contents of a record's payloads in their order; null for erased ones.
async fn contents(log: &dyn EventLog, record: &Record) -> anyhow::Result<Value> {
    let mut contents = Vec::with_capacity(record.body.payloads.len());
    for index in 0..record.body.payloads.len() {
        let reference = PayloadSlot(u16::try_from(index)?).at(record.body.seq);
        let bytes = log.payload(&record.stream, reference).await?;
        contents.push(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(json!(contents))
}

/// Prints an inventory, or the error that a check found; an error ends with exit code 1.
fn told(
    global: &Global,
    found: Result<Inventory, LogError>,
    text: impl Fn(&Inventory) -> String,
) -> anyhow::Result<ExitCode> {
    match (found, global.json) {
        (Ok(Inventory { segments, records, events }), true) => {
            print_json(&json!({"ok": true, "files": segments, "records": records,
                "events": events}))?;
            Ok(ExitCode::SUCCESS)
        }
        (Ok(found), false) => {
            out_line!("{}", text(&found));
            Ok(ExitCode::SUCCESS)
        }
        (Err(error), json) => {
            match json {
                true => print_json(&json!({"ok": false, "error": error.to_string()}))?,
                false => out_line!("{error}"),
            }
            Ok(ExitCode::from(exit::FAILED))
        }
    }
}

fn shown(Inventory { records, events, .. }: &Inventory) -> String {
    format!("{records} records, {events} events")
}

async fn export(
    global: &Global,
    folder: &Path,
    stream: Option<&StreamKey>,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    let log = LogPlace::find(global)?.open(&data).await?.shared();
    let key = data.payload_key()?;
    let added = archive::export(&*log, &key, folder, stream).await;
    log.close().await?;
    told(global, added, |added| format!("{} added to {}", shown(added), folder.display()))
}

async fn import(global: &Global, folder: &Path, how: Import) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    data.create()?;
    let log = LogPlace::find(global)?.open(&data).await?.shared();
    let key = data.payload_key()?;
    let done = archive::import(&*log, &key, folder, how).await;
    log.close().await?;
    // An archive without a signature of the payload key may be anybody's: its runs do not start by
    // themselves.
    let is_authentic = done.as_ref().is_ok_and(|done| done.is_authentic);
    let held = done.map(|done| done.held).map_err(|error| match error {
        AppendError::Corrupt { at, reason } => LogError::Corrupt { at, reason },
        other => LogError::Unavailable(other.to_string()),
    });
    told(global, held, |held| match (is_authentic, how) {
        (true, _) => format!("the log holds all of it: {}", shown(held)),
        (false, Import::Restore) => format!(
            "the log holds all of it: {}; who wrote the archive is not known: it is of an earlier \
            program",
            shown(held)
        ),
        (false, Import::Merge) => format!(
            "the log holds all of it: {}; who wrote the archive is not known: it is of an earlier \
            program, so its runs rest until they are paused and resumed",
            shown(held)
        ),
    })
}

fn backup(global: &Global, to: &Path) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref())?;
    archive::backup_embedded(data.path(), to)
        .map_err(|error| exit::unavailable(error.to_string()))?;
    match global.json {
        true => print_json(&json!({"copied": to}))?,
        false => out_line!("copied to {}; check it: convergio log verify --data {0}", to.display()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(global: &Global, args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let LogPlace::Cluster(place) = LogPlace::find(global)? else {
        return Err(exit::bad_input(
            "a log in the data folder is made by `convergio serve`; name a cluster: --log nats://…",
        ));
    };
    let data = DataDir::find(global.data.as_deref())?;
    data.create()?;
    // The key is created here once; every other process of the log needs a copy of it.
    let config = place.config(*data.payload_key_or_new()?);
    let address = &place.address;
    let layout = Layout {
        replicas: args.replicas,
        log_bytes: args.log_gib << 30,
        payload_bytes: args.payload_gib << 30,
    };
    let made = JetStreamLog::create(&config, &layout).await;
    made.map_err(|error| exit::unavailable(error.to_string()))?;
    let key = data.path().join("payload.key");
    match global.json {
        true => print_json(&json!({"log": address.to_string(), "payload_key": key}))?,
        false => out_line!(
            "the log {address} is made; copy {} to the data folder of every process",
            key.display()
        ),
    }
    Ok(ExitCode::SUCCESS)
}
