//! People besides the owner: whom a token speaks for and in which roles, in `tokens.json` of the
//! data folder. Tokens themselves are not kept, only their hashes.

use convergio_domain::id::{ActorId, NodeId, TenantId};
use convergio_gateway::Token;
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, new_token};
use crate::exit;

const FILE: &str = "tokens.json";
/// Who has the token of the data folder.
const OWNER: &str = "owner";

/// Somebody who has a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Person {
    /// The name that stands in the log.
    pub(crate) actor: ActorId,
    /// What the person answers for.
    pub(crate) roles: Vec<NodeId>,
    /// BLAKE3 of the token, as hexadecimal digits.
    blake3: String,
}

/// Everybody in the file.
pub(crate) fn list(data: &DataDir) -> anyhow::Result<Vec<Person>> {
    let path = data.path().join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(exit::bad_input(format!("{FILE} cannot be read: {error}"))),
    };
    serde_json::from_slice(&bytes).map_err(|error| exit::bad_input(format!("{FILE}: {error}")))
}

/// Adds somebody; gives the token, which is shown once.
pub(crate) fn add(data: &DataDir, actor: ActorId, roles: Vec<NodeId>) -> anyhow::Result<String> {
    let mut people = list(data)?;
    if actor.as_str() == OWNER || people.iter().any(|person| person.actor == actor) {
        let reason = format!("`{actor}` has a token: revoke it first, or take another name");
        return Err(exit::bad_input(reason));
    }
    let token = new_token()?;
    let blake3 = Token::hash(&token).iter().map(|byte| format!("{byte:02x}")).collect();
    people.push(Person { actor, roles, blake3 });
    write(data, &people)?;
    Ok(token)
}

/// Removes somebody; tells whether there was anybody of that name.
pub(crate) fn remove(data: &DataDir, actor: &ActorId) -> anyhow::Result<bool> {
    let mut people = list(data)?;
    let before = people.len();
    people.retain(|person| person.actor != *actor);
    let is_changed = people.len() < before;
    if is_changed {
        write(data, &people)?;
    }
    Ok(is_changed)
}

fn write(data: &DataDir, people: &[Person]) -> anyhow::Result<()> {
    data.create()?;
    data.write(FILE, serde_json::to_string_pretty(people)?)
}

/// Every token that the data folder's server takes: the owner's, and those of the file.
pub(crate) fn tokens(data: &DataDir, owner: &str) -> anyhow::Result<Vec<Token>> {
    let tenant: TenantId = "default".parse()?;
    let token = |hash, actor, roles| Token { hash, tenant: tenant.clone(), actor, roles };
    let mut known = vec![token(Token::hash(owner), OWNER.parse()?, vec![OWNER.to_owned()])];
    for person in list(data)? {
        let hash = bytes(&person.blake3);
        let wrong = || exit::bad_input(format!("{FILE}: `blake3` of {} is no hash", person.actor));
        let roles = person.roles.iter().map(ToString::to_string).collect();
        known.push(token(hash.ok_or_else(wrong)?, person.actor.clone(), roles));
    }
    Ok(known)
}

/// Bytes from 64 hexadecimal digits.
fn bytes(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks_exact(2).map(pair).collect();
    bytes?.try_into().ok().filter(|_| digits.len() == 64)
}

#[cfg(test)]
mod tests {
    use convergio_gateway::Token;

    use super::{add, list, remove, tokens};
    use crate::data_dir::DataDir;

    #[test]
    fn a_token_is_kept_as_its_hash_until_it_is_taken_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataDir::find(Some(folder.path()));
        let (ann, teacher) = ("ann".parse().expect("a name"), "teacher".parse().expect("a name"));
        let token = add(&data, ann, vec![teacher]).expect("it is new");
        let text = std::fs::read_to_string(folder.path().join("tokens.json")).expect("a file");
        assert!(!text.contains(token.trim_start_matches("cvg_")), "the token itself is not kept");
        let known = tokens(&data, "cvg_owner").expect("readable");
        let found = known.iter().find(|known| known.hash == Token::hash(&token)).expect("known");
        assert_eq!((found.actor.as_str(), &found.roles), ("ann", &vec!["teacher".to_owned()]));
        assert_eq!(known[0].roles, ["owner"]);
        for taken in ["ann", "owner"] {
            assert!(add(&data, taken.parse().expect("a name"), Vec::new()).is_err(), "{taken}");
        }
        assert!(remove(&data, &"ann".parse().expect("a name")).expect("writable"));
        assert!(list(&data).expect("readable").is_empty());
        assert_eq!(tokens(&data, "cvg_owner").expect("readable").len(), 1);
        std::fs::write(folder.path().join("tokens.json"), "[{\"actor\": \"x\"}]")
            .expect("writable");
        let error = tokens(&data, "cvg_owner").expect_err("it is not whole").to_string();
        assert!(error.contains("tokens.json") && error.contains("roles"), "{error}");
    }
}
