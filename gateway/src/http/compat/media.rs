//! Embeddings, speech and transcription in OpenAI's format. Each call is a run, like those of chat.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_application::Caller;
use convergio_domain::chat::{
    ChatReply, ChatRequest, ModelService, PackedVector, RECORDING_LIMIT, ServiceReply,
};
use serde_json::{Map, Value, json};

use super::compat_state::{CompatState, RequestIdExtension};
use super::error_format::ErrorFormat;
use super::field_table::FieldHandling::{Dialect, Kept, LeftOut, Refused};
use super::field_table::{FieldPath, ObjectSpec, RequestFields, ValueKind, field, is_nothing};
use super::multipart::{self, FormPart};
use super::refusal::{CompatRefusal, to_response};
use super::serve::{self, ServiceRequest, read_json_body, serve_model_service};
use crate::problem::RequestId;
use crate::state::CallerExtension;

/// Maximum texts of a request for embeddings.
const TEXTS_LIMIT: usize = 2048;
/// Media type of a file whose sender names none.
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

pub(super) const EMBEDDINGS_BODY: ObjectSpec = ObjectSpec {
    place: "",
    fields: &[
        field("model", ValueKind::Text, Kept),
        field("input", ValueKind::TextOrList(TEXTS_LIMIT), Kept),
        field("dimensions", ValueKind::Tokens, Kept),
        field("encoding_format", ValueKind::Words(&["float", "base64"]), Dialect),
        field("user", ValueKind::Text, LeftOut),
    ],
};

pub(super) const SPEECH_BODY: ObjectSpec = ObjectSpec {
    place: "",
    fields: &[
        field("model", ValueKind::Text, Kept),
        field("input", ValueKind::Text, Kept),
        field("voice", ValueKind::Text, Kept),
        field(
            "response_format",
            ValueKind::Words(&["mp3", "opus", "aac", "flac", "wav", "pcm"]),
            Kept,
        ),
        field("instructions", ValueKind::Any, Refused(|value| *value == "")),
        field("speed", ValueKind::Any, Refused(|value| value.as_f64() == Some(1.0))),
        field("stream_format", ValueKind::Any, Refused(|value| *value == "audio")),
    ],
};

pub(super) const TRANSCRIPTION_FORM: ObjectSpec = ObjectSpec {
    place: "",
    fields: &[
        field("model", ValueKind::Text, Kept),
        field("file", ValueKind::Any, Kept),
        field("language", ValueKind::Text, Kept),
        field("prompt", ValueKind::Text, Kept),
        field("response_format", ValueKind::Words(&["json", "text"]), Dialect),
        field("stream", ValueKind::Any, Refused(|value| *value == "false")),
        field("temperature", ValueKind::Any, Refused(|value| *value == "0" || *value == "0.0")),
        field("timestamp_granularities[]", ValueKind::Any, Refused(is_nothing)),
        field("include[]", ValueKind::Any, Refused(is_nothing)),
    ],
};

/// Tables by endpoint, for the tests.
#[cfg(test)]
pub(super) const TABLES: [(&str, &ObjectSpec); 3] = [
    ("POST /openai/v1/embeddings", &EMBEDDINGS_BODY),
    ("POST /openai/v1/audio/speech", &SPEECH_BODY),
    ("POST /openai/v1/audio/transcriptions", &TRANSCRIPTION_FORM),
];

fn service_request(model: &str, service: ModelService) -> ChatRequest {
    ChatRequest { model: model.to_owned(), service: Some(service), ..ChatRequest::default() }
}

/// The recorded reply belongs to another kind of service: a defect.
fn unexpected_reply() -> CompatRefusal {
    CompatRefusal::internal_error("the reply is not that of the service")
}

/// Handles a request for embeddings.
pub(super) async fn create_embeddings(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(id)): RequestIdExtension,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    to_response(embed_texts(compat_state, caller, &headers, body).await, ErrorFormat::OpenAi, &id)
}

async fn embed_texts(
    compat_state: CompatState,
    caller: Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, CompatRefusal> {
    let body = body?;
    let value = read_json_body(&body)?;
    let fields = RequestFields::read_known(&value, FieldPath::ROOT, &EMBEDDINGS_BODY)?;
    let texts = embedding_texts(&fields)?;
    let service = ModelService::Embed { texts, dimensions: fields.get_tokens("dimensions") };
    let request = service_request(fields.require_text("model")?, service);
    let is_packed = fields.get_text("encoding_format") == Some("base64");
    let service_request = ServiceRequest { request, hashed_body: body.to_vec() };
    let render = |reply| embeddings_response(reply, is_packed);
    let mut response =
        serve_model_service(compat_state, caller, headers, service_request, render).await?;
    serve::add_left_out_header(&mut response, fields.left_out());
    Ok(response)
}

/// Reads the texts of a request for embeddings; token arrays are rejected, since tokenizers differ
/// between providers.
fn embedding_texts(fields: &RequestFields<'_>) -> Result<Vec<String>, CompatRefusal> {
    fields.require_value("input")?;
    let path = FieldPath::ROOT;
    let input = path.field("input");
    let is_token = |value: &Value| value.is_number() || value.is_array();
    if fields.get_list("input").iter().any(is_token) {
        return Err(input.refuse("tokens are not taken here: send texts"));
    }
    let texts = fields.get_texts("input")?;
    if texts.is_empty() {
        return Err(input.refuse("must have an entry at least"));
    }
    let Some(place) = texts.iter().position(String::is_empty) else { return Ok(texts) };
    let entry = input.entry(place);
    let path = if fields.get_text("input").is_some() { input } else { entry };
    Err(path.refuse("must not be empty"))
}

fn embeddings_response(reply: ChatReply, is_packed: bool) -> Result<Response, CompatRefusal> {
    let Some(ServiceReply::Vectors { vectors }) = reply.service else {
        return Err(unexpected_reply());
    };
    let entry = |(index, vector): (usize, &PackedVector)| {
        // Vectors are stored packed; base64 passes them unchanged.
        let embedding = match is_packed {
            true => json!(vector.as_str()),
            false => json!(vector.to_numbers()?),
        };
        Some(json!({"object": "embedding", "index": index, "embedding": embedding}))
    };
    let data: Option<Vec<Value>> = vectors.iter().enumerate().map(entry).collect();
    let data = data.ok_or_else(unexpected_reply)?;
    let tokens = reply.usage.tokens_in();
    let body = json!({"object": "list", "data": data, "model": reply.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}});
    Ok(Json(body).into_response())
}

