//! Embeddings, transcriptions and speech at OpenAI's door, with a test in the place of an executor.

use std::sync::Arc;

use convergio_domain::chat::{ChatRequest, ModelService, PackedVector};
use convergio_domain::event::Event;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::Seq;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::doors::answer_calls_with;
use crate::harness::{Api, parts, run_stream};

const EMBEDDINGS: &str = "/openai/v1/embeddings";
const SPEECH: &str = "/openai/v1/audio/speech";
const TRANSCRIPTIONS: &str = "/openai/v1/audio/transcriptions";

fn reply(service: Value, text: &str) -> Value {
    let mut reply = json!({"text": text, "finish": "stop", "provider": "p", "model": "m-1",
        "confirmed": true, "usage": {"in_fresh": 7},
        "raw_usage": {"type": "duration", "seconds": 2}});
    if !service.is_null() {
        reply["service"] = service;
    }
    reply
}

async fn answering(service: Value, text: &str) -> Arc<Api> {
    let api = Arc::new(Api::start().await);
    answer_calls_with(&api, reply(service, text));
    api
}

fn vectors() -> Value {
    let vectors = [[0.5, -1.0], [0.1, 2.0]].map(|vector| PackedVector::from_numbers(&vector));
    json!({"type": "vectors", "vectors": vectors})
}

/// What a run was asked.
async fn asked(api: &Api, run: &str) -> ChatRequest {
    let stream = run_stream(run);
    let log = api.repository.event_log();
    let records = log.read_stream(&stream, Seq(0), 10).await.expect("the log works");
    let created = records[0].body.events.iter().find_map(|event| match event {
        Event::Run(RunEvent::RunCreated(created)) => Some(created.input),
        _ => None,
    });
    let input: PayloadRef = created.expect("it has inputs");
    let bytes = log.read_payload(&stream, input).await.expect("the log works").expect("kept");
    let mut input: Value = serde_json::from_slice(&bytes).expect("JSON");
    serde_json::from_value(input["request"].take()).expect("a request")
}

fn run_of(response: &Response) -> String {
    let headers = response.headers();
    assert_eq!(headers["x-request-id"], headers["x-convergio-run"]);
    headers["x-convergio-run"].to_str().expect("text").to_owned()
}

