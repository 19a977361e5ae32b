//! Calls of services other than chat, over HTTP: their requests are written, sent and read here,
//! whatever the provider.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_domain::billing::Usage;
use convergio_domain::chat::{
    MessagePart, ModelService, PackedVector, RECORDING_LIMIT, ServiceReply,
};
use convergio_eventstore::LogLimits;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::transport::{HttpProvider, JSON};
use crate::provider::answer::{NAME_LIMIT, is_small_usage};
use crate::provider::error::{ModelError, REQUEST_UNSUPPORTED};
use crate::provider::model_provider::{ChatAnswer, EncodedRequest, Provider, ProviderCall};
use crate::provider::multipart_form::{FormFile, write_form};
use crate::provider::scrub::clean_name;
use crate::provider::service::{ServiceCall, check_texts};
use crate::provider::{listing, usage};

/// Maximum characters of a text to be spoken, as OpenAI documents it.
const SPEECH_TEXT_LIMIT: usize = 4096;
/// Maximum bytes of an answer with vectors: as many numbers as the log accepts, in decimal digits.
const VECTORS_LIMIT: usize = 96 << 20;
/// Maximum bytes of an answer with a transcript.
const TRANSCRIPT_LIMIT: usize = 4 << 20;
/// Finish reason of a result that is complete.
const FINISH_STOP: &str = "stop";

/// Writes a service request in the provider's wire format.
///
/// # Errors
/// `request.unsupported`: the provider lacks the service. `request.invalid` or `request.too_large`:
/// the request is malformed or its result would not fit the log.
pub(super) fn write_service_request(
    provider: &HttpProvider,
    model: &str,
    service: &ModelService,
) -> Result<EncodedRequest, ModelError> {
    let json = |body: &Value| (Bytes::from(body.to_string()), JSON.to_owned());
    // A missing service is reported before mistakes in the request.
    service_path(provider, ServiceCall::from_service(service), model)?;
    let (body, media_type) = match service {
        ModelService::Embed { texts, dimensions } => {
            check_texts(model, texts, *dimensions)?;
            json(&provider.wire_dialect().write_embed(model, texts, *dimensions))
        }
        ModelService::Transcribe { file_name, media_type, data, language, prompt } => {
            let bytes = decode_recording(data)?;
            let file = FormFile { name: file_name, media_type, bytes: &bytes };
            let fields = [
                ("model", Some(model)),
                ("response_format", Some("json")),
                ("language", language.as_deref()),
                ("prompt", prompt.as_deref()),
            ];
            let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
            write_form(fields, file)?
        }
        ModelService::Speak { text, voice, format } => {
            if !(1..=SPEECH_TEXT_LIMIT).contains(&text.chars().count()) {
                let message =
                    format!("a text to be spoken has 1 to {SPEECH_TEXT_LIMIT} characters");
                return Err(ModelError::new("request.invalid", false, message));
            }
            json(&json!({"model": model, "input": text, "voice": voice,
                "response_format": format}))
        }
    };
    let (headers, left_out, native_names) = (Vec::new(), Vec::new(), Vec::new());
    Ok(EncodedRequest { body, media_type, headers, left_out, native_names })
}

fn decode_recording(data: &str) -> Result<Vec<u8>, ModelError> {
    let bytes = STANDARD
        .decode(data)
        .map_err(|_| ModelError::new("request.invalid", false, "the recording is no base64"))?;
    if bytes.is_empty() {
        return Err(ModelError::new("request.invalid", false, "the recording is empty"));
    }
    if bytes.len() > RECORDING_LIMIT {
        let message = format!(
            "a recording has at most {RECORDING_LIMIT} bytes: compress it, or cut it into parts"
        );
        return Err(ModelError::new("request.too_large", false, message));
    }
    Ok(bytes)
}

/// Returns the path of a service.
///
/// # Errors
/// `request.unsupported`: the provider lacks the service.
fn service_path(
    provider: &HttpProvider,
    service: ServiceCall,
    model: &str,
) -> Result<String, ModelError> {
    let dialect = provider.wire_dialect();
    let (path, service_name) = match service {
        ServiceCall::Embed { .. } => (dialect.embed_path(model), "embeddings"),
        ServiceCall::Transcribe { .. } => {
            (dialect.audio_path(model, "transcriptions"), "transcription")
        }
        ServiceCall::Speak { .. } => (dialect.audio_path(model, "speech"), "speech"),
    };
    path.ok_or_else(|| {
        let message = format!("{} has no {service_name}: use another provider", provider.name());
        ModelError::new(REQUEST_UNSUPPORTED, false, message)
    })
}

