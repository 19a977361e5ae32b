//! Access tokens: list, issue, rotate, revoke. A change takes effect in this process before it is
//! answered.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use convergio_domain::id::{ActorId, Name, TokenId};
use convergio_domain::once::{Once, RequestedCommand};
use convergio_domain::token::{self, Caller as TokenCaller, Command, NewToken, TokenHash};
use convergio_eventstore::Loaded;
use convergio_schemas::wire::{self, Page, Problem, TokenRotation, TokenView};

use crate::app::{App, Caller, Gateway};
use crate::auth::Identity;
use crate::problem::ApiError;
use crate::{convert, idempotency};

/// Lists the tokens that open something.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses(
    (status = 200, description = "All of them", body = Page<TokenView>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
pub(crate) async fn list(
    State(gateway): App,
    Extension(caller): Caller,
) -> Result<Json<Page<TokenView>>, ApiError> {
    let state = load(&gateway, &caller).await?.state;
    let items = state.live().map(|(id, token)| view(id, token)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Issues a token. Whoever asks makes it and sends its hash: the server learns it when it is shown.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = wire::NewToken, responses(
    (status = 201, description = "It opens what its roles may", body = TokenView),
    (status = 400, description = "The token is not valid", body = Problem),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Only the owner issues tokens", body = Problem),
    (status = 409, description = "The name is the platform's, or has a token", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
pub(crate) async fn issue(
    State(gateway): App,
    Extension(caller): Caller,
    headers: HeaderMap,
    body: Result<Json<wire::NewToken>, JsonRejection>,
) -> Result<(StatusCode, Json<TokenView>), ApiError> {
    let Json(given) = body?;
    let roles = given.roles.iter().map(|role| role.parse()).collect::<Result<Vec<Name>, _>>();
    let token = NewToken {
        actor: actor(&given.actor)?,
        roles: roles.map_err(|error| ApiError::invalid(format!("`roles`: {error}")))?,
        hash: hash(&given.blake3)?,
    };
    let id = TokenId::of(&token.hash);
    let command = Command::Issue { by: asked_by(&caller), token };
    let issued = change(&gateway, &caller, &headers, command, id).await?;
    Ok((StatusCode::CREATED, issued))
}

/// Puts a new token in the place of one: of the one that the request shows, or, as the owner, of
/// any.
#[utoipa::path(post, path = "/v1/tokens/{id}/rotate", tag = "tokens", params(
    ("id" = String, Path, description = "The token, by its id or the name of who has it"),
), request_body = TokenRotation, responses(
    (status = 200, description = "The new token opens what the old one did", body = TokenView),
    (status = 400, description = "The rotation is not valid", body = Problem),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Only the owner rotates tokens of others", body = Problem),
    (status = 404, description = "There is no such token", body = Problem),
    (status = 409, description = "The new token is somebody's, or was revoked", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
pub(crate) async fn rotate(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Json<TokenRotation>, JsonRejection>,
) -> Result<Json<TokenView>, ApiError> {
    let Json(given) = body?;
    let hash = hash(&given.blake3)?;
    let state = load(&gateway, &caller).await?.state;
    let token = find(&state, &id).ok_or_else(|| ApiError::not_found("token"))?;
    let command = Command::Rotate { by: asked_by(&caller), token, hash };
    change(&gateway, &caller, &headers, command, TokenId::of(&hash)).await
}

/// Revokes a token, in every process of the log. Twice changes nothing.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(
    ("id" = String, Path, description = "The token, by its id or the name of who has it"),
), responses(
    (status = 200, description = "It opens nothing any more", body = TokenView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Only the owner revokes tokens", body = Problem),
    (status = 404, description = "There is no such token", body = Problem),
    (status = 409, description = "It is the token that the request shows", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
pub(crate) async fn revoke(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<TokenView>, ApiError> {
    let state = load(&gateway, &caller).await?.state;
    let token = find(&state, &id).ok_or_else(|| ApiError::not_found("token"))?;
    let command = Command::Revoke { by: asked_by(&caller), token };
    change(&gateway, &caller, &headers, command, token).await
}

async fn load(gateway: &Gateway, caller: &Identity) -> Result<Loaded<token::Tokens>, ApiError> {
    Ok(gateway.repository.load(&token::stream(&caller.tenant)).await?)
}

/// Executes a token command, applies the result in this process, and returns the token's view.
async fn change(
    gateway: &Gateway,
    caller: &Identity,
    headers: &HeaderMap,
    command: Command,
    about: TokenId,
) -> Result<Json<TokenView>, ApiError> {
    let (stream, context) = (token::stream(&caller.tenant), gateway.context(caller));
    let request = idempotency::request_id(caller, headers)?;
    let command = RequestedCommand { request, command };
    let asked = |_: &_, _| (command.clone(), Vec::new());
    let done = gateway.repository.execute::<Once<token::Tokens>>(&stream, &context, asked).await?;
    // The token feed would apply it too, but later than the answer.
    if let Some(head) = done.head {
        gateway.tokens.replace(&caller.tenant, head.seq, &done.state);
    }
    let found = done.state.tokens.get(&about).ok_or_else(|| ApiError::not_found("token"))?;
    Ok(Json(view(about, found)))
}

/// Finds a token by its id, or by its actor: the live one, otherwise the one issued last.
fn find(state: &token::State, text: &str) -> Option<TokenId> {
    if let Ok(id) = text.parse::<TokenId>() {
        return Some(id);
    }
    let of_name = state.tokens.iter().filter(|(_, token)| token.actor.as_str() == text);
    // A revoked token is found too, so that it can be shown after it was revoked.
    of_name.max_by_key(|(_, token)| (!token.is_revoked, token.issued)).map(|(id, _)| *id)
}

fn asked_by(caller: &Identity) -> TokenCaller {
    TokenCaller { token: caller.token, roles: caller.roles.clone() }
}

fn actor(text: &str) -> Result<ActorId, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(format!("`actor`: {error}")))
}

fn hash(text: &str) -> Result<TokenHash, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(format!("`blake3`: {error}")))
}

fn view(id: TokenId, token: &token::Token) -> TokenView {
    TokenView {
        id: id.to_string(),
        actor: token.actor.to_string(),
        roles: token.roles.iter().map(ToString::to_string).collect(),
        issued_at: convert::rfc3339(token.issued.0),
        revoked: token.is_revoked,
    }
}
