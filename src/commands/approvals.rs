//! `convergio approvals`: lists, shows and answers questions of runs.

use std::process::ExitCode;

use convergio_process::out_line;
use convergio_process::terminal::{self, print_json};
use convergio_schemas::wire::{ApprovalAnswer, ApprovalView, Decision, Page};
use serde_json::Value;

use crate::cli::{ApprovalsCommand, GlobalOptions};
use crate::target::ServerTarget;
use crate::view;

pub(super) async fn run(
    global: &GlobalOptions,
    command: ApprovalsCommand,
) -> anyhow::Result<ExitCode> {
    let target = ServerTarget::find_or_start(global, false).await?;
    let done = match command {
        ApprovalsCommand::List => list_approvals(global, &target).await,
        ApprovalsCommand::Show { id } => show_approval(global, &target, &id).await,
        ApprovalsCommand::Answer { id, grant, reason, .. } => {
            let decision = if grant { Decision::Grant } else { Decision::Deny };
            answer_approval(global, &target, &id, decision, reason).await
        }
    };
    target.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn list_approvals(global: &GlobalOptions, target: &ServerTarget) -> anyhow::Result<()> {
    let page: Page<ApprovalView> = target.client.get("/v1/approvals", &[]).await?;
    if global.json {
        return print_json(&page);
    }
    let rows = page.items.into_iter().map(|approval| {
        let expires = approval.expires_at.unwrap_or_default();
        vec![approval.id, approval.run_id, approval.step, approval.role, approval.asked_at, expires]
    });
    view::print_rows(&["approval", "run", "step", "role", "asked", "expires"], rows.collect());
    Ok(())
}

async fn fetch_approval(target: &ServerTarget, id: &str) -> anyhow::Result<ApprovalView> {
    target.client.get(&format!("/v1/approvals/{id}"), &[]).await
}

async fn show_approval(
    global: &GlobalOptions,
    target: &ServerTarget,
    id: &str,
) -> anyhow::Result<()> {
    let approval = fetch_approval(target, id).await?;
    if global.json {
        return print_json(&approval);
    }
    out_line!("{} ({}), for a {}", approval.id, approval.state, approval.role);
    out_line!("run {} waits at step {}", approval.run_id, approval.step);
    out_line!("the answer is bound to exactly this content: sha256 {}\n", approval.content_hash);
    match approval.content {
        Some(Value::String(text)) => terminal::print_text(&text),
        Some(value) => terminal::print_json(&value)?,
        None => {}
    }
    Ok(())
}

async fn answer_approval(
    global: &GlobalOptions,
    target: &ServerTarget,
    id: &str,
    decision: Decision,
    reason: Option<String>,
) -> anyhow::Result<()> {
    // The answer is bound to the content that it was fetched with: the server refuses it if the
    // content has changed since.
    let content_hash = fetch_approval(target, id).await?.content_hash;
    let answer = ApprovalAnswer { decision, content_hash, reason };
    let path = format!("/v1/approvals/{id}");
    let approval: ApprovalView = target.client.post_json(&path, &answer, None).await?;
    if global.json {
        return print_json(&approval);
    }
    out_line!("{} is {}", approval.id, approval.state);
    Ok(())
}
