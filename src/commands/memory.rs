//! `convergio memory`: lists, recalls, stores and forgets memories of a subject.

use std::process::ExitCode;

use convergio_process::out_line;
use convergio_process::terminal::{self, print_json};
use convergio_schemas::wire::{MemoryForgotten, MemoryStored, MemoryView, NewMemory, Page};

use crate::cli::{GlobalOptions, MemoryCommand};
use crate::target::ServerTarget;
use crate::view;

const MEMORIES_PATH: &str = "/v1/memories";

pub(super) async fn run(
    global: &GlobalOptions,
    command: MemoryCommand,
) -> anyhow::Result<ExitCode> {
    let target = ServerTarget::find_or_start(global, false).await?;
    let done = match command {
        MemoryCommand::List { subject, limit } => {
            let query = [("subject", subject), ("limit", limit.to_string())];
            show_memories(global, &target, &query).await
        }
        MemoryCommand::Recall { subject, query, tokens } => {
            let query = [("subject", subject), ("query", query), ("tokens", tokens.to_string())];
            show_memories(global, &target, &query).await
        }
        MemoryCommand::Store { subject, text, importance } => {
            store_memory(global, &target, &NewMemory { subject, text, importance }).await
        }
        MemoryCommand::Forget { subject, id } => {
            forget_memory(global, &target, &subject, &id).await
        }
    };
    target.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn show_memories(
    global: &GlobalOptions,
    target: &ServerTarget,
    query: &[(&str, String)],
) -> anyhow::Result<()> {
    let page: Page<MemoryView> = target.client.get(MEMORIES_PATH, query).await?;
    if global.json {
        return print_json(&page);
    }
    let rows = page.items.into_iter().map(|memory| {
        let score = memory.score.map(|score| format!("{score:.3}")).unwrap_or_default();
        let text = terminal::shorten_line(&memory.text.replace('\n', " "), 80);
        vec![memory.id, memory.stored_at, memory.importance.to_string(), score, text]
    });
    view::print_rows(&["memory", "stored", "importance", "score", "text"], rows.collect());
    Ok(())
}

async fn store_memory(
    global: &GlobalOptions,
    target: &ServerTarget,
    memory: &NewMemory,
) -> anyhow::Result<()> {
    let stored: MemoryStored = target.client.post_json(MEMORIES_PATH, memory, None).await?;
    if global.json {
        return print_json(&stored);
    }
    out_line!("{}", stored.id);
    Ok(())
}

async fn forget_memory(
    global: &GlobalOptions,
    target: &ServerTarget,
    subject: &str,
    id: &str,
) -> anyhow::Result<()> {
    let query = [("subject", subject.to_owned())];
    let path = format!("{MEMORIES_PATH}/{id}");
    let done: MemoryForgotten = target.client.delete_resource(&path, &query).await?;
    if global.json {
        return print_json(&done);
    }
    let word = if done.forgotten { "is forgotten" } else { "was forgotten before" };
    out_line!("{} {word}", done.id);
    Ok(())
}
