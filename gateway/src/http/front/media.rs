//! Embeddings, speech and transcription in OpenAI's format. Each call is a run, like those of chat.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_domain::chat::{
    ChatReply, ChatRequest, ModelService, PackedVector, RECORDING_LIMIT, ServiceReply,
};
use serde_json::{Map, Value, json};

use super::endpoints::{Id, respond};
use super::known::Fate::{Door, Kept, LeftOut, Refused};
use super::known::{Fields, Kind, Object, Path, field, is_nothing};
use super::multipart::{self, FormPart};
use super::refusal::Refusal;
use super::serve::{self, ServiceRequest, read_body, serve_service};
use super::{Form, Front};
use crate::app::Caller;
use crate::auth::Identity;
use crate::problem::RequestId;

/// Maximum texts of a request for embeddings.
const TEXTS_LIMIT: usize = 2048;
/// Media type of a file whose sender names none.
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

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

/// Tables by endpoint, for the tests.
#[cfg(test)]
pub(super) const TABLES: [(&str, &Object); 3] = [
    ("POST /openai/v1/embeddings", &EMBEDDINGS),
    ("POST /openai/v1/audio/speech", &SPEECH),
    ("POST /openai/v1/audio/transcriptions", &TRANSCRIPTION),
];

fn service_request(model: &str, service: ModelService) -> ChatRequest {
    ChatRequest { model: model.to_owned(), service: Some(service), ..ChatRequest::default() }
}

/// The recorded reply belongs to another kind of service: a defect.
fn of_another_kind() -> Refusal {
    Refusal::internal("the reply is not that of the service")
}

/// Handles a request for embeddings.
pub(super) async fn embeddings(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    respond(embed(front, caller, &headers, body).await, Form::OpenAi, &id)
}

async fn embed(
    front: Front,
    caller: Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
    let value = read_body(&body)?;
    let fields = Fields::read(&value, Path::ROOT, &EMBEDDINGS)?;
    let texts = texts(&fields)?;
    let service = ModelService::Embed { texts, dimensions: fields.tokens("dimensions") };
    let request = service_request(fields.need_text("model")?, service);
    let is_packed = fields.text("encoding_format") == Some("base64");
    let asked = ServiceRequest { request, compared: body.to_vec() };
    let write = |reply| vectors(reply, is_packed);
    let mut response = serve_service(front, caller, headers, asked, write).await?;
    serve::tell_left_out(&mut response, fields.left_out());
    Ok(response)
}

/// Reads the texts of a request for embeddings; token arrays are rejected, since tokenizers differ
/// between providers.
fn texts(fields: &Fields<'_>) -> Result<Vec<String>, Refusal> {
    fields.need("input")?;
    let path = Path::ROOT;
    let input = path.field("input");
    let is_token = |value: &Value| value.is_number() || value.is_array();
    if fields.list("input").iter().any(is_token) {
        return Err(input.refuse("tokens are not taken here: send texts"));
    }
    let texts = fields.texts("input")?;
    if texts.is_empty() {
        return Err(input.refuse("must have an entry at least"));
    }
    let Some(place) = texts.iter().position(String::is_empty) else { return Ok(texts) };
    let entry = input.entry(place);
    let path = if fields.text("input").is_some() { input } else { entry };
    Err(path.refuse("must not be empty"))
}

fn vectors(reply: ChatReply, is_packed: bool) -> Result<Response, Refusal> {
    let Some(ServiceReply::Vectors { vectors }) = reply.service else {
        return Err(of_another_kind());
    };
    let entry = |(index, vector): (usize, &PackedVector)| {
        // Vectors are stored packed; base64 passes them unchanged.
        let embedding = match is_packed {
            true => json!(vector.as_str()),
            false => json!(vector.numbers()?),
        };
        Some(json!({"object": "embedding", "index": index, "embedding": embedding}))
    };
    let data: Option<Vec<Value>> = vectors.iter().enumerate().map(entry).collect();
    let data = data.ok_or_else(of_another_kind)?;
    let tokens = reply.usage.tokens_in();
    let body = json!({"object": "list", "data": data, "model": reply.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}});
    Ok(Json(body).into_response())
}

