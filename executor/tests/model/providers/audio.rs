//! Speech as text and text as speech.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convergio_domain::billing::Meter;
use convergio_domain::chat::{ModelService, RECORDING_LIMIT, ServiceReply};
use convergio_executor::provider::{ChatAnswer, HttpProvider, ModelError, ProviderConfig, Secret};
use serde_json::{Value, json};

use super::{KEY, led_to, meters};
use crate::server::{Server, ask_service, json};

const SOUND: &[u8] = b"RIFF\0\r\n--not-the-boundary";

fn recording_of(bytes: &[u8], media_type: &str) -> ModelService {
    ModelService::Transcribe {
        file_name: "at \"dawn\".wav".into(),
        media_type: media_type.into(),
        data: STANDARD.encode(bytes),
        language: Some("en".into()),
        prompt: Some("the ship".into()),
    }
}

fn recording() -> ModelService {
    recording_of(SOUND, "audio/wav")
}

fn spoken(text: &str) -> ModelService {
    ModelService::Speak { text: text.into(), voice: "alloy".into(), format: "mp3".into() }
}

fn config() -> ProviderConfig {
    ProviderConfig::for_openai(Secret::new(KEY))
}

fn provider(server: &Server, config: ProviderConfig) -> HttpProvider {
    HttpProvider::new(led_to(server, config)).expect("a valid URL")
}

async fn hear(server: &Server) -> Result<ChatAnswer, ModelError> {
    ask_service(&provider(server, config()), "whisper-1", recording()).await
}

async fn speak(server: &Server, text: &str) -> Result<ChatAnswer, ModelError> {
    ask_service(&provider(server, config()), "tts-1", spoken(text)).await
}

fn text(usage: Value) -> Value {
    json!({"text": "the ship sails", "usage": usage})
}

#[tokio::test]
async fn a_recording_becomes_words_billed_by_tokens_or_by_time() {
    let tokens = json!({"type": "tokens", "input_tokens": 14, "output_tokens": 5,
        "total_tokens": 19, "input_token_details": {"audio_tokens": 12, "text_tokens": 2}});
    let by_tokens = vec![(Meter::InFresh, 2), (Meter::InAudio, 12), (Meter::OutText, 5)];
    let by_time = vec![(Meter::AudioMs, 9250)];
    let cases = [
        (tokens, by_tokens, true),
        (json!({"type": "duration", "seconds": 9.25}), by_time, true),
        // Our estimate: what a recording is billed by is not known, but not that it is free.
        (Value::Null, vec![(Meter::InAudio, 3)], false),
        (json!({"type": "duration", "seconds": -1}), vec![(Meter::InAudio, 3)], false),
    ];
    for (usage, expected, confirmed) in cases {
        let answer = text(usage.clone());
        let server = Server::chatting(move || json(200, &answer)).await;
        let told = hear(&server).await.expect("words");
        assert_eq!(
            (told.joined_text().as_str(), meters(&told), told.confirmed),
            ("the ship sails", expected, confirmed)
        );
        if let Some(total) = usage["total_tokens"].as_u64() {
            assert_eq!(told.raw_usage.expect("kept")["total_tokens"], total);
        }
    }
}

#[tokio::test]
async fn the_form_holds_the_file_and_what_is_asked() {
    let server = Server::chatting(|| json(200, &text(Value::Null))).await;
    hear(&server).await.expect("words");
    let seen = &server.seen()[0];
    assert_eq!(seen.path, "/v1/audio/transcriptions");
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    let kind = seen.headers["content-type"].to_str().expect("text");
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").expect("a form");
    let body = String::from_utf8_lossy(&seen.body);
    let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
    assert_eq!((parts.len(), parts[6]), (7, "--\r\n"));
    assert!(parts[1].ends_with("name=\"model\"\r\n\r\nwhisper-1\r\n"), "{body}");
    assert!(parts[3].ends_with("name=\"language\"\r\n\r\nen\r\n"), "{body}");
    assert!(parts[4].ends_with("name=\"prompt\"\r\n\r\nthe ship\r\n"), "{body}");
    let file = "filename=\"at %22dawn%22.wav\"\r\ncontent-type: audio/wav\r\n\r\nRIFF\0";
    assert!(parts[5].contains(file), "{body}");
    assert!(parts[5].ends_with("--not-the-boundary\r\n"), "{body}");
}

