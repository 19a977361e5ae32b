//! Routes of the compatible APIs, and the handlers that need no call: probes and model listings.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path as UrlPath, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, head, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::chat::CompatChatCompletions;
use super::compat_state::{CompatState, RequestIdExtension};
use super::dialect::CompatDialect;
use super::error_format::ErrorFormat;
use super::messages::CompatMessages;
use super::refusal::{CompatRefusal, refusal_response, to_response};
use super::responses::CompatResponses;
use super::serve::{IncomingCall, serve_call};
use super::{media, stored_answers, token_counting};
use crate::ports::ModelEntry;
use crate::problem::RequestId;
use crate::state::{CallerExtension, Gateway};

/// Returns the routes that require a token.
pub(super) fn token_routes(compat_state: CompatState) -> Router<Arc<Gateway>> {
    Router::new()
        .route(
            "/openai/v1/chat/completions",
            post(handle_call::<CompatChatCompletions>).get(stored_answers::list_completions),
        )
        .route(
            "/openai/v1/chat/completions/{id}",
            get(stored_answers::show_completion).delete(refuse_deletion),
        )
        .route("/openai/v1/responses", post(handle_call::<CompatResponses>))
        .route("/openai/v1/responses/input_tokens", post(token_counting::count_responses_tokens))
        .route(
            "/openai/v1/responses/{id}",
            get(stored_answers::show_response).delete(refuse_deletion),
        )
        .route("/openai/v1/responses/{id}/input_items", get(stored_answers::list_input_items))
        .route("/openai/v1/models", get(list_openai_models))
        // `{*id}`: model names contain slashes.
        .route("/openai/v1/models/{*id}", get(show_openai_model).merge(delete(refuse_deletion)))
        .route("/openai/v1/embeddings", post(media::create_embeddings))
        .route("/openai/v1/audio/speech", post(media::create_speech))
        .route("/openai/v1/audio/transcriptions", post(media::create_transcription))
        .route("/anthropic/v1/messages", post(handle_call::<CompatMessages>))
        .route("/anthropic/v1/messages/count_tokens", post(token_counting::count_messages_tokens))
        .route("/anthropic/v1/models", get(list_anthropic_models))
        .route("/anthropic/v1/models/{*id}", get(show_anthropic_model))
        .layer(Extension(compat_state))
}

/// Returns the probe routes, which need no token.
pub(super) fn probe_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/openai", head(answer_probe))
        .route("/openai/v1", head(answer_probe))
        .route("/anthropic", head(answer_probe))
        .route("/anthropic/v1", head(answer_probe))
}

async fn answer_probe() -> StatusCode {
    StatusCode::OK
}

async fn handle_call<D: CompatDialect>(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(request_id): RequestIdExtension,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    // Boxed, because the large future of a call is moved several times on its way to its task.
    Box::pin(serve_call::<D>(IncomingCall {
        front: compat_state,
        caller,
        headers,
        request_id,
        body,
    }))
    .await
}

/// Refuses deletion: the log keeps requests and replies; only an erasure of the run removes their
/// contents.
async fn refuse_deletion(Extension(RequestId(id)): RequestIdExtension) -> Response {
    let message = "nothing is deleted here: the log keeps what was asked and answered";
    refusal_response(&CompatRefusal::unavailable_here(message), ErrorFormat::OpenAi, &id)
}

fn openai_model_json(id: &str, owner: &str) -> Value {
    // The gateway does not know when a model appeared; the SDKs require a number.
    json!({"id": id, "object": "model", "created": 0, "owned_by": owner})
}

fn anthropic_model_json(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"})
}

/// Lists the models as OpenAI does.
async fn list_openai_models(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
) -> Response {
    let models = compat_state.gateway.models.list_models(&caller.tenant).await;
    let data: Vec<Value> =
        models.iter().map(|model| openai_model_json(&model.id, &model.owner)).collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

/// Finds a model by its full name, otherwise by its name without the provider.
fn find_model<'a>(models: &'a [ModelEntry], id: &str) -> Option<&'a ModelEntry> {
    let by_name =
        |model: &&ModelEntry| model.id.split_once('/').is_some_and(|(_, name)| name == id);
    models.iter().find(|model| model.id == id).or_else(|| models.iter().find(by_name))
}

fn model_not_found() -> CompatRefusal {
    CompatRefusal::missing_resource("model.not_found", "model", "there is no model of this name")
}

async fn show_openai_model(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(request)): RequestIdExtension,
    UrlPath(id): UrlPath<String>,
) -> Response {
    let models = compat_state.gateway.models.list_models(&caller.tenant).await;
    let found = find_model(&models, &id).ok_or_else(model_not_found);
    let answer = found.map(|model| Json(openai_model_json(&id, &model.owner)).into_response());
    to_response(answer, ErrorFormat::OpenAi, &request)
}

async fn show_anthropic_model(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(request)): RequestIdExtension,
    UrlPath(id): UrlPath<String>,
) -> Response {
    let models = compat_state.gateway.models.list_models(&caller.tenant).await;
    let found = find_model(&models, &id).ok_or_else(model_not_found);
    let answer = found.map(|_| Json(anthropic_model_json(&id)).into_response());
    to_response(answer, ErrorFormat::Anthropic, &request)
}

/// Lists the models as Anthropic does, in pages of up to 1000.
async fn list_anthropic_models(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(request)): RequestIdExtension,
    RawQuery(query): RawQuery,
) -> Response {
    let models = compat_state.gateway.models.list_models(&caller.tenant).await;
    to_response(anthropic_models_page(&models, query.as_deref()), ErrorFormat::Anthropic, &request)
}

fn anthropic_models_page(
    models: &[ModelEntry],
    query: Option<&str>,
) -> Result<Response, CompatRefusal> {
    let query = stored_answers::ListQuery::read_known(query, &["after_id", "before_id", "limit"])?;
    let position_of = |name| {
        let id = query.get(name)?;
        models.iter().position(|model| model.id == id)
    };
    let limit = query.page_limit(20, 1000)?;
    // A cursor of an unknown model counts as absent.
    let (from, until) = match (position_of("after_id"), position_of("before_id")) {
        (Some(after), _) => (after + 1, (after + 1 + limit).min(models.len())),
        (None, Some(before)) => (before.saturating_sub(limit), before),
        (None, None) => (0, limit.min(models.len())),
    };
    let page = models.get(from..until).unwrap_or_default();
    let data: Vec<Value> = page.iter().map(|model| anthropic_model_json(&model.id)).collect();
    let id = |model: Option<&ModelEntry>| model.map(|model| model.id.clone());
    let has_more = match query.get("before_id") {
        Some(_) => from > 0,
        None => until < models.len(),
    };
    let body = json!({"data": data, "has_more": has_more, "first_id": id(page.first()),
        "last_id": id(page.last())});
    Ok(Json(body).into_response())
}
