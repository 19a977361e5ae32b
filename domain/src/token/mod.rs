//! The token noun: the access tokens of a tenant. Only their hashes are stored; the token itself is
//! known to its holder alone. Its events are in [`event`], its rules here.

pub mod event;

use std::collections::BTreeMap;

use event::{TokenEvent, TokenIssued, TokenRevoked};

use crate::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use crate::id::{ActorId, Name, TenantId, TokenId, derive_uuid};
use crate::idempotency::{AppliedRequests, HasAppliedRequests};
use crate::request::event::RequestApplied;
use crate::stream::{Seq, StreamKey, StreamKind};
use crate::time::Timestamp;
pub use crate::token_hash::{InvalidTokenHash, TokenHash};

/// Actor that owns the data folder, and the role that may issue and revoke tokens.
pub const OWNER: &str = "owner";
/// Most tokens ever issued to a tenant, revoked ones included.
pub const TOKENS_LIMIT: usize = 10_000;
/// Actor names that the platform uses or may use: audit entries under them must not be ambiguous.
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

/// Returns the stream of a tenant's tokens.
pub fn token_stream(tenant: &TenantId) -> StreamKey {
    let id = derive_uuid(&["token/v1", tenant.as_str(), "stream"]);
    StreamKey { tenant: tenant.clone(), kind: StreamKind::Token, id }
}

/// Decider of the token stream.
#[derive(Debug, Clone, Copy)]
pub struct TokenNoun;

/// Every token that was issued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenState {
    /// Tokens by id, revoked ones included.
    pub tokens: BTreeMap<TokenId, IssuedToken>,
    /// Idempotent requests that changed tokens.
    pub requests: AppliedRequests,
}

impl HasAppliedRequests for TokenState {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// Actor on whose behalf the token acts.
    pub actor: ActorId,
    /// Roles of the actor.
    pub roles: Vec<Name>,
    /// Hash by which the token is recognised.
    pub hash: TokenHash,
    /// Time of issue.
    pub issued: Timestamp,
    /// True if the token is no longer accepted.
    pub is_revoked: bool,
}

impl TokenState {
    /// The tokens that are accepted.
    pub fn live_tokens(&self) -> impl Iterator<Item = (TokenId, &IssuedToken)> {
        self.tokens.iter().filter(|(_, token)| !token.is_revoked).map(|(id, token)| (*id, token))
    }

    /// The tokens of an actor that are accepted.
    pub fn live_tokens_of<'a>(
        &'a self,
        actor: &'a ActorId,
    ) -> impl Iterator<Item = (TokenId, &'a IssuedToken)> {
        self.live_tokens().filter(move |(_, token)| token.actor == *actor)
    }

    fn is_live(&self, token: TokenId) -> bool {
        self.tokens.get(&token).is_some_and(|token| !token.is_revoked)
    }
}

/// The authenticated caller of a token command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenCaller {
    /// Token that the request carries.
    pub token: TokenId,
    /// Roles of its holder.
    pub roles: Vec<String>,
}

/// Commands of the token stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenCommand {
    /// Accepts the token in the data folder as the owner's.
    AdmitOwner {
        /// Hash of that token.
        hash: TokenHash,
    },
    /// Imports a token from the file of earlier versions, which kept tokens outside of the log.
    ImportToken(NewAccessToken),
    /// Issues a token to an actor.
    Issue {
        /// Must have the role [`OWNER`].
        by: TokenCaller,
        /// The new token.
        token: NewAccessToken,
    },
    /// Revokes a token.
    Revoke {
        /// Must have the role [`OWNER`].
        by: TokenCaller,
        /// Token to be revoked.
        token: TokenId,
    },
    /// Replaces a token of the same actor.
    Rotate {
        /// Holder of the token, or has the role [`OWNER`].
        by: TokenCaller,
        /// Token to be replaced.
        token: TokenId,
        /// Hash of its replacement.
        hash: TokenHash,
    },
}

/// A new token of an actor other than the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccessToken {
    /// Actor on whose behalf the token acts.
    pub actor: ActorId,
    /// Roles of the actor.
    pub roles: Vec<Name>,
    /// Hash by which the token is recognised.
    pub hash: TokenHash,
}