/// Handles a request for speech.
pub(super) async fn speech(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    respond(speak(front, caller, &headers, body).await, Form::OpenAi, &id)
}

async fn speak(
    front: Front,
    caller: Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
    let value = read_body(&body)?;
    let fields = Fields::read(&value, Path::ROOT, &SPEECH)?;
    let service = ModelService::Speak {
        text: fields.need_text("input")?.to_owned(),
        voice: fields.need_text("voice")?.to_owned(),
        format: fields.text("response_format").unwrap_or("mp3").to_owned(),
    };
    let request = service_request(fields.need_text("model")?, service);
    let asked = ServiceRequest { request, compared: body.to_vec() };
    serve_service(front, caller, headers, asked, sound).await
}

fn sound(reply: ChatReply) -> Result<Response, Refusal> {
    let Some(ServiceReply::Speech { media_type, data }) = reply.service else {
        return Err(of_another_kind());
    };
    let bytes = STANDARD.decode(data).map_err(Refusal::internal)?;
    Ok(([(header::CONTENT_TYPE, media_type)], bytes).into_response())
}

/// Handles a request for a transcription.
pub(super) async fn transcriptions(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    respond(transcribe(front, caller, &headers, body).await, Form::OpenAi, &id)
}

async fn transcribe(
    front: Front,
    caller: Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let form = multipart::read(kind.unwrap_or_default(), &body)?;
    let value = form_fields(&form)?;
    let fields = Fields::read(&value, Path::ROOT, &TRANSCRIPTION)?;
    // Checked by the declared fields as present; its bytes are in the form.
    let file = form.iter().find(|part| part.name == "file");
    let path = Path::ROOT;
    let file = file.ok_or_else(|| path.field("file").refuse("missing"))?;
    // `BODY_LIMIT` bounds the form, `RECORDING_LIMIT` the file in it.
    if file.bytes.len() > RECORDING_LIMIT {
        let message = format!("has at most {RECORDING_LIMIT} bytes: compress it, or cut it");
        return Err(Refusal::larger(&path.field("file").to_string(), message));
    }
    let media_type = Some(file.media_type.as_str()).filter(|kind| !kind.is_empty());
    let service = ModelService::Transcribe {
        file_name: file.file_name.clone().unwrap_or_default(),
        media_type: media_type.unwrap_or(UNKNOWN_MEDIA_TYPE).to_owned(),
        data: STANDARD.encode(&file.bytes),
        language: fields.text("language").map(str::to_owned),
        prompt: fields.text("prompt").map(str::to_owned),
    };
    let request = service_request(fields.need_text("model")?, service);
    let is_text = fields.text("response_format") == Some("text");
    // The form's bytes cannot be hashed: its boundary differs on every attempt.
    let compared = serde_json::to_vec(&(&request, is_text)).map_err(Refusal::internal)?;
    let asked = ServiceRequest { request, compared };
    serve_service(front, caller, headers, asked, |reply| Ok(words(&reply, is_text))).await
}

/// Converts a form's fields to an object; a file becomes `true`, since only its presence is
/// checked.
fn form_fields(form: &[FormPart]) -> Result<Value, Refusal> {
    let mut fields = Map::new();
    for part in form {
        let is_file = part.file_name.is_some() || part.name == "file";
        let value = match std::str::from_utf8(&part.bytes) {
            _ if is_file => json!(true),
            Ok(text) => json!(text),
            Err(_) => return Err(Path::ROOT.field(&part.name).refuse("must be text")),
        };
        let is_list = part.name.ends_with("[]");
        if fields.insert(part.name.clone(), value).is_some() && !is_list {
            return Err(Path::ROOT.field(&part.name).refuse("stands there twice"));
        }
    }
    Ok(Value::Object(fields))
}

fn words(reply: &ChatReply, is_text: bool) -> Response {
    if is_text {
        return format!("{}\n", reply.text).into_response();
    }
    let mut body = json!({"text": reply.text});
    if let Some(usage) = &reply.raw_usage {
        body["usage"] = usage.clone();
    }
    Json(body).into_response()
}
