//! Access tokens: list, issue, rotate, revoke. A change takes effect in this process before it is
//! answered.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use convergio_application::Caller;
use convergio_domain::id::{ActorId, Name, TokenId};
use convergio_domain::token::{self, NewAccessToken, TokenCaller, TokenCommand, TokenHash};
use convergio_schemas::wire::{self, Page, Problem, TokenRotation, TokenView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::convert;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension, Gateway};

/// Routes that list, issue, rotate and revoke access tokens.
pub(crate) fn token_routes() -> ApiRoutes {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, issue_token))
        .routes(routes!(rotate_token))
        .routes(routes!(revoke_token))
}

/// Lists the tokens that open something.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses(
    (status = 200, description = "All of them", body = Page<TokenView>),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn list_tokens(
    State(gateway): App,
    Extension(caller): CallerExtension,
) -> Result<Json<Page<TokenView>>, ApiError> {
    let state = gateway.use_cases().load_tokens(&caller.tenant).await?.state;
    let items = state.live_tokens().map(|(id, token)| to_token_view(id, token)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Issues a token. Whoever asks makes it and sends its hash: the server learns it when it is shown.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = wire::NewToken, responses(
    (status = 201, description = "It opens what its roles may", body = TokenView),
    (status = 400, description = "The token is not valid", body = Problem),
    (status = 403, description = "Only the owner issues tokens", body = Problem),
    (status = 409, description = "The name is the platform's, or has a token", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn issue_token(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Extension(shown): Extension<TokenId>,
    body: Result<Json<wire::NewToken>, JsonRejection>,
) -> Result<(StatusCode, Json<TokenView>), ApiError> {
    let Json(request) = body?;
    let roles = request.roles.iter().map(|role| role.parse()).collect::<Result<Vec<Name>, _>>();
    let token = NewAccessToken {
        actor: parse_actor(&request.actor)?,
        roles: roles.map_err(|error| ApiError::invalid_request(format!("`roles`: {error}")))?,
        hash: parse_hash(&request.blake3)?,
    };
    let id = TokenId::from_hash(&token.hash);
    let command = TokenCommand::Issue { by: token_caller(&caller, shown), token };
    let issued = change_tokens(&gateway, &caller, command, id).await?;
    Ok((StatusCode::CREATED, issued))
}

/// Puts a new token in the place of one: of the one that the request shows, or, as the owner, of
/// any.
#[utoipa::path(post, path = "/v1/tokens/{id}/rotate", tag = "tokens", params(
    ("id" = String, Path, description = "The token, by its id or the name of who has it"),
), request_body = TokenRotation, responses(
    (status = 200, description = "The new token opens what the old one did", body = TokenView),
    (status = 400, description = "The rotation is not valid", body = Problem),
    (status = 403, description = "Only the owner rotates tokens of others", body = Problem),
    (status = 404, description = "There is no such token", body = Problem),
    (status = 409, description = "The new token is somebody's, or was revoked", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn rotate_token(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Extension(shown): Extension<TokenId>,
    Path(id): Path<String>,
    body: Result<Json<TokenRotation>, JsonRejection>,
) -> Result<Json<TokenView>, ApiError> {
    let Json(request) = body?;
    let hash = parse_hash(&request.blake3)?;
    let state = gateway.use_cases().load_tokens(&caller.tenant).await?.state;
    let token = find_token(&state, &id).ok_or_else(|| ApiError::not_found("token"))?;
    let command = TokenCommand::Rotate { by: token_caller(&caller, shown), token, hash };
    change_tokens(&gateway, &caller, command, TokenId::from_hash(&hash)).await
}

/// Revokes a token, in every process of the log. Twice changes nothing.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(
    ("id" = String, Path, description = "The token, by its id or the name of who has it"),
), responses(
    (status = 200, description = "It opens nothing any more", body = TokenView),
    (status = 403, description = "Only the owner revokes tokens", body = Problem),
    (status = 404, description = "There is no such token", body = Problem),
    (status = 409, description = "It is the token that the request shows", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn revoke_token(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Extension(shown): Extension<TokenId>,
    Path(id): Path<String>,
) -> Result<Json<TokenView>, ApiError> {
    let state = gateway.use_cases().load_tokens(&caller.tenant).await?.state;
    let token = find_token(&state, &id).ok_or_else(|| ApiError::not_found("token"))?;
    let command = TokenCommand::Revoke { by: token_caller(&caller, shown), token };
    change_tokens(&gateway, &caller, command, token).await
}

/// Executes a token command, applies the result in this process, and returns the token's view.
async fn change_tokens(
    gateway: &Gateway,
    caller: &Caller,
    command: TokenCommand,
    token_id: TokenId,
) -> Result<Json<TokenView>, ApiError> {
    let loaded = gateway.use_cases().change_tokens(caller, command).await?;
    // The token feed would apply it too, but later than the answer.
    if let Some(head) = loaded.head {
        gateway.tokens.replace_tenant_tokens(&caller.tenant, head.seq, &loaded.state);
    }
    let found = loaded.state.tokens.get(&token_id).ok_or_else(|| ApiError::not_found("token"))?;
    Ok(Json(to_token_view(token_id, found)))
}

/// Finds a token by its id, or by its actor: the live one, otherwise the one issued last.
fn find_token(state: &token::TokenState, text: &str) -> Option<TokenId> {
    if let Ok(id) = text.parse::<TokenId>() {
        return Some(id);
    }
    let tokens_of_actor = state.tokens.iter().filter(|(_, token)| token.actor.as_str() == text);
    // A revoked token is found too, so that it can be shown after it was revoked.
    tokens_of_actor.max_by_key(|(_, token)| (!token.is_revoked, token.issued)).map(|(id, _)| *id)
}

fn token_caller(caller: &Caller, shown: TokenId) -> TokenCaller {
    TokenCaller { token: shown, roles: caller.roles.clone() }
}

fn parse_actor(text: &str) -> Result<ActorId, ApiError> {
    text.parse().map_err(|error| ApiError::invalid_request(format!("`actor`: {error}")))
}

fn parse_hash(text: &str) -> Result<TokenHash, ApiError> {
    text.parse().map_err(|error| ApiError::invalid_request(format!("`blake3`: {error}")))
}

fn to_token_view(id: TokenId, token: &token::IssuedToken) -> TokenView {
    TokenView {
        id: id.to_string(),
        actor: token.actor.to_string(),
        roles: token.roles.iter().map(ToString::to_string).collect(),
        issued_at: convert::format_rfc3339(token.issued.0),
        revoked: token.is_revoked,
    }
}