async fn send(api: &Api, path: &str, body: &Value) -> Response {
    let request = api.request(Method::POST, path, Some("cvg_one")).json(body);
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn texts_become_vectors_in_either_encoding() {
    let api = answering(vectors(), "").await;
    let body = json!({"model": "p/e", "input": ["a", "b"], "dimensions": 2, "user": "u"});
    let response = send(&api, EMBEDDINGS, &body).await;
    assert_eq!(response.headers()["x-convergio-left-out"], "user");
    let run = run_of(&response);
    let (status, answer) = parts(response).await;
    assert_eq!((status, &answer["object"]), (200, &json!("list")), "{answer}");
    assert_eq!(answer["model"], "m-1");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
    assert_eq!(answer["data"][1]["index"], 1);
    assert_eq!(answer["data"][0]["embedding"], json!([0.5, -1.0]));
    let tenth = answer["data"][1]["embedding"][0].as_f64().expect("a number");
    assert_eq!(tenth, f64::from(0.1_f32), "not a bit of it is lost");
    let request = asked(&api, &run).await;
    let texts = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(request.model, "p/e");
    assert_eq!(request.service, Some(ModelService::Embed { texts, dimensions: Some(2) }));

    let body = json!({"model": "e", "input": "a", "encoding_format": "base64"});
    let (_, answer) = parts(send(&api, EMBEDDINGS, &body).await).await;
    assert_eq!(answer["data"][0]["embedding"], PackedVector::from_numbers(&[0.5, -1.0]).as_str());
}

#[tokio::test]
async fn what_is_not_taken_is_named() {
    let api = Api::start().await;
    let speech = |field: &str, value: Value| {
        let mut body = json!({"model": "m", "input": "a", "voice": "v"});
        body[field] = value;
        body
    };
    for (path, body, param) in [
        (EMBEDDINGS, json!({"model": "m", "inputs": "a"}), "inputs"),
        (EMBEDDINGS, json!({"model": "m"}), "input"),
        (EMBEDDINGS, json!({"model": "m", "input": []}), "input"),
        (EMBEDDINGS, json!({"model": "m", "input": ""}), "input"),
        (EMBEDDINGS, json!({"model": "m", "input": ["a", ""]}), "input[1]"),
        (EMBEDDINGS, json!({"model": "m", "input": [1, 2]}), "input"),
        (EMBEDDINGS, json!({"model": "m", "input": [[1, 2]]}), "input"),
        (EMBEDDINGS, json!({"model": "m", "input": "a", "dimensions": 0}), "dimensions"),
        (
            EMBEDDINGS,
            json!({"model": "m", "input": "a", "encoding_format": "hex"}),
            "encoding_format",
        ),
        (EMBEDDINGS, json!({"input": "a"}), "model"),
        (SPEECH, speech("stream_format", json!("sse")), "stream_format"),
        (SPEECH, speech("instructions", json!("slowly")), "instructions"),
        (SPEECH, speech("speed", json!(2)), "speed"),
        (SPEECH, speech("response_format", json!("midi")), "response_format"),
    ] {
        let (status, answer) = parts(send(&api, path, &body).await).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
    }
}

#[tokio::test]
async fn a_text_is_spoken() {
    let service = json!({"type": "speech", "media_type": "audio/mpeg", "data": "SUQzAA=="});
    let api = answering(service, "").await;
    let body = json!({"model": "m", "input": "Grüße", "voice": "alloy"});
    let response = send(&api, SPEECH, &body).await;
    assert_eq!(response.headers()["content-type"], "audio/mpeg");
    let run = run_of(&response);
    assert_eq!(response.bytes().await.expect("bytes").as_ref(), b"ID3\0");
    let (text, voice, format) = ("Grüße".to_owned(), "alloy".to_owned(), "mp3".to_owned());
    let asked = asked(&api, &run).await;
    assert_eq!(asked.service, Some(ModelService::Speak { text, voice, format }));
}

/// A form as SDKs send it.
fn form(boundary: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in fields {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n");
        form.extend_from_slice(format!("{head}\r\n{value}\r\n").as_bytes());
    }
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
         Content-Type: audio/wav\r\n\r\n"
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(b"RIFF\0\xff");
    form.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    form
}

async fn send_form(api: &Api, boundary: &str, form: Vec<u8>, key: Option<&str>) -> Response {
    let kind = format!("multipart/form-data; boundary={boundary}");
    let request = api.request(Method::POST, TRANSCRIPTIONS, Some("cvg_one"));
    let request = request.header("content-type", kind).body(form);
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn a_recording_becomes_words() {
    let api = answering(Value::Null, "the ship sails").await;
    let fields = [("model", "whisper-1"), ("language", "en"), ("prompt", "ships")];
    let response = send_form(&api, "b", form("b", &fields), None).await;
    let run = run_of(&response);
    let (status, answer) = parts(response).await;
    let expected = json!({"text": "the ship sails", "usage": {"type": "duration", "seconds": 2}});
    assert_eq!((status, answer), (200, expected));
    let asked = asked(&api, &run).await;
    let Some(ModelService::Transcribe { file_name, media_type, data, language, prompt }) =
        asked.service
    else {
        panic!("{:?}", asked.service)
    };
    let told = (file_name.as_str(), media_type.as_str(), data.as_str());
    assert_eq!(told, ("a.wav", "audio/wav", "UklGRgD/"));
    assert_eq!((language.as_deref(), prompt.as_deref()), (Some("en"), Some("ships")));

    let fields = [("model", "whisper-1"), ("response_format", "text")];
    let response = send_form(&api, "b", form("b", &fields), None).await;
    assert_eq!(response.text().await.expect("text"), "the ship sails\n");
}

#[tokio::test]
async fn what_a_form_may_not_hold_is_named() {
    let api = Api::start().await;
    for (field, value) in [
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("stream", "true"),
        ("temperature", "0.5"),
        ("colour", "red"),
        ("model", "another"),
    ] {
        let fields = [("model", "m"), (field, value)];
        let response = send_form(&api, "b", form("b", &fields), None).await;
        let (status, answer) = parts(response).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(field)), "{answer}");
    }
}

#[tokio::test]
async fn a_recording_that_the_log_does_not_take_is_named() {
    let api = Api::start().await;
    // Were they JSON, the brackets would be values that have no room.
    let mut large = form("b", &[("model", "m")]);
    let end = large.len() - "\r\n--b--\r\n".len();
    large.splice(end..end, std::iter::repeat_n(b'{', 13_000_000));
    let (status, answer) = parts(send_form(&api, "b", large, None).await).await;
    assert_eq!((status, &answer["error"]["param"]), (413, &json!("file")), "{answer}");
}

#[tokio::test]
async fn a_form_that_comes_again_with_its_key_is_the_same_call() {
    let api = answering(Value::Null, "words").await;
    let send = async |boundary: &str, model: &str| {
        let form = form(boundary, &[("model", model)]);
        let response = send_form(&api, boundary, form, Some("k")).await;
        let run = response.headers().get("x-convergio-run").cloned();
        (response.status().as_u16(), run)
    };
    let first = send("one", "m").await;
    assert_eq!(first.0, 200);
    assert_eq!(send("two", "m").await, first);
    assert_eq!(send("three", "another").await.0, 422);
}

#[tokio::test]
async fn a_service_is_no_completion_of_earlier() {
    let api = answering(vectors(), "").await;
    let response = send(&api, EMBEDDINGS, &json!({"model": "e", "input": "a"})).await;
    let run = run_of(&response);
    assert_eq!(response.status().as_u16(), 200);
    for id in [format!("chatcmpl-{run}"), run] {
        let (status, _) = api.get(&format!("/openai/v1/chat/completions/{id}")).await;
        assert_eq!(status, 404);
    }
}