/// Rejection of a token command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRejection {
    /// The actor's name is reserved for the platform.
    #[error("`{0}` is a name of the platform itself: take another")]
    ReservedName(ActorId),
    /// The actor has a token already: with one token each, a revocation is complete.
    #[error("`{0}` has a token: revoke or rotate it, or take another name")]
    HasToken(ActorId),
    /// Only the owner issues and revokes tokens of others.
    #[error("only who has the role `owner` issues and revokes tokens of others")]
    NotOwner,
    /// There is no such token.
    #[error("there is no such token")]
    NotFound,
    /// Callers cannot revoke their own token: they would lock themselves out.
    #[error("this is the token that the request shows: rotate it")]
    OwnToken,
    /// A revoked token cannot be issued again.
    #[error("this token was revoked: make a new one")]
    Revoked,
    /// The hash belongs to another actor's token.
    #[error("this token is somebody's already: make a new one")]
    HashTaken,
    /// The tenant has been issued [`TOKENS_LIMIT`] tokens.
    #[error("a tenant is given at most 10000 tokens")]
    TokensExhausted,
}

impl TokenCaller {
    fn require_owner(&self) -> Result<(), TokenRejection> {
        if self.roles.iter().any(|role| role == OWNER) {
            Ok(())
        } else {
            Err(TokenRejection::NotOwner)
        }
    }
}

/// Issues a token, unless the same one is there.
fn issue_token(
    state: &TokenState,
    actor: ActorId,
    roles: Vec<Name>,
    hash: TokenHash,
) -> Result<Vec<TokenEvent>, TokenRejection> {
    let token = TokenId::from_hash(&hash);
    match state.tokens.get(&token) {
        Some(known) if known.is_revoked => Err(TokenRejection::Revoked),
        Some(known) if known.actor != actor || known.roles != roles => {
            Err(TokenRejection::HashTaken)
        }
        Some(_) => Ok(Vec::new()),
        None if state.tokens.len() >= TOKENS_LIMIT => Err(TokenRejection::TokensExhausted),
        None => Ok(vec![TokenEvent::TokenIssued(TokenIssued { token, actor, roles, hash })]),
    }
}

/// Issues a token to an actor other than the owner, who must have no other token.
fn issue_first_token(
    state: &TokenState,
    new: NewAccessToken,
) -> Result<Vec<TokenEvent>, TokenRejection> {
    let NewAccessToken { actor, roles, hash } = new;
    if RESERVED_ACTORS.contains(&actor.as_str()) {
        return Err(TokenRejection::ReservedName(actor));
    }
    let new = TokenId::from_hash(&hash);
    if state.live_tokens_of(&actor).any(|(token, _)| token != new) {
        return Err(TokenRejection::HasToken(actor));
    }
    issue_token(state, actor, roles, hash)
}

fn admit_owner(state: &TokenState, hash: TokenHash) -> Result<Vec<TokenEvent>, TokenRejection> {
    let (actor, role) = (OWNER.parse::<ActorId>(), OWNER.parse::<Name>());
    let (Ok(actor), Ok(role)) = (actor, role) else { return Err(TokenRejection::NotFound) };
    issue_token(state, actor, vec![role], hash)
}

fn revocation_event(token: TokenId) -> TokenEvent {
    TokenEvent::TokenRevoked(TokenRevoked { token })
}

fn revoke_token(
    state: &TokenState,
    by: &TokenCaller,
    token: TokenId,
) -> Result<Vec<TokenEvent>, TokenRejection> {
    by.require_owner()?;
    match state.tokens.get(&token) {
        None => Err(TokenRejection::NotFound),
        Some(_) if token == by.token => Err(TokenRejection::OwnToken),
        Some(known) if known.is_revoked => Ok(Vec::new()),
        Some(_) => Ok(vec![revocation_event(token)]),
    }
}

