//! Tokens at the start of a server: the data folder's token is admitted as the owner's, and tokens
//! that an earlier version kept in a file are migrated into the log.

use std::io::ErrorKind;

use convergio_domain::decider::Context;
use convergio_domain::id::{ActorId, Name, TenantId};
use convergio_domain::token::{self, Command, NewToken, OWNER, Rejection, TokenHash, Tokens};
use convergio_eventstore::{CommitError, Loaded, Repository};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::data_dir::DataDir;
use crate::exit;

/// Tenant of everything in a data folder.
pub(crate) const TENANT: &str = "default";
/// File of tokens of earlier versions.
const FILE: &str = "tokens.json";
/// New name of that file after its tokens were migrated.
const TAKEN_IN: &str = "tokens.json.old";

/// One token of the legacy file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    actor: ActorId,
    roles: Vec<Name>,
    blake3: TokenHash,
}

/// Admits the owner's token and migrates a legacy file. Returns the owner's token, and the state of
/// all tokens in the log.
pub(crate) async fn admit(
    data: &DataDir,
    repository: &Repository,
) -> anyhow::Result<(Zeroizing<String>, Loaded<Tokens>)> {
    take_in_file(data, repository).await?;
    let token = data.token_or_new()?;
    let admission = |token: &str| Command::AdmitOwner { hash: TokenHash::of(token) };
    match execute(repository, admission(&token)).await? {
        Ok(known) => Ok((token, known)),
        Err(why) => {
            let file = data.token_file();
            // The folder's token was revoked or is not valid: whoever may write to the folder is
            // the owner, and gets a new one.
            err_line!("convergio: the token in {}: {why}; a new one stands there", file.display());
            let token = data.replace_token()?;
            let known = execute(repository, admission(&token)).await?;
            let known = known.map_err(|why| exit::unavailable(why.to_string()))?;
            Ok((token, known))
        }
    }
}

/// Migrates the tokens of a legacy file into the log, once.
async fn take_in_file(data: &DataDir, repository: &Repository) -> anyhow::Result<()> {
    let path = data.path().join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(exit::bad_input(format!("{FILE} cannot be read: {error}"))),
    };
    let entries: Vec<Entry> = serde_json::from_slice(&bytes)
        .map_err(|error| exit::bad_input(format!("{}: {error}", path.display())))?;
    for Entry { actor, roles, blake3 } in entries {
        let token = NewToken { actor: actor.clone(), roles, hash: blake3 };
        if let Err(why) = execute(repository, Command::TakeIn(token)).await? {
            err_line!("convergio: the token of {actor} in {FILE} opens nothing any more: {why}");
        }
    }
    // Renamed only after all entries are in the log: a crash before repeats harmless commands.
    let renamed = std::fs::rename(&path, data.path().join(TAKEN_IN));
    renamed.map_err(|error| exit::unavailable(format!("{}: {error}", path.display())))?;
    err_line!("convergio: tokens stand in the log from now on; {FILE} is {TAKEN_IN} now");
    Ok(())
}

/// Executes a command on the tokens' stream; the inner error is the domain's rejection.
async fn execute(
    repository: &Repository,
    command: Command,
) -> anyhow::Result<Result<Loaded<Tokens>, Rejection>> {
    let tenant: TenantId = TENANT.parse()?;
    let context = Context { now: repository.clock().now(), actor: OWNER.parse()? };
    let asked = |_: &_, _| (command.clone(), Vec::new());
    match repository.execute::<Tokens>(&token::stream(&tenant), &context, asked).await {
        Ok(known) => Ok(Ok(known)),
        Err(CommitError::Rejected(why)) => Ok(Err(why)),
        Err(error) => Err(exit::unavailable(format!("tokens cannot be admitted: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convergio_domain::token::TokenHash;
    use convergio_eventstore::{MemoryLog, Repository, SystemClock};

    use super::{TAKEN_IN, admit};
    use crate::data_dir::DataDir;

    fn repository() -> Repository {
        Repository::new(Arc::new(MemoryLog::new()), Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn an_earlier_file_is_taken_in_once_and_reserved_names_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (data, repository) = (DataDir::named(folder.path()), repository());
        let entry = |actor: &str, token: &str| {
            let hash = TokenHash::of(token);
            format!(r#"{{"actor": "{actor}", "roles": ["teacher"], "blake3": "{hash}"}}"#)
        };
        let text = format!("[{}, {}]", entry("ann", "cvg_ann"), entry("executor", "cvg_x"));
        data.write("tokens.json", text.as_bytes()).unwrap();
        let (owner, known) = admit(&data, &repository).await.unwrap();
        let live: Vec<String> = known.state.live().map(|(_, t)| t.actor.to_string()).collect();
        assert_eq!(live.len(), 2, "{live:?}");
        assert!(live.contains(&"ann".to_owned()) && live.contains(&"owner".to_owned()));
        assert!(known.state.live().any(|(_, known)| known.hash == TokenHash::of(&owner)));
        let path = |name: &str| folder.path().join(name);
        assert!(path(TAKEN_IN).exists() && !path("tokens.json").exists());
        let (again, known_again) = admit(&data, &repository).await.unwrap();
        assert_eq!((again, known_again.head), (owner, known.head));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::named(folder.path());
        data.write("tokens.json", br#"[{"actor": "x"}]"#).unwrap();
        let error = admit(&data, &repository()).await.err().unwrap().to_string();
        assert!(error.contains("tokens.json") && error.contains("roles"), "{error}");
    }

    #[tokio::test]
    async fn a_revoked_token_in_the_folder_is_replaced() {
        use convergio_domain::decider::Context;
        use convergio_domain::token::{Caller, Command, Tokens, stream};
        let folder = tempfile::tempdir().unwrap();
        let (data, repository) = (DataDir::named(folder.path()), repository());
        let (old, known) = admit(&data, &repository).await.unwrap();
        let token = known.state.live().next().unwrap().0;
        let by = Caller { token, roles: vec!["owner".to_owned()] };
        let hash = TokenHash::of("cvg_another");
        let rotate = |_: &_, _| (Command::Rotate { by: by.clone(), token, hash }, Vec::new());
        let context = Context { now: repository.clock().now(), actor: "owner".parse().unwrap() };
        let stream = stream(&"default".parse().unwrap());
        repository.execute::<Tokens>(&stream, &context, rotate).await.unwrap();
        let (new, known) = admit(&data, &repository).await.unwrap();
        assert_ne!(new, old);
        assert!(known.state.live().all(|(_, known)| known.hash != TokenHash::of(&old)));
    }
}
