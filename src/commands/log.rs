//! `convergio log`: creates a log in a cluster, verifies and prints chains, and handles archives.

use std::path::Path;
use std::process::ExitCode;

use convergio_domain::payload::PayloadSlot;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::archive::{self, ImportMode, Inventory};
use convergio_eventstore::jetstream::{JetStreamLog, Layout};
use convergio_eventstore::{AppendError, EventLog, LogError, LogVerification, Position, Record};
use convergio_process::terminal::{self, print_json};
use convergio_process::{exit, out_line};
use convergio_server::LogLocation;
use convergio_server::data_dir::DataDir;
use serde_json::{Value, json};

use crate::cli::{GlobalOptions, LogCommand, LogCreateArgs};

/// Records read at once.
const PAGE_RECORDS: usize = 512;

pub(super) async fn run(global: &GlobalOptions, command: LogCommand) -> anyhow::Result<ExitCode> {
    match command {
        LogCommand::Verify { archive: None, payloads } => verify_log(global, payloads).await,
        LogCommand::Verify { archive: Some(folder), .. } => {
            print_inventory(global, archive::verify_archive(&folder), |found| {
                format!("every file and chain holds: {}", inventory_text(found))
            })
        }
        LogCommand::Print { payloads } => print_records(global, payloads).await,
        LogCommand::Create(args) => create_log(global, &args).await,
        LogCommand::Export { folder, stream, tenant } => {
            let tenant =
                tenant.parse().map_err(|error| exit::bad_input_error(format!("{error}")))?;
            let stream = stream.map(|name| StreamKey::parse_name(tenant, &name)).transpose();
            let stream = stream.map_err(|error| exit::bad_input_error(error.to_string()))?;
            export_archive(global, &folder, stream.as_ref()).await
        }
        LogCommand::Import { folder } => import_archive(global, &folder, ImportMode::Merge).await,
        LogCommand::Restore { folder } => {
            import_archive(global, &folder, ImportMode::Restore).await
        }
        LogCommand::Backup { to } => backup_log(global, &to),
    }
}

async fn verify_log(global: &GlobalOptions, payloads: bool) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    let log = LogLocation::from_options(&global.log)?.open(&data).await?.as_log_writer();
    let verified = convergio_eventstore::verify_log(&*log, payloads).await;
    log.close().await?;
    match verified {
        Ok(found) if payloads => {
            let LogVerification { records, events, payloads, erased } = found;
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
            let verified = verified.map(|LogVerification { records, events, .. }| Inventory {
                segments: 0,
                records,
                events,
            });
            print_inventory(global, verified, |found| {
                format!("every chain holds: {}", inventory_text(found))
            })
        }
    }
}

/// Prints every record, decoded, as a line of JSON.
async fn print_records(global: &GlobalOptions, payloads: bool) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    let log = LogLocation::from_options(&global.log)?.open(&data).await?.as_log_writer();
    let mut at = Position::START;
    loop {
        let page = log.read_all(at, PAGE_RECORDS).await?;
        if page.records.is_empty() {
            break;
        }
        for record in &page.records {
            let mut line = serde_json::to_value(&record.body)?;
            if payloads {
                line["contents"] = payload_contents(&*log, record).await?;
            }
            terminal::print_json_line(&line)?;
        }
        at = page.next;
    }
    log.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// Contents of a record's payloads in their order; null for erased ones.
