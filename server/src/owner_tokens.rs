//! Tokens at the start of a server: the data folder's token is admitted as the owner's, and tokens
//! that an earlier version kept in a file are migrated into the log.

use std::io::ErrorKind;

use convergio_application::{Caller, UseCases};
use convergio_domain::id::{ActorId, Name, TenantId};
use convergio_domain::token::{
    NewAccessToken, OWNER, TokenCommand, TokenHash, TokenNoun, TokenRejection,
};
use convergio_eventstore::{CommitError, LoadedStream, Repository};
use convergio_process::{err_line, exit};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::data_dir::DataDir;

/// Tenant of everything in a data folder.
pub(crate) const TENANT: &str = "default";
/// File of tokens of earlier versions.
const LEGACY_FILE: &str = "tokens.json";
/// New name of that file after its tokens were migrated.
const MIGRATED_FILE: &str = "tokens.json.old";

/// One token of the legacy file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LegacyToken {
    actor: ActorId,
    roles: Vec<Name>,
    blake3: TokenHash,
}

/// Admits the owner's token and migrates a legacy file. Returns the owner's token, and the state of
/// all tokens in the log.
pub(crate) async fn admit_owner(
    data: &DataDir,
    repository: &Repository,
) -> anyhow::Result<(Zeroizing<String>, LoadedStream<TokenNoun>)> {
    migrate_legacy_file(data, repository).await?;
    let token = data.owner_token_or_new()?;
    let admission = |token: &str| TokenCommand::AdmitOwner { hash: TokenHash::from_token(token) };
    match execute_command(repository, admission(&token)).await? {
        Ok(tokens) => Ok((token, tokens)),
        Err(why) => {
            let file = data.token_file();
            // The folder's token was revoked or is not valid: whoever may write to the folder is
            // the owner, and gets a new one.
            err_line!("convergio: the token in {}: {why}; a new one stands there", file.display());
            let token = data.replace_owner_token()?;
            let known = execute_command(repository, admission(&token)).await?;
            let known = known.map_err(|why| exit::unavailable_error(why.to_string()))?;
            Ok((token, known))
        }
    }
}

/// Migrates the tokens of a legacy file into the log, once.
async fn migrate_legacy_file(data: &DataDir, repository: &Repository) -> anyhow::Result<()> {
    let path = data.as_path().join(LEGACY_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(exit::bad_input_error(format!("{LEGACY_FILE} cannot be read: {error}")));
        }
    };
    let entries: Vec<LegacyToken> = serde_json::from_slice(&bytes)
        .map_err(|error| exit::bad_input_error(format!("{}: {error}", path.display())))?;
    for LegacyToken { actor, roles, blake3 } in entries {
        let token = NewAccessToken { actor: actor.clone(), roles, hash: blake3 };
        if let Err(rejection) =
            execute_command(repository, TokenCommand::ImportToken(token)).await?
        {
            err_line!(
                "convergio: the token of {actor} in {LEGACY_FILE} opens nothing any more: \
                 {rejection}"
            );
        }
    }
    // Renamed only after all entries are in the log: a crash before repeats harmless commands.
    let renamed = std::fs::rename(&path, data.as_path().join(MIGRATED_FILE));
    renamed.map_err(|error| exit::unavailable_error(format!("{}: {error}", path.display())))?;
    err_line!(
        "convergio: tokens stand in the log from now on; {LEGACY_FILE} is {MIGRATED_FILE} now"
    );
    Ok(())
}

/// Executes a command on the tokens' stream; the inner error is the domain's rejection.
async fn execute_command(
    repository: &Repository,
    command: TokenCommand,
) -> anyhow::Result<Result<LoadedStream<TokenNoun>, TokenRejection>> {
    let tenant: TenantId = TENANT.parse()?;
    let owner = Caller::new(tenant, OWNER.parse()?);
    match UseCases::new(repository).change_tokens(&owner, command).await {
        Ok(known) => Ok(Ok(known)),
        Err(CommitError::Rejected(why)) => Ok(Err(why)),
        Err(error) => Err(exit::unavailable_error(format!("tokens cannot be admitted: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convergio_domain::token::TokenHash;
    use convergio_eventstore::{MemoryLog, Repository, SystemClock};

    use super::{MIGRATED_FILE, admit_owner};
    use crate::data_dir::DataDir;

    fn repository() -> Repository {
        Repository::new(Arc::new(MemoryLog::new()), Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn an_earlier_file_is_taken_in_once_and_reserved_names_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (data, repository) = (DataDir::from_path(folder.path()), repository());
        let entry = |actor: &str, token: &str| {
            let hash = TokenHash::from_token(token);
            format!(r#"{{"actor": "{actor}", "roles": ["teacher"], "blake3": "{hash}"}}"#)
        };
        let text = format!("[{}, {}]", entry("ann", "cvg_ann"), entry("executor", "cvg_x"));
        data.write_file("tokens.json", text.as_bytes()).unwrap();
        let (owner, known) = admit_owner(&data, &repository).await.unwrap();
        let live: Vec<String> =
            known.state.live_tokens().map(|(_, t)| t.actor.to_string()).collect();
        assert_eq!(live.len(), 2, "{live:?}");
        assert!(live.contains(&"ann".to_owned()) && live.contains(&"owner".to_owned()));
        assert!(
            known.state.live_tokens().any(|(_, known)| known.hash == TokenHash::from_token(&owner))
        );
        let path = |name: &str| folder.path().join(name);
        assert!(path(MIGRATED_FILE).exists() && !path("tokens.json").exists());
        let (again, known_again) = admit_owner(&data, &repository).await.unwrap();
        assert_eq!((again, known_again.head), (owner, known.head));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::from_path(folder.path());
        data.write_file("tokens.json", br#"[{"actor": "x"}]"#).unwrap();
        let error = admit_owner(&data, &repository()).await.err().unwrap().to_string();
        assert!(error.contains("tokens.json") && error.contains("roles"), "{error}");
    }

    #[tokio::test]
    async fn a_revoked_token_in_the_folder_is_replaced() {
        use convergio_domain::decider::DecisionContext;
        use convergio_domain::token::{TokenCaller, TokenCommand, TokenNoun, token_stream};
        let folder = tempfile::tempdir().unwrap();
        let (data, repository) = (DataDir::from_path(folder.path()), repository());
        let (old, known) = admit_owner(&data, &repository).await.unwrap();
        let token = known.state.live_tokens().next().unwrap().0;
        let by = TokenCaller { token, roles: vec!["owner".to_owned()] };
        let hash = TokenHash::from_token("cvg_another");
        let rotate = |_: &_, _| (TokenCommand::Rotate { by: by.clone(), token, hash }, Vec::new());
        let context =
            DecisionContext { now: repository.clock().now(), actor: "owner".parse().unwrap() };
        let stream = token_stream(&"default".parse().unwrap());
        repository.execute::<TokenNoun>(&stream, &context, rotate).await.unwrap();
        let (new, known) = admit_owner(&data, &repository).await.unwrap();
        assert_ne!(new, old);
        assert!(
            known.state.live_tokens().all(|(_, known)| known.hash != TokenHash::from_token(&old))
        );
    }
}