/// Rotates a token. The new one is issued first, so that readers see no moment without one.
fn rotate_token(
    state: &TokenState,
    by: &TokenCaller,
    token: TokenId,
    hash: TokenHash,
) -> Result<Vec<TokenEvent>, TokenRejection> {
    // Holders may rotate their own token without a role.
    if token != by.token {
        by.require_owner()?;
    }
    let (old, new) =
        (state.tokens.get(&token).ok_or(TokenRejection::NotFound)?, TokenId::from_hash(&hash));
    if old.is_revoked && !state.is_live(new) {
        return Err(TokenRejection::Revoked);
    }
    let mut events = issue_token(state, old.actor.clone(), old.roles.clone(), hash)?;
    if !old.is_revoked && token != new {
        events.push(revocation_event(token));
    }
    Ok(events)
}

impl Decider for TokenNoun {
    type State = TokenState;
    type Command = TokenCommand;
    type Event = TokenEvent;
    type Rejection = TokenRejection;

    fn decide(
        state: &TokenState,
        command: TokenCommand,
        _context: &DecisionContext,
        _next: Seq,
    ) -> Result<Vec<TokenEvent>, TokenRejection> {
        match command {
            TokenCommand::AdmitOwner { hash } => admit_owner(state, hash),
            TokenCommand::ImportToken(token) => issue_first_token(state, token),
            TokenCommand::Issue { by, token } => {
                by.require_owner()?;
                issue_first_token(state, token)
            }
            TokenCommand::Revoke { by, token } => revoke_token(state, &by, token),
            TokenCommand::Rotate { by, token, hash } => rotate_token(state, &by, token, hash),
        }
    }

    fn evolve(state: &mut TokenState, recorded: RecordedEvent<'_, TokenEvent>) {
        match recorded.event {
            TokenEvent::TokenIssued(event) => {
                let TokenIssued { token, actor, roles, hash } = event.clone();
                let issued = recorded.time;
                let issued = IssuedToken { actor, roles, hash, issued, is_revoked: false };
                // A revoked token stays revoked, even if an event issued it again.
                state.tokens.entry(token).or_insert(issued);
            }
            TokenEvent::TokenRevoked(event) => {
                if let Some(token) = state.tokens.get_mut(&event.token) {
                    token.is_revoked = true;
                }
            }
        }
    }

    fn evolve_request(state: &mut TokenState, applied: RecordedEvent<'_, RequestApplied>) {
        state.requests.insert(applied.event.request, applied.seq);
    }

    fn next_wake(_state: &TokenState) -> Wake {
        Wake::Done
    }
}

#[cfg(test)]
mod tests {
    use super::{
        NewAccessToken, OWNER, RESERVED_ACTORS, TokenCaller, TokenCommand, TokenHash,
        TokenRejection, TokenState,
    };
    use super::{TokenId, TokenNoun};
    use crate::decider::{Decider, DecisionContext, RecordedEvent};
    use crate::stream::Seq;
    use crate::time::Timestamp;

    fn hash(token: &str) -> TokenHash {
        TokenHash::from_token(token)
    }

    fn new(actor: &str, token: &str) -> NewAccessToken {
        let roles = vec!["teacher".parse().unwrap()];
        NewAccessToken { actor: actor.parse().unwrap(), roles, hash: hash(token) }
    }

    fn token_caller(token: &str, role: &str) -> TokenCaller {
        TokenCaller { token: TokenId::from_hash(&hash(token)), roles: vec![role.to_owned()] }
    }

    /// Decides and folds; gives the number of events.
    fn run_command(state: &mut TokenState, command: TokenCommand) -> Result<usize, TokenRejection> {
        let context = DecisionContext { now: Timestamp(7), actor: OWNER.parse().unwrap() };
        let events = TokenNoun::decide(state, command, &context, Seq(1))?;
        for event in &events {
            TokenNoun::evolve(state, RecordedEvent { seq: Seq(1), time: Timestamp(7), event });
        }
        Ok(events.len())
    }

    fn accepts_token(state: &TokenState, token: &str) -> bool {
        state.live_tokens().any(|(_, known)| known.hash == hash(token))
    }

