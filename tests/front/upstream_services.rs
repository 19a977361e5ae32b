//! What the model server does besides chatting.

use std::sync::{Arc, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::upstream::Shared;

/// A sound.
pub(crate) const SOUND: &[u8] = b"ID3\x00\xff";

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/audio/transcriptions", post(transcriptions))
        .route("/v1/audio/speech", post(speech))
}

fn note(shared: &Shared, call: Value) {
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
}

/// A vector of each text: its bytes, and a tenth.
async fn embeddings(State(shared): State<Arc<Shared>>, Json(request): Json<Value>) -> Response {
    note(&shared, request.clone());
    let texts = request["input"].as_array().cloned().unwrap_or_default();
    let vector = |(index, text): (usize, &Value)| {
        let bytes = text.as_str().map_or(0, str::len);
        json!({"object": "embedding", "index": index, "embedding": [bytes, 0.1]})
    };
    let data: Vec<Value> = texts.iter().enumerate().map(vector).collect();
    Json(json!({"object": "list", "model": "fix-embed-1", "data": data,
        "usage": {"prompt_tokens": 3, "total_tokens": 3}}))
    .into_response()
}

/// The words: how many bytes came as a form.
async fn transcriptions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let kind = headers[header::CONTENT_TYPE].to_str().unwrap_or_default();
    note(&shared, json!({"form": String::from_utf8_lossy(&body), "media_type": kind}));
    let usage = json!({"type": "duration", "seconds": 2});
    Json(json!({"text": "the ship sails", "usage": usage})).into_response()
}

async fn speech(State(shared): State<Arc<Shared>>, Json(request): Json<Value>) -> Response {
    note(&shared, request);
    ([(header::CONTENT_TYPE, "audio/mpeg")], SOUND).into_response()
}