/// Sends a service call and waits for its result, until the call's timeout or cancellation.
pub(super) async fn call_service(
    provider: &HttpProvider,
    service: ServiceCall,
    call: ProviderCall<'_>,
    cancel: &CancellationToken,
) -> Result<ChatAnswer, ModelError> {
    let started_at = Instant::now();
    let mut exchange = ServiceExchange { provider, service, call, is_sent: false };
    // Biased to cancellation: a result that arrives at the same time is not wanted any more.
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            let message = format!("the call to {} was cancelled", provider.name());
            Err(ModelError::provider_unavailable(message))
        }
        result = timeout(call.timeout, exchange.run_exchange()) => result.unwrap_or_else(|_| {
            let message = format!("{} took longer than {:?}", provider.name(), call.timeout);
            Err(ModelError::new("provider.timeout", true, message))
        }),
    };
    let duration_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(answer) => Ok(ChatAnswer { duration_ms, ..answer }),
        // The estimate stands for a call that may have been worked on: the provider reports nothing
        // then.
        Err(error) => {
            let partial_usage = exchange.is_sent.then(|| service.estimated_usage());
            Err(ModelError { partial_usage, duration_ms, ..error })
        }
    }
}

/// A service call in flight.
struct ServiceExchange<'a> {
    provider: &'a HttpProvider,
    service: ServiceCall,
    call: ProviderCall<'a>,
    /// True if the provider may have worked on the call and bills for it.
    is_sent: bool,
}

impl ServiceExchange<'_> {
    /// Sends the call and reads its result.
    async fn run_exchange(&mut self) -> Result<ChatAnswer, ModelError> {
        let path = service_path(self.provider, self.service, self.call.model)?;
        let response = self.provider.send_service(&path, &self.call, &mut self.is_sent).await?;
        match self.service {
            ServiceCall::Embed { texts, .. } => self.read_vectors(response, texts).await,
            ServiceCall::Transcribe { .. } => self.read_transcript(response).await,
            ServiceCall::Speak { .. } => self.read_speech(response).await,
        }
    }

    async fn read_vectors(
        &self,
        response: Response,
        texts: usize,
    ) -> Result<ChatAnswer, ModelError> {
        let provider = self.provider;
        let body = provider.read_json(response, VECTORS_LIMIT).await?;
        let read = provider.wire_dialect().read_embeddings(&body);
        let read = read.ok_or_else(|| provider.malformed_answer("it has no embeddings"))?;
        // Vectors are matched to texts by position, so their number must agree.
        if read.vectors.len() != texts {
            return Err(provider.malformed_answer("not one vector for each text"));
        }
        // Vectors are stored in a packed form: decimal JSON would be several times as long.
        let vectors =
            read.vectors.iter().map(|vector| PackedVector::from_numbers(vector)).collect();
        let service = Some(ServiceReply::Vectors { vectors });
        let model = body["model"].as_str().filter(|model| !model.is_empty());
        let answer = self.build_answer(read.usage, &body["usage"]);
        let model = model.map_or(answer.model, |model| clean_name(model, NAME_LIMIT));
        Ok(ChatAnswer { service, model, ..answer })
    }

    async fn read_transcript(&self, response: Response) -> Result<ChatAnswer, ModelError> {
        let body = self.provider.read_json(response, TRANSCRIPT_LIMIT).await?;
        let text = body["text"].as_str();
        let text = text.ok_or_else(|| self.provider.malformed_answer("it has no text"))?;
        let answer = self.build_answer(usage::from_transcription(&body["usage"]), &body["usage"]);
        Ok(ChatAnswer { parts: vec![MessagePart::from_text(text)], ..answer })
    }

    async fn read_speech(&self, response: Response) -> Result<ChatAnswer, ModelError> {
        let provider = self.provider;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let media_type = kind.unwrap_or_default().to_owned();
        if !media_type.starts_with("audio/") && media_type != "application/octet-stream" {
            return Err(provider.malformed_answer("it is no sound"));
        }
        // A body cut at the limit is indistinguishable from one of exactly that length: both are
        // refused.
        let bytes = listing::read_bytes(response, LogLimits::PAYLOAD_BYTES).await;
        let bytes = bytes.ok_or_else(|| provider.malformed_answer("the sound broke off"))?;
        if bytes.len() >= LogLimits::PAYLOAD_BYTES {
            return Err(provider.malformed_answer("the sound does not end"));
        }
        let service = Some(ServiceReply::Speech { media_type, data: STANDARD.encode(bytes) });
        // The provider reports no usage with the audio; its characters are what is billed.
        let answer = self.build_answer(Some(self.service.estimated_usage()), &Value::Null);
        Ok(ChatAnswer { service, ..answer })
    }

    /// Builds the result with the usage that the provider reported, or else an estimate.
    fn build_answer(&self, reported: Option<Usage>, raw_usage: &Value) -> ChatAnswer {
        ChatAnswer {
            parts: Vec::new(),
            finish: FINISH_STOP.to_owned(),
            native_finish: String::new(),
            stop_sequence: None,
            service_tier: None,
            interface: self.provider.wire_dialect().wire_interface(),
            native: None,
            model: self.call.model.to_owned(),
            confirmed: reported.is_some(),
            usage: reported.unwrap_or_else(|| self.service.estimated_usage()),
            raw_usage: Some(raw_usage.clone())
                .filter(|usage| usage.is_object() && is_small_usage(usage)),
            service: None,
            duration_ms: 0,
            first_token_ms: None,
        }
    }
}
