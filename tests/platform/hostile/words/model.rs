//! A model server that does what the prompt says after `do:`, and repeats what it was told.

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Starts it; gives its URL, with `/v1`.
pub(super) async fn start() -> String {
    let models = || async { Json(json!({"data": [{"id": "fix", "max_model_len": 200_000}]})) };
    let app =
        Router::new().route("/v1/chat/completions", post(chat)).route("/v1/models", get(models));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/v1")
}

/// What the first message that says `do:NAME WORDS` wants.
fn wanted(request: &Value) -> (String, String) {
    let messages = request["messages"].as_array().expect("messages");
    let texts = messages.iter().filter_map(|message| message["content"].as_str());
    let found = texts.filter_map(|text| text.split_once("do:")).next();
    let (_, order) = found.unwrap_or(("", "answer nothing"));
    let (name, words) = order.split_once(' ').unwrap_or((order, ""));
    (name.to_owned(), words.to_owned())
}

/// What repeats a prompt as a whole is left out by the platform; one word of it is not noticed.
fn first_word(words: &str) -> &str {
    words.split(' ').next().unwrap_or(words)
}

async fn chat(body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let (name, words) = wanted(&request);
    let refused = |status: u16, kind: &str| {
        let error =
            json!({"code": kind, "message": format!("cannot work on <{}>", first_word(&words))});
        let status = StatusCode::from_u16(status).expect("a status");
        (status, Json(json!({"error": error}))).into_response()
    };
    match name.as_str() {
        "bad_request" => refused(400, &words),
        "bad_key" => refused(401, "invalid_api_key"),
        "no_model" => refused(404, "model_not_found"),
        "too_long" => refused(400, "context_length_exceeded"),
        "filtered" => refused(400, "content_filter"),
        "limited" => refused(429, "rate_limit_exceeded"),
        "no_money" => refused(429, "insufficient_quota"),
        "broken" => refused(500, "oops"),
        "busy" => refused(503, "overloaded"),
        "hang" => std::future::pending().await,
        "page" => ([(header::CONTENT_TYPE, "text/html")], format!("<p>{words}")).into_response(),
        "half_json" => {
            let half = format!("{{\"choices\": [{{\"message\": \"{words}");
            ([(header::CONTENT_TYPE, "application/json")], half).into_response()
        }
        "odd_finish" => said(&words, &words),
        "nonsense" => said(&words, "content_filter"),
        "bad_arguments" => called("math-eval", &json!({"expression": words}).to_string()),
        "no_such_tool" => called(&words, "{}"),
        "no_json_arguments" => called("math-eval", &words),
        "other_tool" => called("memory-store", &json!({"text": words}).to_string()),
        "spawn_nobody" => called("agent-spawn", &json!({"graph": words}).to_string()),
        "spawn_wrongly" => called("agent-spawn", &json!({words: 1}).to_string()),
        "bad_proposal" => {
            let node = json!({"id": "a", "tool": words});
            said(&json!({"nodes": [node]}).to_string(), "stop")
        }
        _ => said(&words, "stop"),
    }
}

fn said(text: &str, finish: &str) -> Response {
    let message = json!({"role": "assistant", "content": text});
    whole(&message, finish)
}

fn called(name: &str, arguments: &str) -> Response {
    let function = json!({"name": name, "arguments": arguments});
    let call = json!({"id": "call_1", "type": "function", "function": function});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    whole(&message, "tool_calls")
}

fn whole(message: &Value, finish: &str) -> Response {
    let usage = json!({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30});
    let choice = json!({"index": 0, "message": message, "finish_reason": finish});
    Json(json!({"model": "fix-1", "choices": [choice], "usage": usage})).into_response()
}
