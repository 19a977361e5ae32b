//! The tokens of a tenant: who may come in, and as whom. Only hashes are known here; a token is
//! known to who has it alone.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::decider::{Context, Decider, Recorded, Wake};
use crate::event::Event;
use crate::event::token::{Issued, Revoked};
use crate::id::{ActorId, Name, TenantId, TokenId};
use crate::once::{AppliedRequests, RemembersRequests};
use crate::request::derived_uuid;
use crate::stream::{Seq, StreamKey, StreamKind};
use crate::time::Timestamp;
use crate::written::written_as_text;

/// Who has the data folder, and the role of who may issue and revoke.
pub const OWNER: &str = "owner";
/// Tokens that a tenant is ever given, those that were revoked among them.
pub const TOKENS_LIMIT: usize = 10_000;
/// Names under which the platform itself acts, now or later: an entry of theirs must not be
/// somebody else's.
pub const RESERVED_ACTORS: [&str; 14] = [
    "anonymous",
    "convergio",
    "executor",
    "fork",
    "gateway",
    "import",
    "kernel",
    "migration",
    OWNER,
    "projector",
    "replay",
    "root",
    "scheduler",
    "system",
];

/// BLAKE3 of a token: 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

written_as_text!(TokenHash);

/// A text that is no hash of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BLAKE3 of a token has 64 hexadecimal digits in lower case")]
pub struct InvalidHash;

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        Self(*blake3::hash(token.as_bytes()).as_bytes())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl FromStr for TokenHash {
    type Err = InvalidHash;
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| InvalidHash)?;
        let hash = Self(*hash.as_bytes());
        if hash.to_string() == text { Ok(hash) } else { Err(InvalidHash) }
    }
}

impl TokenId {
    /// The id of the token that has this hash: the same token again is the same thing.
    pub fn of(hash: &TokenHash) -> Self {
        Self(derived_uuid(&["token/v1", &hash.to_string()]))
    }
}

/// The stream of a tenant's tokens.
pub fn stream(tenant: &TenantId) -> StreamKey {
    let id = derived_uuid(&["token/v1", tenant.as_str(), "stream"]);
    StreamKey { tenant: tenant.clone(), kind: StreamKind::Token, id }
}

/// The rules of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Tokens;

/// Every token that was issued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// By their ids.
    pub tokens: BTreeMap<TokenId, Token>,
    /// The requests under an idempotency key that changed them.
    pub requests: AppliedRequests,
}

impl RemembersRequests for State {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// For whom it speaks.
    pub actor: ActorId,
    /// What they may answer for.
    pub roles: Vec<Name>,
    /// What it is known by.
    pub hash: TokenHash,
    /// When it was issued.
    pub issued: Timestamp,
    /// Whether it opens nothing any more.
    pub is_revoked: bool,
}

impl State {
    /// The tokens that open something.
    pub fn live(&self) -> impl Iterator<Item = (TokenId, &Token)> {
        self.tokens.iter().filter(|(_, token)| !token.is_revoked).map(|(id, token)| (*id, token))
    }

    /// The tokens of somebody that open something.
    pub fn live_of<'a>(&'a self, actor: &'a ActorId) -> impl Iterator<Item = (TokenId, &'a Token)> {
        self.live().filter(move |(_, token)| token.actor == *actor)
    }

    fn has_live(&self, token: TokenId) -> bool {
        self.tokens.get(&token).is_some_and(|token| !token.is_revoked)
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token that was shown.
    pub token: TokenId,
    /// The roles of who has it.
    pub roles: Vec<String>,
}