/// Handles a request for speech.
pub(super) async fn create_speech(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(id)): RequestIdExtension,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    to_response(speak_text(compat_state, caller, &headers, body).await, ErrorFormat::OpenAi, &id)
}

async fn speak_text(
    compat_state: CompatState,
    caller: Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, CompatRefusal> {
    let body = body?;
    let value = read_json_body(&body)?;
    let fields = RequestFields::read_known(&value, FieldPath::ROOT, &SPEECH_BODY)?;
    let service = ModelService::Speak {
        text: fields.require_text("input")?.to_owned(),
        voice: fields.require_text("voice")?.to_owned(),
        format: fields.get_text("response_format").unwrap_or("mp3").to_owned(),
    };
    let request = service_request(fields.require_text("model")?, service);
    let service_request = ServiceRequest { request, hashed_body: body.to_vec() };
    serve_model_service(compat_state, caller, headers, service_request, speech_response).await
}

fn speech_response(reply: ChatReply) -> Result<Response, CompatRefusal> {
    let Some(ServiceReply::Speech { media_type, data }) = reply.service else {
        return Err(unexpected_reply());
    };
    let bytes = STANDARD.decode(data).map_err(CompatRefusal::internal_error)?;
    Ok(([(header::CONTENT_TYPE, media_type)], bytes).into_response())
}

/// Handles a request for a transcription.
pub(super) async fn create_transcription(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(id)): RequestIdExtension,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    to_response(
        transcribe_recording(compat_state, caller, &headers, body).await,
        ErrorFormat::OpenAi,
        &id,
    )
}

async fn transcribe_recording(
    compat_state: CompatState,
    caller: Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, CompatRefusal> {
    let body = body?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let form = multipart::read_form(kind.unwrap_or_default(), &body)?;
    let value = form_fields(&form)?;
    let fields = RequestFields::read_known(&value, FieldPath::ROOT, &TRANSCRIPTION_FORM)?;
    // Checked by the declared fields as present; its bytes are in the form.
    let file = form.iter().find(|part| part.name == "file");
    let path = FieldPath::ROOT;
    let file = file.ok_or_else(|| path.field("file").refuse("missing"))?;
    // `BODY_LIMIT` bounds the form, `RECORDING_LIMIT` the file in it.
    if file.bytes.len() > RECORDING_LIMIT {
        let message = format!("has at most {RECORDING_LIMIT} bytes: compress it, or cut it");
        return Err(CompatRefusal::value_too_large(&path.field("file").to_string(), message));
    }
    let media_type = Some(file.media_type.as_str()).filter(|kind| !kind.is_empty());
    let service = ModelService::Transcribe {
        file_name: file.file_name.clone().unwrap_or_default(),
        media_type: media_type.unwrap_or(UNKNOWN_MEDIA_TYPE).to_owned(),
        data: STANDARD.encode(&file.bytes),
        language: fields.get_text("language").map(str::to_owned),
        prompt: fields.get_text("prompt").map(str::to_owned),
    };
    let request = service_request(fields.require_text("model")?, service);
    let is_text = fields.get_text("response_format") == Some("text");
    // The form's bytes cannot be hashed: its boundary differs on every attempt.
    let compared =
        serde_json::to_vec(&(&request, is_text)).map_err(CompatRefusal::internal_error)?;
    let service_request = ServiceRequest { request, hashed_body: compared };
    serve_model_service(compat_state, caller, headers, service_request, |reply| {
        Ok(transcription_response(&reply, is_text))
    })
    .await
}

/// Converts a form's fields to an object; a file becomes `true`, since only its presence is
/// checked.
fn form_fields(form: &[FormPart]) -> Result<Value, CompatRefusal> {
    let mut fields = Map::new();
    for part in form {
        let is_file = part.file_name.is_some() || part.name == "file";
        let value = match std::str::from_utf8(&part.bytes) {
            _ if is_file => json!(true),
            Ok(text) => json!(text),
            Err(_) => return Err(FieldPath::ROOT.field(&part.name).refuse("must be text")),
        };
        let is_list = part.name.ends_with("[]");
        if fields.insert(part.name.clone(), value).is_some() && !is_list {
            return Err(FieldPath::ROOT.field(&part.name).refuse("stands there twice"));
        }
    }
    Ok(Value::Object(fields))
}

fn transcription_response(reply: &ChatReply, is_text: bool) -> Response {
    if is_text {
        return format!("{}\n", reply.text).into_response();
    }
    let mut body = json!({"text": reply.text});
    if let Some(usage) = &reply.raw_usage {
        body["usage"] = usage.clone();
    }
    Json(body).into_response()
}
