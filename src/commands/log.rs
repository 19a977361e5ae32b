//! `convergio log`: making a log in a cluster, and checking chains.

use std::process::ExitCode;

use convergio_eventstore::jetstream::{JetStreamLog, Layout};
use serde_json::json;

use super::print_json;
use crate::cli::{CreateArgs, Global, LogCommand};
use crate::data_dir::DataDir;
use crate::exit;
use crate::log_place::LogPlace;

pub(super) async fn run(global: &Global, command: LogCommand) -> anyhow::Result<ExitCode> {
    match command {
        LogCommand::Verify => verify(global).await,
        LogCommand::Create(args) => create(global, &args).await,
    }
}

async fn verify(global: &Global) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref());
    let log = LogPlace::find(global)?.open(&data).await?;
    let verified = log.verify().await;
    log.shared().close().await?;
    match verified {
        Ok((records, events)) => {
            match global.json {
                true => print_json(&json!({"ok": true, "records": records, "events": events}))?,
                false => println!("every chain holds: {records} records, {events} events"),
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            match global.json {
                true => print_json(&json!({"ok": false, "error": error.to_string()}))?,
                false => println!("{error}"),
            }
            Ok(ExitCode::from(exit::FAILED))
        }
    }
}

async fn create(global: &Global, args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let LogPlace::Cluster { address, promise } = LogPlace::find(global)? else {
        return Err(exit::bad_input(
            "a log in the data folder is made by `convergio serve`; name a cluster: --log nats://…",
        ));
    };
    let data = DataDir::find(global.data.as_deref());
    data.create()?;
    let config = LogPlace::config(&address, promise, data.payload_key_or_new()?);
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
        false => println!(
            "the log {address} is made; copy {} to the data folder of every process",
            key.display()
        ),
    }
    Ok(ExitCode::SUCCESS)
}
