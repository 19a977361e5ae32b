//! `convergio approvals`: lists, shows and answers questions of runs.

use std::process::ExitCode;

use convergio_schemas::wire::{ApprovalAnswer, ApprovalView, Decision, Page};
use serde_json::Value;

use super::print_json;
use crate::cli::{ApprovalsCommand, Global};
use crate::target::Target;
use crate::terminal;
use crate::view;

pub(super) async fn run(global: &Global, command: ApprovalsCommand) -> anyhow::Result<ExitCode> {
    let target = Target::find(global, false).await?;
    let done = match command {
        ApprovalsCommand::List => list(global, &target).await,
        ApprovalsCommand::Show { id } => show(global, &target, &id).await,
        ApprovalsCommand::Answer { id, grant, reason, .. } => {
            let decision = if grant { Decision::Grant } else { Decision::Deny };
            answer(global, &target, &id, decision, reason).await
        }
    };
    target.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn list(global: &Global, target: &Target) -> anyhow::Result<()> {
    let page: Page<ApprovalView> = target.client.get("/v1/approvals", &[]).await?;
    if global.json {
        return print_json(&page);
    }
    let rows = page.items.into_iter().map(|asked| {
        let expires = asked.expires_at.unwrap_or_default();
        vec![asked.id, asked.run_id, asked.step, asked.role, asked.asked_at, expires]
    });
    view::table(&["approval", "run", "step", "role", "asked", "expires"], rows.collect());
    Ok(())
}

async fn fetch(target: &Target, id: &str) -> anyhow::Result<ApprovalView> {
    target.client.get(&format!("/v1/approvals/{id}"), &[]).await
}

async fn show(global: &Global, target: &Target, id: &str) -> anyhow::Result<()> {
    let asked = fetch(target, id).await?;
    if global.json {
        return print_json(&asked);
    }
    out_line!("{} ({}), for a {}", asked.id, asked.state, asked.role);
    out_line!("run {} waits at step {}", asked.run_id, asked.step);
    out_line!("the answer is bound to exactly this content: sha256 {}\n", asked.content_hash);
    match asked.content {
        Some(Value::String(text)) => terminal::print_text(&text),
        Some(value) => terminal::print_json(&value)?,
        None => {}
    }
    Ok(())
}

async fn answer(
    global: &Global,
    target: &Target,
    id: &str,
    decision: Decision,
    reason: Option<String>,
) -> anyhow::Result<()> {
    // The answer is bound to the content that it was fetched with: the server refuses it if the
    // content has changed since.
    let content_hash = fetch(target, id).await?.content_hash;
    let answer = ApprovalAnswer { decision, content_hash, reason };
    let path = format!("/v1/approvals/{id}");
    let asked: ApprovalView = target.client.post(&path, &answer, None).await?;
    if global.json {
        return print_json(&asked);
    }
    out_line!("{} is {}", asked.id, asked.state);
    Ok(())
}
