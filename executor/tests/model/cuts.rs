//! Streams that are cut anywhere: never a clean end that was none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use convergio_executor::provider::{ProviderApi, ProviderConfig, Secret};
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use serde_json::{Value, json};

use crate::server::{Server, ask};

/// A provider and its answer: the pieces, and the place of the one that says why it ended.
struct Case {
    config: ProviderConfig,
    pieces: Vec<Value>,
    end: usize,
    kind: &'static str,
}

fn cases() -> Vec<Case> {
    let key = || Secret::new("canary-key-0123456789");
    let chunk = |delta: Value, finish: Value| {
        json!({"model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let chat = vec![
        chunk(json!({"content": "Zoë 你好 "}), Value::Null),
        chunk(json!({"content": "fin"}), Value::Null),
        chunk(json!({}), json!("stop")),
        json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}),
    ];
    let messages = vec![
        json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 9}}}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": "Zoë 你好 fin"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 4}}),
        json!({"type": "message_stop"}),
    ];
    let lines = vec![
        json!({"model": "m", "message": {"role": "assistant", "content": "Zoë 你好 fin"},
            "done": false}),
        json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true,
            "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4}),
    ];
    let ollama = ProviderConfig::without_key(
        "local",
        "http://127.0.0.1:1",
        ProviderClass::Local,
        KernelPlatform::Ollama,
    );
    vec![
        Case {
            config: ProviderConfig::for_openai(key()),
            pieces: chat,
            end: 2,
            kind: "event-stream",
        },
        Case {
            config: ProviderConfig {
                api: ProviderApi::Anthropic { version: "2026-10-21".into() },
                ..ProviderConfig::for_anthropic(key())
            },
            pieces: messages,
            end: 4,
            kind: "event-stream",
        },
        Case { config: ollama, pieces: lines, end: 1, kind: "x-ndjson" },
    ]
}

/// The bytes of the answer, and how many of them tell why it ended.
fn written(case: &Case, eol: &str) -> (Vec<u8>, usize) {
    let (mut text, mut end) = (String::new(), 0);
    for (place, piece) in case.pieces.iter().enumerate() {
        if case.kind == "event-stream" {
            text.push_str(&format!(": keep{eol}data: {piece}"));
        } else {
            text.push_str(&piece.to_string());
        }
        if place == case.end {
            end = text.len();
        }
        text.push_str(eol);
        if case.kind == "event-stream" {
            text.push_str(eol);
        }
    }
    (text.into_bytes(), end)
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_ends_well_only_after_its_end_was_told() {
    for case in cases() {
        for eol in ["\n", "\r\n", "\r"] {
            if case.kind != "event-stream" && eol == "\r" {
                continue;
            }
            let (bytes, end) = written(&case, eol);
            let cut = Arc::new(AtomicUsize::new(0));
            let (shown, whole, kind) = (Arc::clone(&cut), bytes.clone(), case.kind);
            let server = Server::chatting(move || {
                let cut = shown.load(Ordering::SeqCst);
                respond(kind, whole[..cut].to_vec())
            });
            let server = server.await;
            let config = ProviderConfig { base_url: server.url.clone(), ..case.config.clone() };
            for at in (0..=bytes.len()).filter(|at| at % 3 == 0 || *at >= end.saturating_sub(4)) {
                cut.store(at, Ordering::SeqCst);
                match ask(config.clone()).await {
                    Ok(answer) => {
                        assert!(at >= end, "{at} of {end}: told as an end");
                        assert_eq!(answer.joined_text(), "Zoë 你好 fin");
                        assert_eq!(answer.finish, "stop");
                    }
                    Err(error) => {
                        assert!(at < end, "{at} of {end}: {error}");
                        assert_eq!(error.code, "provider.unavailable");
                    }
                }
            }
        }
    }
}

fn respond(kind: &str, bytes: Vec<u8>) -> Response {
    let kind = if kind == "x-ndjson" { "application/x-ndjson" } else { "text/event-stream" };
    // Bytes of one letter come in two pieces.
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        bytes.chunks(7).map(|piece| Ok(piece.to_vec())).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}
