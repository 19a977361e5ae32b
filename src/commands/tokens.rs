//! `convergio tokens`: people besides the owner of the data folder.

use std::process::ExitCode;

use serde_json::json;

use super::print_json;
use crate::cli::{Global, TokensCommand};
use crate::data_dir::DataDir;
use crate::{exit, people, view};

pub(super) fn run(global: &Global, command: TokensCommand) -> anyhow::Result<ExitCode> {
    let data = DataDir::find(global.data.as_deref());
    match command {
        TokensCommand::New { actor, roles } => {
            let token = people::add(&data, actor.clone(), roles)?;
            match global.json {
                true => print_json(&json!({"actor": actor, "token": token}))?,
                false => out_line!(
                    "{token}\nIt is not shown again. A server takes it from its next start on."
                ),
            }
        }
        TokensCommand::List => {
            let people = people::list(&data)?;
            let shown = |person: &people::Person| {
                let roles: Vec<&str> = person.roles.iter().map(|role| role.as_str()).collect();
                (person.actor.to_string(), roles.join(", "))
            };
            let rows = people.iter().map(shown);
            match global.json {
                true => print_json(&rows.collect::<Vec<_>>())?,
                false => {
                    view::table(&["actor", "roles"], rows.map(|(a, b)| vec![a, b]).collect());
                }
            }
        }
        TokensCommand::Revoke { actor } => {
            if !people::remove(&data, &actor)? {
                return Err(exit::bad_input(format!("`{actor}` has no token")));
            }
            out_line!("{actor} has no token from the server's next start on");
        }
    }
    Ok(ExitCode::SUCCESS)
}