async fn payload_contents(log: &dyn EventLog, record: &Record) -> anyhow::Result<Value> {
    let mut contents = Vec::with_capacity(record.body.payloads.len());
    for index in 0..record.body.payloads.len() {
        let reference = PayloadSlot(u16::try_from(index)?).to_payload_ref(record.body.seq);
        let bytes = log.read_payload(&record.stream, reference).await?;
        contents.push(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(json!(contents))
}

/// Prints an inventory, or the error that a check found; an error ends with exit code 1.
fn print_inventory(
    global: &GlobalOptions,
    inventory: Result<Inventory, LogError>,
    describe: impl Fn(&Inventory) -> String,
) -> anyhow::Result<ExitCode> {
    match (inventory, global.json) {
        (Ok(Inventory { segments, records, events }), true) => {
            print_json(&json!({"ok": true, "files": segments, "records": records,
                "events": events}))?;
            Ok(ExitCode::SUCCESS)
        }
        (Ok(found), false) => {
            out_line!("{}", describe(&found));
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

fn inventory_text(Inventory { records, events, .. }: &Inventory) -> String {
    format!("{records} records, {events} events")
}

async fn export_archive(
    global: &GlobalOptions,
    folder: &Path,
    stream: Option<&StreamKey>,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    let log = LogLocation::from_options(&global.log)?.open(&data).await?.as_log_writer();
    let key = data.payload_key()?;
    let added = archive::export_archive(&*log, &key, folder, stream).await;
    log.close().await?;
    print_inventory(global, added, |added| {
        format!("{} added to {}", inventory_text(added), folder.display())
    })
}

async fn import_archive(
    global: &GlobalOptions,
    folder: &Path,
    mode: ImportMode,
) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    data.create_folder()?;
    let log = LogLocation::from_options(&global.log)?.open(&data).await?.as_log_writer();
    let key = data.payload_key()?;
    let imported = archive::import_archive(&*log, &key, folder, mode).await;
    log.close().await?;
    // An archive without a signature of the payload key may be anybody's: its runs do not start by
    // themselves.
    let is_authentic = imported.as_ref().is_ok_and(|done| done.is_authentic);
    let inventory = imported.map(|done| done.inventory).map_err(|error| match error {
        AppendError::Corrupt { at, reason } => LogError::Corrupt { at, reason },
        other => LogError::Unavailable(other.to_string()),
    });
    print_inventory(global, inventory, |held| match (is_authentic, mode) {
        (true, _) => format!("the log holds all of it: {}", inventory_text(held)),
        (false, ImportMode::Restore) => format!(
            "the log holds all of it: {}; who wrote the archive is not known: it is of an earlier \
            program",
            inventory_text(held)
        ),
        (false, ImportMode::Merge) => format!(
            "the log holds all of it: {}; who wrote the archive is not known: it is of an earlier \
            program, so its runs rest until they are paused and resumed",
            inventory_text(held)
        ),
    })
}

fn backup_log(global: &GlobalOptions, to: &Path) -> anyhow::Result<ExitCode> {
    let data = DataDir::find_folder(global.data.as_deref())?;
    archive::backup_embedded(data.as_path(), to)
        .map_err(|error| exit::unavailable_error(error.to_string()))?;
    match global.json {
        true => print_json(&json!({"copied": to}))?,
        false => out_line!("copied to {}; check it: convergio log verify --data {0}", to.display()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn create_log(global: &GlobalOptions, args: &LogCreateArgs) -> anyhow::Result<ExitCode> {
    let LogLocation::Cluster(place) = LogLocation::from_options(&global.log)? else {
        return Err(exit::bad_input_error(
            "a log in the data folder is made by `convergio serve`; name a cluster: --log nats://…",
        ));
    };
    let data = DataDir::find_folder(global.data.as_deref())?;
    data.create_folder()?;
    // The key is created here once; every other process of the log needs a copy of it.
    let config = place.to_config(*data.payload_key_or_new()?);
    let address = &place.address;
    let layout = Layout {
        replicas: args.replicas,
        log_bytes: args.log_gib << 30,
        payload_bytes: args.payload_gib << 30,
    };
    let created = JetStreamLog::create_log(&config, &layout).await;
    created.map_err(|error| exit::unavailable_error(error.to_string()))?;
    let key = data.as_path().join("payload.key");
    match global.json {
        true => print_json(&json!({"log": address.to_string(), "payload_key": key}))?,
        false => out_line!(
            "the log {address} is made; copy {} to the data folder of every process",
            key.display()
        ),
    }
    Ok(ExitCode::SUCCESS)
}