/// What can be asked of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The token that lies in a data folder speaks for its owner.
    AdmitOwner {
        /// What it is known by.
        hash: TokenHash,
    },
    /// A token of a file that was kept before tokens stood in the log.
    TakeIn(NewToken),
    /// Somebody gets a token.
    Issue {
        /// Who asks.
        by: Caller,
        /// For whom.
        token: NewToken,
    },
    /// A token is taken away.
    Revoke {
        /// Who asks.
        by: Caller,
        /// Which one.
        token: TokenId,
    },
    /// A token takes the place of another.
    Rotate {
        /// Who asks.
        by: Caller,
        /// Which one goes.
        token: TokenId,
        /// What the new one is known by.
        hash: TokenHash,
    },
}

/// A token for somebody besides the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// For whom it speaks.
    pub actor: ActorId,
    /// What they may answer for.
    pub roles: Vec<Name>,
    /// What it is known by.
    pub hash: TokenHash,
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The platform acts under the name.
    #[error("`{0}` is a name of the platform itself: take another")]
    Reserved(ActorId),
    /// One token each, so that a revocation is complete.
    #[error("`{0}` has a token: revoke or rotate it, or take another name")]
    HasToken(ActorId),
    /// Only the owner gives and takes tokens.
    #[error("only who has the role `owner` issues and revokes tokens of others")]
    NotOwner,
    /// There is no such token.
    #[error("there is no such token")]
    NotFound,
    /// Who revokes the token that they show could not go on.
    #[error("this is the token that the request shows: rotate it")]
    Own,
    /// A token that was revoked stays so.
    #[error("this token was revoked: make a new one")]
    Revoked,
    /// The hash is another token's.
    #[error("this token is somebody's already: make a new one")]
    Taken,
    /// Tokens are bounded.
    #[error("a tenant is given at most 10000 tokens")]
    Full,
}

impl Caller {
    fn must_be_owner(&self) -> Result<(), Rejection> {
        if self.roles.iter().any(|role| role == OWNER) { Ok(()) } else { Err(Rejection::NotOwner) }
    }
}

/// An event that issues a token, unless it is there.
fn issue(
    state: &State,
    actor: ActorId,
    roles: Vec<Name>,
    hash: TokenHash,
) -> Result<Vec<Event>, Rejection> {
    let token = TokenId::of(&hash);
    match state.tokens.get(&token) {
        Some(known) if known.is_revoked => Err(Rejection::Revoked),
        Some(known) if known.actor != actor || known.roles != roles => Err(Rejection::Taken),
        Some(_) => Ok(Vec::new()),
        None if state.tokens.len() >= TOKENS_LIMIT => Err(Rejection::Full),
        None => Ok(vec![Event::TokenIssued(Issued { token, actor, roles, hash })]),
    }
}

/// The same for somebody besides the owner, who has no other one.
fn issue_first(state: &State, new: NewToken) -> Result<Vec<Event>, Rejection> {
    let NewToken { actor, roles, hash } = new;
    if RESERVED_ACTORS.contains(&actor.as_str()) {
        return Err(Rejection::Reserved(actor));
    }
    let new = TokenId::of(&hash);
    if state.live_of(&actor).any(|(token, _)| token != new) {
        return Err(Rejection::HasToken(actor));
    }
    issue(state, actor, roles, hash)
}

fn admit_owner(state: &State, hash: TokenHash) -> Result<Vec<Event>, Rejection> {
    let (actor, role) = (OWNER.parse::<ActorId>(), OWNER.parse::<Name>());
    let (Ok(actor), Ok(role)) = (actor, role) else { return Err(Rejection::NotFound) };
    issue(state, actor, vec![role], hash)
}

fn revoked(token: TokenId) -> Event {
    Event::TokenRevoked(Revoked { token })
}

fn revoke(state: &State, by: &Caller, token: TokenId) -> Result<Vec<Event>, Rejection> {
    by.must_be_owner()?;
    match state.tokens.get(&token) {
        None => Err(Rejection::NotFound),
        Some(_) if token == by.token => Err(Rejection::Own),
        Some(known) if known.is_revoked => Ok(Vec::new()),
        Some(_) => Ok(vec![revoked(token)]),
    }
}

