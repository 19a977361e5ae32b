//! Streams of events: every number once and in order, wherever one resumes.

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::Value;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::Api;

/// The sequence numbers of a stream until its end.
async fn sse(api: &Api, run: &str, after: u64) -> Vec<u64> {
    let path = format!("/v1/runs/{run}/events");
    let request = api.request(Method::GET, &path, Some("cvg_one"));
    let request = request.header("accept", "text/event-stream");
    let answer = request.header("last-event-id", after.to_string()).send().await.expect("opens");
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    let text = answer.text().await.expect("it ends after the run");
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.map(|id| id.trim().parse().expect("a number")).collect()
}

#[tokio::test]
async fn a_stream_resumes_at_every_number_without_gap_or_repeat() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a", "b"], false).await;
    api.advance(&run, &["c"], false).await;
    api.advance(&run, &[], true).await;
    for after in 0..4_u64 {
        let expected: Vec<u64> = (after + 1..=5).collect();
        assert_eq!(sse(&api, &run, after).await, expected);
    }
}

#[tokio::test]
async fn a_stream_hears_what_is_appended_while_it_is_open() {
    let api = Api::start().await;
    let run = api.run().await;
    let (seen, ()) = tokio::join!(sse(&api, &run, 0), async {
        for step in ["a", "b", "c", "d"] {
            api.advance(&run, &[step], false).await;
        }
        api.advance(&run, &[], true).await;
    });
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_web_socket_carries_the_same_events() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    api.advance(&run, &[], true).await;
    let url = format!("{}/v1/runs/{run}/stream?after=1", api.url.replace("http", "ws"));
    let mut request = url.into_client_request().expect("a request");
    let token = "Bearer cvg_one".parse().expect("a header");
    request.headers_mut().insert("authorization", token);
    let (socket, _) = connect_async(request).await.expect("opens");
    let frames: Vec<Value> = socket
        .filter_map(async |message| serde_json::from_str(message.ok()?.to_text().ok()?).ok())
        .collect()
        .await;
    let numbers: Vec<_> = frames.iter().map(|frame| frame["value"]["seq"].as_u64()).collect();
    assert_eq!(numbers, [Some(2), Some(3)]);
}
