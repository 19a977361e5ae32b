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

use super::chat::Completions;
use super::messages::Messages;
use super::refusal::{Refusal, refuse};
use super::responses::Responses;
use super::serve::{Incoming, serve};
use super::{Form, Front, ModelEntry, counting, listing, media};
use crate::app::{Caller, Gateway};
use crate::problem::RequestId;

/// Extractor of the request's id.
pub(super) type Id = Extension<RequestId>;

/// Returns the routes that require a token.
pub(super) fn routes(front: Front) -> Router<Arc<Gateway>> {
    Router::new()
        .route("/openai/v1/chat/completions", post(call::<Completions>).get(listing::completions))
        .route("/openai/v1/chat/completions/{id}", get(listing::completion).delete(keeps))
        .route("/openai/v1/responses", post(call::<Responses>))
        .route("/openai/v1/responses/input_tokens", post(counting::responses))
        .route("/openai/v1/responses/{id}", get(listing::response).delete(keeps))
        .route("/openai/v1/responses/{id}/input_items", get(listing::input_items))
        .route("/openai/v1/models", get(models))
        // `{*id}`: model names contain slashes.
        .route("/openai/v1/models/{*id}", get(model).merge(delete(keeps)))
        .route("/openai/v1/embeddings", post(media::embeddings))
        .route("/openai/v1/audio/speech", post(media::speech))
        .route("/openai/v1/audio/transcriptions", post(media::transcriptions))
        .route("/anthropic/v1/messages", post(call::<Messages>))
        .route("/anthropic/v1/messages/count_tokens", post(counting::messages))
        .route("/anthropic/v1/models", get(anthropic_models))
        .route("/anthropic/v1/models/{*id}", get(anthropic_model))
        .layer(Extension(front))
}

/// Returns the probe routes, which need no token.
pub(super) fn open_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/openai", head(nothing))
        .route("/openai/v1", head(nothing))
        .route("/anthropic", head(nothing))
        .route("/anthropic/v1", head(nothing))
}

async fn nothing() -> StatusCode {
    StatusCode::OK
}

async fn call<D: super::Door>(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(request_id): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    // Boxed, because the large future of a call is moved several times on its way to its task.
    Box::pin(serve::<D>(Incoming { front, caller, headers, request_id, body })).await
}

/// Refuses deletion: the log keeps requests and replies; only an erasure of the run removes their
/// contents.
async fn keeps(Extension(RequestId(id)): Id) -> Response {
    let message = "nothing is deleted here: the log keeps what was asked and answered";
    refuse(&Refusal::unavailable_here(message), Form::OpenAi, &id)
}

/// Renders a refusal in an API's error format.
pub(super) fn respond(answer: Result<Response, Refusal>, form: Form, id: &str) -> Response {
    answer.unwrap_or_else(|refusal| refuse(&refusal, form, id))
}

fn openai_model(id: &str, owner: &str) -> Value {
    // The gateway does not know when a model appeared; the SDKs require a number.
    json!({"id": id, "object": "model", "created": 0, "owned_by": owner})
}

fn anthropic_model_of(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"})
}

/// Lists the models as OpenAI does.
async fn models(Extension(front): Extension<Front>, Extension(caller): Caller) -> Response {
    let models = front.gateway.models.models(&caller.tenant).await;
    let data: Vec<Value> =
        models.iter().map(|model| openai_model(&model.id, &model.owner)).collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

/// Finds a model by its full name, otherwise by its name without the provider.
fn find<'a>(models: &'a [ModelEntry], id: &str) -> Option<&'a ModelEntry> {
    let by_name =
        |model: &&ModelEntry| model.id.split_once('/').is_some_and(|(_, name)| name == id);
    models.iter().find(|model| model.id == id).or_else(|| models.iter().find(by_name))
}

fn no_model() -> Refusal {
    Refusal::missing("model.not_found", "model", "there is no model of this name")
}

async fn model(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(request)): Id,
    UrlPath(id): UrlPath<String>,
) -> Response {
    let models = front.gateway.models.models(&caller.tenant).await;
    let found = find(&models, &id).ok_or_else(no_model);
    let answer = found.map(|model| Json(openai_model(&id, &model.owner)).into_response());
    respond(answer, Form::OpenAi, &request)
}

async fn anthropic_model(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(request)): Id,
    UrlPath(id): UrlPath<String>,
) -> Response {
    let models = front.gateway.models.models(&caller.tenant).await;
    let found = find(&models, &id).ok_or_else(no_model);
    let answer = found.map(|_| Json(anthropic_model_of(&id)).into_response());
    respond(answer, Form::Anthropic, &request)
}

/// Lists the models as Anthropic does, in pages of up to 1000.
async fn anthropic_models(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(request)): Id,
    RawQuery(query): RawQuery,
) -> Response {
    let models = front.gateway.models.models(&caller.tenant).await;
    respond(anthropic_page(&models, query.as_deref()), Form::Anthropic, &request)
}

fn anthropic_page(models: &[ModelEntry], query: Option<&str>) -> Result<Response, Refusal> {
    let query = listing::Query::read(query, &["after_id", "before_id", "limit"])?;
    let place = |name| {
        let id = query.get(name)?;
        models.iter().position(|model| model.id == id)
    };
    let limit = query.limit(20, 1000)?;
    // A cursor of an unknown model counts as absent.
    let (from, until) = match (place("after_id"), place("before_id")) {
        (Some(after), _) => (after + 1, (after + 1 + limit).min(models.len())),
        (None, Some(before)) => (before.saturating_sub(limit), before),
        (None, None) => (0, limit.min(models.len())),
    };
    let page = models.get(from..until).unwrap_or_default();
    let data: Vec<Value> = page.iter().map(|model| anthropic_model_of(&model.id)).collect();
    let id = |model: Option<&ModelEntry>| model.map(|model| model.id.clone());
    let has_more = match query.get("before_id") {
        Some(_) => from > 0,
        None => until < models.len(),
    };
    let body = json!({"data": data, "has_more": has_more, "first_id": id(page.first()),
        "last_id": id(page.last())});
    Ok(Json(body).into_response())
}