/// The new one comes first: whoever follows sees no moment without one.
fn rotate(
    state: &State,
    by: &Caller,
    token: TokenId,
    hash: TokenHash,
) -> Result<Vec<Event>, Rejection> {
    if token != by.token {
        by.must_be_owner()?;
    }
    let (old, new) = (state.tokens.get(&token).ok_or(Rejection::NotFound)?, TokenId::of(&hash));
    if old.is_revoked && !state.has_live(new) {
        return Err(Rejection::Revoked);
    }
    let mut events = issue(state, old.actor.clone(), old.roles.clone(), hash)?;
    if !old.is_revoked && token != new {
        events.push(revoked(token));
    }
    Ok(events)
}

impl Decider for Tokens {
    type State = State;
    type Command = Command;
    type Rejection = Rejection;

    fn decide(
        state: &State,
        command: Command,
        _context: &Context,
        _next: Seq,
    ) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::AdmitOwner { hash } => admit_owner(state, hash),
            Command::TakeIn(token) => issue_first(state, token),
            Command::Issue { by, token } => {
                by.must_be_owner()?;
                issue_first(state, token)
            }
            Command::Revoke { by, token } => revoke(state, &by, token),
            Command::Rotate { by, token, hash } => rotate(state, &by, token, hash),
        }
    }

    fn evolve(state: &mut State, recorded: Recorded<'_>) {
        match recorded.event {
            Event::TokenIssued(event) => {
                let Issued { token, actor, roles, hash } = event.clone();
                let issued = recorded.time;
                let issued = Token { actor, roles, hash, issued, is_revoked: false };
                // What was revoked stays so, whatever is written.
                state.tokens.entry(token).or_insert(issued);
            }
            Event::TokenRevoked(event) => {
                if let Some(token) = state.tokens.get_mut(&event.token) {
                    token.is_revoked = true;
                }
            }
            Event::RequestApplied(event) => state.requests.insert(event.request, recorded.seq),
            _ => {}
        }
    }

    fn wake(_state: &State) -> Wake {
        Wake::Done
    }
}

#[cfg(test)]
mod tests {
    use super::{Caller, Command, NewToken, OWNER, RESERVED_ACTORS, Rejection, State, TokenHash};
    use super::{TokenId, Tokens};
    use crate::decider::{Context, Decider, Recorded};
    use crate::stream::Seq;
    use crate::time::Timestamp;

    fn hash(token: &str) -> TokenHash {
        TokenHash::of(token)
    }

    fn new(actor: &str, token: &str) -> NewToken {
        let roles = vec!["teacher".parse().unwrap()];
        NewToken { actor: actor.parse().unwrap(), roles, hash: hash(token) }
    }

    fn by(token: &str, role: &str) -> Caller {
        Caller { token: TokenId::of(&hash(token)), roles: vec![role.to_owned()] }
    }

    /// Decides and folds; gives the number of events.
    fn done(state: &mut State, command: Command) -> Result<usize, Rejection> {
        let context = Context { now: Timestamp(7), actor: OWNER.parse().unwrap() };
        let events = Tokens::decide(state, command, &context, Seq(1))?;
        for event in &events {
            Tokens::evolve(state, Recorded { seq: Seq(1), time: Timestamp(7), event });
        }
        Ok(events.len())
    }

    fn opens(state: &State, token: &str) -> bool {
        state.live().any(|(_, known)| known.hash == hash(token))
    }

    fn with_owner_and_ann() -> State {
        let mut state = State::default();
        let admit = Command::AdmitOwner { hash: hash("owner-1") };
        assert_eq!(done(&mut state, admit.clone()), Ok(1));
        assert_eq!(done(&mut state, admit), Ok(0), "it is there");
        let issue = |role| Command::Issue { by: by("owner-1", role), token: new("ann", "ann-1") };
        assert_eq!(done(&mut state, issue("teacher")), Err(Rejection::NotOwner));
        assert_eq!(done(&mut state, issue(OWNER)), Ok(1));
        assert_eq!(done(&mut state, issue(OWNER)), Ok(0), "it is there");
        state
    }