#[tokio::test]
async fn azures_deployments_hear_too() {
    let azure = |version| {
        ProviderConfig::for_azure(
            Secret::new(KEY),
            "https://r.openai.azure.com",
            version,
            &["hear"],
        )
    };
    let cases = [
        (azure(None), "/v1/audio/transcriptions"),
        (azure(Some("2024-10-21")), "/v1/deployments/hear/audio/transcriptions"),
    ];
    for (config, path) in cases {
        let server = Server::chatting(|| json(200, &text(Value::Null))).await;
        let provider = provider(&server, config);
        ask_service(&provider, "hear", recording()).await.expect("words");
        let seen = &server.seen()[0];
        assert_eq!(
            (seen.path.as_str(), &seen.headers["api-key"]),
            (path, &KEY.parse().expect("text"))
        );
    }
}

fn sound(kind: &'static str, bytes: impl Into<Body>) -> Response {
    ([("content-type", kind)], bytes.into()).into_response()
}

#[tokio::test]
async fn a_text_becomes_sound_and_its_characters_are_counted() {
    let server = Server::chatting(|| sound("audio/mpeg", &b"ID3\xff\x00"[..])).await;
    let answer = speak(&server, "Grüße").await.expect("sound");
    let (media_type, data) = ("audio/mpeg".to_owned(), STANDARD.encode(b"ID3\xff\x00"));
    assert_eq!(answer.service, Some(ServiceReply::Speech { media_type, data }));
    assert_eq!(meters(&answer), [(Meter::Characters, 5)]);
    let seen = &server.seen()[0];
    let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let expected = json!({"model": "tts-1", "input": "Grüße", "voice": "alloy",
        "response_format": "mp3"});
    assert_eq!((seen.path.as_str(), body), ("/v1/audio/speech", expected));
}

#[tokio::test]
async fn sound_that_never_ends_and_answers_that_are_none_are_refused() {
    let endless = || {
        let piece = Bytes::from(vec![0_u8; 1 << 20]);
        let many =
            futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
        sound("audio/mpeg", Body::from_stream(many))
    };
    let answers: [fn() -> Response; 3] = [
        endless,
        || sound("text/html", "<html>"),
        || json(401, &json!({"error": {"code": "invalid_api_key", "message": KEY}})),
    ];
    let codes = ["provider.unavailable", "provider.unavailable", "byok.bad_key"];
    for (answer, code) in answers.into_iter().zip(codes) {
        let server = Server::chatting(answer).await;
        let error = speak(&server, "Grüße").await.expect_err("none");
        assert_eq!(error.code, code);
        // What was refused was not worked on; what came and was no sound may be billed.
        assert_eq!(error.partial_usage.is_some(), code != "byok.bad_key");
        assert!(!error.message.contains(KEY), "{error}");
    }
    let server = Server::chatting(|| json(200, &json!({"no": "text"}))).await;
    let error = hear(&server).await.expect_err("no words");
    assert_eq!(error.code, "provider.unavailable");
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_before_it_is_sent() {
    let server = Server::chatting(|| json(200, &json!({}))).await;
    let provider = provider(&server, config());
    let large = vec![0; RECORDING_LIMIT + 1];
    for (service, code) in [
        (recording_of(SOUND, "audio/wav\r\nx: y"), "request.invalid"),
        (recording_of(&large, "audio/wav"), "request.too_large"),
        (recording_of(&[], "audio/wav"), "request.invalid"),
        (spoken(""), "request.invalid"),
        (spoken(&"x".repeat(5000)), "request.invalid"),
        (ModelService::Embed { texts: Vec::new(), dimensions: None }, "request.invalid"),
    ] {
        let error = ask_service(&provider, "m", service).await.expect_err("odd");
        assert_eq!((error.code, error.retryable), (code, false), "{error}");
        assert_eq!(error.partial_usage, None);
    }
    let deaf = HttpProvider::new(led_to(&server, ProviderConfig::for_anthropic(Secret::new(KEY))));
    let deaf = deaf.expect("a valid URL");
    let error = ask_service(&deaf, "m", recording()).await.expect_err("deaf");
    assert!(
        error.code == "request.unsupported" && error.message.contains("no transcription"),
        "{error}"
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_recording_as_large_as_may_be_is_taken() {
    let server = Server::chatting(|| json(200, &text(Value::Null))).await;
    let largest = recording_of(&vec![0; RECORDING_LIMIT], "audio/wav");
    ask_service(&provider(&server, config()), "whisper-1", largest).await.expect("words");
    assert!(server.seen()[0].body.len() > RECORDING_LIMIT);
}
