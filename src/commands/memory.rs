//! `convergio memory`: lists, recalls, stores and forgets memories of a subject.

use std::process::ExitCode;

use convergio_schemas::wire::{MemoryForgotten, MemoryStored, MemoryView, NewMemory, Page};

use super::print_json;
use crate::cli::{Global, MemoryCommand};
use crate::target::Target;
use crate::terminal;
use crate::view;

const PATH: &str = "/v1/memories";

pub(super) async fn run(global: &Global, command: MemoryCommand) -> anyhow::Result<ExitCode> {
    let target = Target::find(global, false).await?;
    let done = match command {
        MemoryCommand::List { subject, limit } => {
            let query = [("subject", subject), ("limit", limit.to_string())];
            show(global, &target, &query).await
        }
        MemoryCommand::Recall { subject, query, tokens } => {
            let query = [("subject", subject), ("query", query), ("tokens", tokens.to_string())];
            show(global, &target, &query).await
        }
        MemoryCommand::Store { subject, text, importance } => {
            store(global, &target, &NewMemory { subject, text, importance }).await
        }
        MemoryCommand::Forget { subject, id } => forget(global, &target, &subject, &id).await,
    };
    target.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn show(global: &Global, target: &Target, query: &[(&str, String)]) -> anyhow::Result<()> {
    let page: Page<MemoryView> = target.client.get(PATH, query).await?;
    if global.json {
        return print_json(&page);
    }
    let rows = page.items.into_iter().map(|memory| {
        let score = memory.score.map(|score| format!("{score:.3}")).unwrap_or_default();
        let text = terminal::shorten_line(&memory.text.replace('\n', " "), 80);
        vec![memory.id, memory.stored_at, memory.importance.to_string(), score, text]
    });
    view::table(&["memory", "stored", "importance", "score", "text"], rows.collect());
    Ok(())
}

async fn store(global: &Global, target: &Target, memory: &NewMemory) -> anyhow::Result<()> {
    let stored: MemoryStored = target.client.post(PATH, memory, None).await?;
    if global.json {
        return print_json(&stored);
    }
    out_line!("{}", stored.id);
    Ok(())
}

async fn forget(global: &Global, target: &Target, subject: &str, id: &str) -> anyhow::Result<()> {
    let query = [("subject", subject.to_owned())];
    let path = format!("{PATH}/{id}");
    let done: MemoryForgotten = target.client.delete(&path, &query).await?;
    if global.json {
        return print_json(&done);
    }
    let word = if done.forgotten { "is forgotten" } else { "was forgotten before" };
    out_line!("{} {word}", done.id);
    Ok(())
}