    #[test]
    fn a_name_has_one_token_and_the_platforms_names_have_none() {
        let mut state = with_owner_and_ann();
        let issue = |new| Command::Issue { by: by("owner-1", OWNER), token: new };
        let second = done(&mut state, issue(new("ann", "ann-2")));
        assert!(matches!(second, Err(Rejection::HasToken(_))), "{second:?}");
        assert_eq!(done(&mut state, issue(new("bob", "ann-1"))), Err(Rejection::Taken));
        for name in RESERVED_ACTORS {
            let issued = done(&mut state, issue(new(name, "x")));
            assert!(matches!(issued, Err(Rejection::Reserved(_))), "{name}");
            let taken = done(&mut state, Command::TakeIn(new(name, "x")));
            assert!(matches!(taken, Err(Rejection::Reserved(_))), "{name}");
        }
    }

    #[test]
    fn what_is_revoked_opens_nothing_for_ever() {
        let mut state = with_owner_and_ann();
        let ann = TokenId::of(&hash("ann-1"));
        let revoke = |role| Command::Revoke { by: by("owner-1", role), token: ann };
        assert_eq!(done(&mut state, revoke("teacher")), Err(Rejection::NotOwner));
        assert_eq!(done(&mut state, revoke(OWNER)), Ok(1));
        assert_eq!(done(&mut state, revoke(OWNER)), Ok(0));
        assert!(!opens(&state, "ann-1"));
        let again = done(&mut state, Command::TakeIn(new("ann", "ann-1")));
        assert_eq!(again, Err(Rejection::Revoked));
        let own =
            Command::Revoke { by: by("owner-1", OWNER), token: TokenId::of(&hash("owner-1")) };
        assert_eq!(done(&mut state, own), Err(Rejection::Own));
    }

    #[test]
    fn a_rotation_changes_the_token_and_nothing_else() {
        let mut state = with_owner_and_ann();
        let rotate = |by_token: &str, role, from: &str, to: &str| Command::Rotate {
            by: by(by_token, role),
            token: TokenId::of(&hash(from)),
            hash: hash(to),
        };
        assert_eq!(done(&mut state, rotate("ann-1", "teacher", "ann-1", "ann-2")), Ok(2));
        let others = rotate("ann-2", "teacher", "owner-1", "x");
        assert_eq!(done(&mut state, others), Err(Rejection::NotOwner));
        assert_eq!(done(&mut state, rotate("owner-1", OWNER, "ann-2", "ann-3")), Ok(2));
        assert_eq!(done(&mut state, rotate("owner-1", OWNER, "ann-2", "ann-3")), Ok(0));
        let gone = done(&mut state, rotate("owner-1", OWNER, "ann-2", "ann-4"));
        assert_eq!(gone, Err(Rejection::Revoked));
        assert_eq!(done(&mut state, rotate("owner-1", OWNER, "owner-1", "owner-2")), Ok(2));
        let none = done(&mut state, rotate("owner-2", OWNER, "bob-1", "x"));
        assert_eq!(none, Err(Rejection::NotFound));
        let live: Vec<&str> = state.live().map(|(_, token)| token.actor.as_str()).collect();
        assert_eq!(live.len(), 2, "{live:?}");
        assert!(opens(&state, "ann-3") && opens(&state, "owner-2"));
        let ann = state.live_of(&"ann".parse().unwrap()).next().unwrap().1.clone();
        assert_eq!(ann.roles, new("ann", "x").roles);
    }

    #[test]
    fn a_hash_is_written_in_one_way() {
        let text = hash("x").to_string();
        assert_eq!(text.parse(), Ok(hash("x")));
        for wrong in [&text[1..], &text.to_uppercase(), ""] {
            assert!(wrong.parse::<TokenHash>().is_err(), "{wrong}");
        }
    }
}
