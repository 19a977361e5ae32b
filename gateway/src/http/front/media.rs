//! Embeddings, speech and transcription, in OpenAI's form.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::endpoints::{Id, respond};
use super::known::Fate::{Door, Kept, LeftOut, Refused};
use super::known::{Fields, Kind, Object, Path, field, is_nothing};
use super::multipart;
use super::refusal::Refusal;
use super::serve::{self, privacy, read_body};
use super::services::{
    EmbedRequest, MISSING, ServiceCall, ServiceError, SpeakRequest, TranscribeRequest,
};
use super::turn::CallFailure;
use super::{Form, Front};
use crate::app::Caller;
use crate::auth::Identity;
use crate::problem::RequestId;

/// Bytes of a recording at most, with the fields around it.
pub(super) const RECORDING_LIMIT: usize = 26 << 20;
/// Texts of one request for embeddings at most.
const TEXTS_LIMIT: usize = 2048;

pub(super) const EMBEDDINGS: Object = Object {
    place: "",
    fields: &[
        field("model", Kind::Text, Kept),
        field("input", Kind::TextOrList(TEXTS_LIMIT), Kept),
        field("dimensions", Kind::Tokens, Kept),
        field("encoding_format", Kind::Words(&["float", "base64"]), Door),
        field("user", Kind::Text, LeftOut),
    ],
};

pub(super) const SPEECH: Object = Object {
    place: "",
    fields: &[
        field("model", Kind::Text, Kept),
        field("input", Kind::Text, Kept),
        field("voice", Kind::Text, Kept),
        field("response_format", Kind::Words(&["mp3", "opus", "aac", "flac", "wav", "pcm"]), Kept),
        field("instructions", Kind::Any, Refused(|value| *value == "")),
        field("speed", Kind::Any, Refused(|value| value.as_f64() == Some(1.0))),
        field("stream_format", Kind::Any, Refused(|value| *value == "audio")),
    ],
};

pub(super) const TRANSCRIPTION: Object = Object {
    place: "",
    fields: &[
        field("model", Kind::Text, Kept),
        field("file", Kind::Any, Kept),
        field("language", Kind::Text, Kept),
        field("prompt", Kind::Text, Kept),
        field("response_format", Kind::Words(&["json", "text"]), Door),
        field("stream", Kind::Any, Refused(|value| *value == "false")),
        field("temperature", Kind::Any, Refused(|value| *value == "0" || *value == "0.0")),
        field("timestamp_granularities[]", Kind::Any, Refused(is_nothing)),
        field("include[]", Kind::Any, Refused(is_nothing)),
    ],
};

/// The tables by their endpoints, for those who look through them.
#[cfg(test)]
pub(super) const TABLES: [(&str, &Object); 3] = [
    ("POST /openai/v1/embeddings", &EMBEDDINGS),
    ("POST /openai/v1/audio/speech", &SPEECH),
    ("POST /openai/v1/audio/transcriptions", &TRANSCRIPTION),
];

fn service_call(caller: Identity, headers: &HeaderMap) -> Result<ServiceCall, Refusal> {
    let privacy = privacy(headers)?;
    Ok(ServiceCall { tenant: caller.tenant, actor: caller.actor, privacy })
}

fn failed(error: ServiceError) -> Refusal {
    let ServiceError { code, message: text, param } = error;
    if code == MISSING {
        return Refusal::unavailable_here(text);
    }
    Refusal::of_failure(CallFailure { code, text, retryable: false, param }, None)
}

/// Vectors of texts.
pub(super) async fn embeddings(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    respond(embed(&front, caller, &headers, body).await, Form::OpenAi, &id)
}

async fn embed(
    front: &Front,
    caller: Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = read_body(&body.map_err(|rejection| Refusal::of_body(&rejection))?)?;
    let fields = Fields::read(&body, Path::ROOT, &EMBEDDINGS)?;
    fields.need("input")?;
    let texts = fields.texts("input")?;
    if texts.is_empty() {
        return Err(Path::ROOT.field("input").refuse("must have an entry at least"));
    }
    let model = fields.need_text("model")?.to_owned();
    let request = EmbedRequest { model, texts, dimensions: fields.tokens("dimensions") };
    let call = service_call(caller, headers)?;
    let embedded = front.gateway.services.embed(&call, request).await.map_err(failed)?;
    let is_packed = fields.text("encoding_format") == Some("base64");
    let entry = |(index, vector): (usize, &Vec<f32>)| {
        let embedding = if is_packed { packed(vector) } else { json!(vector) };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    let data: Vec<Value> = embedded.vectors.iter().enumerate().map(entry).collect();
    let tokens = embedded.usage.tokens_in();
    let body = json!({"object": "list", "data": data, "model": embedded.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}});
    let mut response = Json(body).into_response();
    serve::tell_left_out(&mut response, fields.left_out());
    Ok(response)
}

/// A vector as OpenAI packs it: 32 bits for a number, the least first.
fn packed(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    json!(STANDARD.encode(bytes))
}

/// A text, spoken.
pub(super) async fn speech(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    respond(speak(&front, caller, &headers, body).await, Form::OpenAi, &id)
}

async fn speak(
    front: &Front,
    caller: Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = read_body(&body.map_err(|rejection| Refusal::of_body(&rejection))?)?;
    let fields = Fields::read(&body, Path::ROOT, &SPEECH)?;
    let request = SpeakRequest {
        model: fields.need_text("model")?.to_owned(),
        text: fields.need_text("input")?.to_owned(),
        voice: fields.need_text("voice")?.to_owned(),
        format: fields.text("response_format").unwrap_or("mp3").to_owned(),
    };
    let call = service_call(caller, headers)?;
    let spoken = front.gateway.services.speak(&call, request).await.map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, spoken.media_type)], spoken.bytes).into_response())
}

/// The words of a recording.
pub(super) async fn transcriptions(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    respond(transcribe(&front, caller, &headers, body).await, Form::OpenAi, &id)
}

async fn transcribe(
    front: &Front,
    caller: Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let form = multipart::read(kind.unwrap_or_default(), &body)?;
    let file = form.iter().find(|part| part.name == "file");
    let file = file.ok_or_else(|| Path::ROOT.field("file").refuse("missing"))?;
    let texts = form.iter().map(|part| match part.file_name {
        Some(_) => (part.name.clone(), json!(true)),
        None => (part.name.clone(), json!(String::from_utf8_lossy(&part.bytes))),
    });
    let body = Value::Object(texts.collect());
    let fields = Fields::read(&body, Path::ROOT, &TRANSCRIPTION)?;
    let request = TranscribeRequest {
        model: fields.need_text("model")?.to_owned(),
        file_name: file.file_name.clone().unwrap_or_default(),
        media_type: file.media_type.clone(),
        bytes: file.bytes.clone(),
        language: fields.text("language").map(str::to_owned),
        prompt: fields.text("prompt").map(str::to_owned),
    };
    let call = service_call(caller, headers)?;
    let said = front.gateway.services.transcribe(&call, request).await.map_err(failed)?;
    Ok(match fields.text("response_format") {
        Some("text") => format!("{}\n", said.text).into_response(),
        _ => Json(json!({"text": said.text})).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::packed;

    #[test]
    fn vectors_are_packed_as_sdks_unpack_them() {
        assert_eq!(packed(&[1.0, -2.0]), json!("AACAPwAAAMA="));
    }
}
