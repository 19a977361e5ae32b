//! `convergio tokens`: tokens of people and programs. They are created here; the server gets
//! hashes.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use convergio_domain::id::ActorId;
use convergio_domain::token::TokenHash;
use convergio_eventstore::private_files::PartialFile;
use convergio_process::terminal::print_json;
use convergio_process::{err_line, exit, out_line};
use convergio_schemas::wire::{NewToken, Page, TokenRotation, TokenView};
use convergio_server::data_dir::{create_token, token_file_content};
use serde_json::json;

use crate::cli::{GlobalOptions, TokensCommand};
use crate::target::ServerTarget;
use crate::view;

pub(super) async fn run(
    global: &GlobalOptions,
    command: TokensCommand,
) -> anyhow::Result<ExitCode> {
    let target = ServerTarget::find_or_start(global, false).await?;
    let done = match command {
        TokensCommand::New { actor, roles } => {
            let roles = roles.iter().map(ToString::to_string).collect();
            issue_token(global, &target, &actor, roles).await
        }
        TokensCommand::List => list_tokens(global, &target).await,
        TokensCommand::Rotate { actor: Some(actor) } if actor.as_str() != "owner" => {
            rotate_actor_token(global, &target, &actor).await
        }
        TokensCommand::Rotate { .. } => rotate_own_token(global, &target).await,
        TokensCommand::Revoke { actor } => revoke_token(global, &target, &actor).await,
    };
    target.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn issue_token(
    global: &GlobalOptions,
    target: &ServerTarget,
    actor: &ActorId,
    roles: Vec<String>,
) -> anyhow::Result<()> {
    let token = create_token()?;
    let blake3 = TokenHash::from_token(&token).to_string();
    let new = NewToken { actor: actor.to_string(), roles, blake3 };
    let issued: TokenView = target.client.post_json("/v1/tokens", &new, None).await?;
    print_new_token(global, &issued, &token)
}

async fn rotate_actor_token(
    global: &GlobalOptions,
    target: &ServerTarget,
    actor: &ActorId,
) -> anyhow::Result<()> {
    let token = create_token()?;
    let path = format!("/v1/tokens/{actor}/rotate");
    let issued: TokenView = target.client.post_json(&path, &rotation_request(&token), None).await?;
    print_new_token(global, &issued, &token)
}

/// Rotates the token that this command signs in with; it stays in the file that it came from.
async fn rotate_own_token(global: &GlobalOptions, target: &ServerTarget) -> anyhow::Result<()> {
    let token = create_token()?;
    let (path, rotation) =
        (format!("/v1/tokens/{}/rotate", target.client.token_id()), rotation_request(&token));
    let rotated = target.client.post_json(&path, &rotation, None);
    // A token from an argument or the environment has no file: it is printed once instead.
    let Some(file) = &target.token_file else {
        return print_new_token(global, &rotated.await?, &token);
    };
    let unwritable =
        |error: std::io::Error| exit::unavailable_error(format!("cannot write {file:?}: {error}"));
    // The new token must be on the disk before the server revokes the old one.
    let mut partial = PartialFile::create_beside(file).map_err(unwritable)?;
    partial.write_all(token_file_content(&token).as_bytes()).map_err(unwritable)?;
    let rotated: TokenView = rotated.await?;
    partial.persist().map_err(unwritable)?;
    print_rotation(global, &rotated, file)
}

fn rotation_request(token: &str) -> TokenRotation {
    TokenRotation { blake3: TokenHash::from_token(token).to_string() }
}

fn print_rotation(global: &GlobalOptions, rotated: &TokenView, file: &Path) -> anyhow::Result<()> {
    let TokenView { id, actor, .. } = rotated;
    match global.json {
        true => print_json(&json!({"id": id, "actor": actor, "token_file": file}))?,
        false => out_line!("{actor} has a new token in {file:?}; the old one opens nothing"),
    }
    Ok(())
}

/// Prints a new token: alone on standard output, so that it can be redirected into a file.
fn print_new_token(global: &GlobalOptions, issued: &TokenView, token: &str) -> anyhow::Result<()> {
    let TokenView { id, actor, .. } = issued;
    if global.json {
        return print_json(&json!({"id": id, "actor": actor, "token": token}));
    }
    out_line!("{token}");
    err_line!("It is not shown again, and opens what it may from now on.");
    Ok(())
}

async fn list_tokens(global: &GlobalOptions, target: &ServerTarget) -> anyhow::Result<()> {
    let page: Page<TokenView> = target.client.get("/v1/tokens", &[]).await?;
    if global.json {
        return print_json(&page);
    }
    let row =
        |token: TokenView| vec![token.actor, token.roles.join(", "), token.issued_at, token.id];
    view::print_rows(
        &["actor", "roles", "issued", "token id"],
        page.items.into_iter().map(row).collect(),
    );
    Ok(())
}

async fn revoke_token(
    global: &GlobalOptions,
    target: &ServerTarget,
    whose: &str,
) -> anyhow::Result<()> {
    // The text becomes part of a path: anything else could lead to another endpoint.
    let is_name_character = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    if whose.is_empty() || !whose.chars().all(is_name_character) {
        return Err(exit::bad_input_error(format!(
            "{whose:?} is neither a name nor the id of a token"
        )));
    }
    let revoked: TokenView =
        target.client.delete_resource(&format!("/v1/tokens/{whose}"), &[]).await?;
    match global.json {
        true => print_json(&revoked)?,
        false => out_line!("the token of {} opens nothing any more", revoked.actor),
    }
    Ok(())
}
