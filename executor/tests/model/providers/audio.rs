//! Speech as text and text as speech.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use convergio_domain::metering::Meter;
use convergio_executor::model::{
    HttpProvider, Provider, ProviderConfig, Recording, Secret, SpeechRequest,
};
use serde_json::{Value, json};

use super::{KEY, led_to};
use crate::server::{Server, json};

fn recording() -> Recording {
    let bytes = Bytes::from_static(b"RIFF\0\r\n--not-the-boundary");
    Recording { bytes, media_type: "audio/wav".into(), language: Some("en".into()) }
}

fn spoken() -> SpeechRequest {
    SpeechRequest { text: "Grüße".into(), voice: "alloy".into(), format: "mp3".into() }
}

fn config() -> ProviderConfig {
    ProviderConfig::openai(Secret::new(KEY))
}

fn provider(server: &Server, config: ProviderConfig) -> HttpProvider {
    HttpProvider::new(led_to(server, config)).expect("a valid URL")
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
        (Value::Null, vec![], false),
        (json!({"type": "duration", "seconds": -1}), vec![], false),
    ];
    for (usage, expected, confirmed) in cases {
        let answer = text(usage.clone());
        let server = Server::chatting(move || json(200, &answer)).await;
        let told = provider(&server, config()).transcribe("whisper-1", &recording()).await;
        let told = told.expect("words");
        let meters: Vec<_> = told.usage.0.into_iter().collect();
        assert_eq!(
            (told.text.as_str(), meters, told.confirmed),
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
    let provider = provider(&server, config());
    provider.transcribe("whisper-1", &recording()).await.expect("words");
    let seen = &server.seen()[0];
    assert_eq!(seen.path, "/v1/audio/transcriptions");
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    let kind = seen.headers["content-type"].to_str().expect("text");
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").expect("a form");
    let body = String::from_utf8_lossy(&seen.body);
    let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
    assert_eq!((parts.len(), parts[5]), (6, "--\r\n"));
    assert!(parts[1].ends_with("name=\"model\"\r\n\r\nwhisper-1\r\n"), "{body}");
    assert!(parts[3].ends_with("name=\"language\"\r\n\r\nen\r\n"), "{body}");
    assert!(parts[4].contains("filename=\"audio.wav\"\r\ncontent-type: audio/wav\r\n\r\nRIFF\0"));
    assert!(parts[4].ends_with("--not-the-boundary\r\n"), "{body}");
}

#[tokio::test]
async fn azures_deployments_hear_too() {
    let azure = |version| {
        ProviderConfig::azure(Secret::new(KEY), "https://r.openai.azure.com", version, &["hear"])
    };
    let cases = [
        (azure(None), "/v1/audio/transcriptions"),
        (azure(Some("2024-10-21")), "/v1/deployments/hear/audio/transcriptions"),
    ];
    for (config, path) in cases {
        let server = Server::chatting(|| json(200, &text(Value::Null))).await;
        provider(&server, config).transcribe("hear", &recording()).await.expect("words");
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
    let said = provider(&server, config()).speak("tts-1", &spoken()).await.expect("sound");
    assert_eq!(
        (said.bytes.as_ref(), said.media_type.as_str()),
        (&b"ID3\xff\x00"[..], "audio/mpeg")
    );
    assert_eq!(said.usage.0.into_iter().collect::<Vec<_>>(), [(Meter::Characters, 5)]);
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
        let error = provider(&server, config()).speak("tts-1", &spoken()).await.expect_err("none");
        assert_eq!(error.code, code);
        assert!(!error.message.contains(KEY), "{error}");
    }
    let server = Server::chatting(|| json(200, &json!({"no": "text"}))).await;
    let error = provider(&server, config()).transcribe("whisper-1", &recording()).await;
    assert_eq!(error.expect_err("no words").code, "provider.unavailable");
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_before_it_is_sent() {
    let server = Server::chatting(|| json(200, &json!({}))).await;
    let provider = provider(&server, config());
    let odd = Recording { media_type: "audio/wav\r\nx: y".into(), ..recording() };
    let large = Recording { bytes: vec![0; 26 << 20].into(), ..recording() };
    let silent = SpeechRequest { text: String::new(), ..spoken() };
    let long = SpeechRequest { text: "x".repeat(5000), ..spoken() };
    for recording in [odd, large] {
        assert!(!provider.transcribe("whisper-1", &recording).await.expect_err("odd").retryable);
    }
    for request in [silent, long] {
        let error = provider.speak("tts-1", &request).await.expect_err("odd");
        assert_eq!(error.code, "request.invalid");
    }
    let deaf = HttpProvider::new(led_to(&server, ProviderConfig::anthropic(Secret::new(KEY))));
    let error = deaf.expect("a valid URL").transcribe("m", &recording()).await.expect_err("deaf");
    assert!(
        error.code == "request.invalid" && error.message.contains("no transcription"),
        "{error}"
    );
    assert!(server.seen().is_empty());
}