    fn with_owner_and_ann() -> TokenState {
        let mut state = TokenState::default();
        let admit = TokenCommand::AdmitOwner { hash: hash("owner-1") };
        assert_eq!(run_command(&mut state, admit.clone()), Ok(1));
        assert_eq!(run_command(&mut state, admit), Ok(0), "it is there");
        let issue = |role| TokenCommand::Issue {
            by: token_caller("owner-1", role),
            token: new("ann", "ann-1"),
        };
        assert_eq!(run_command(&mut state, issue("teacher")), Err(TokenRejection::NotOwner));
        assert_eq!(run_command(&mut state, issue(OWNER)), Ok(1));
        assert_eq!(run_command(&mut state, issue(OWNER)), Ok(0), "it is there");
        state
    }

    #[test]
    fn a_name_has_one_token_and_the_platforms_names_have_none() {
        let mut state = with_owner_and_ann();
        let issue = |new| TokenCommand::Issue { by: token_caller("owner-1", OWNER), token: new };
        let second = run_command(&mut state, issue(new("ann", "ann-2")));
        assert!(matches!(second, Err(TokenRejection::HasToken(_))), "{second:?}");
        assert_eq!(
            run_command(&mut state, issue(new("bob", "ann-1"))),
            Err(TokenRejection::HashTaken)
        );
        for name in RESERVED_ACTORS {
            let issued = run_command(&mut state, issue(new(name, "x")));
            assert!(matches!(issued, Err(TokenRejection::ReservedName(_))), "{name}");
            let taken = run_command(&mut state, TokenCommand::ImportToken(new(name, "x")));
            assert!(matches!(taken, Err(TokenRejection::ReservedName(_))), "{name}");
        }
    }

    #[test]
    fn what_is_revoked_opens_nothing_for_ever() {
        let mut state = with_owner_and_ann();
        let ann = TokenId::from_hash(&hash("ann-1"));
        let revoke = |role| TokenCommand::Revoke { by: token_caller("owner-1", role), token: ann };
        assert_eq!(run_command(&mut state, revoke("teacher")), Err(TokenRejection::NotOwner));
        assert_eq!(run_command(&mut state, revoke(OWNER)), Ok(1));
        assert_eq!(run_command(&mut state, revoke(OWNER)), Ok(0));
        assert!(!accepts_token(&state, "ann-1"));
        let again = run_command(&mut state, TokenCommand::ImportToken(new("ann", "ann-1")));
        assert_eq!(again, Err(TokenRejection::Revoked));
        let own = TokenCommand::Revoke {
            by: token_caller("owner-1", OWNER),
            token: TokenId::from_hash(&hash("owner-1")),
        };
        assert_eq!(run_command(&mut state, own), Err(TokenRejection::OwnToken));
    }

    #[test]
    fn a_rotation_changes_the_token_and_nothing_else() {
        let mut state = with_owner_and_ann();
        let rotate = |by_token: &str, role, from: &str, to: &str| TokenCommand::Rotate {
            by: token_caller(by_token, role),
            token: TokenId::from_hash(&hash(from)),
            hash: hash(to),
        };
        assert_eq!(run_command(&mut state, rotate("ann-1", "teacher", "ann-1", "ann-2")), Ok(2));
        let others = rotate("ann-2", "teacher", "owner-1", "x");
        assert_eq!(run_command(&mut state, others), Err(TokenRejection::NotOwner));
        assert_eq!(run_command(&mut state, rotate("owner-1", OWNER, "ann-2", "ann-3")), Ok(2));
        assert_eq!(run_command(&mut state, rotate("owner-1", OWNER, "ann-2", "ann-3")), Ok(0));
        let gone = run_command(&mut state, rotate("owner-1", OWNER, "ann-2", "ann-4"));
        assert_eq!(gone, Err(TokenRejection::Revoked));
        assert_eq!(run_command(&mut state, rotate("owner-1", OWNER, "owner-1", "owner-2")), Ok(2));
        let none = run_command(&mut state, rotate("owner-2", OWNER, "bob-1", "x"));
        assert_eq!(none, Err(TokenRejection::NotFound));
        let live: Vec<&str> = state.live_tokens().map(|(_, token)| token.actor.as_str()).collect();
        assert_eq!(live.len(), 2, "{live:?}");
        assert!(accepts_token(&state, "ann-3") && accepts_token(&state, "owner-2"));
        let ann = state.live_tokens_of(&"ann".parse().unwrap()).next().unwrap().1.clone();
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
