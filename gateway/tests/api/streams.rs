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

/// The status of a stream of events that is opened after a number.
async fn status_after(api: &Api, run: &str, after: &str) -> u16 {
    let path = format!("/v1/runs/{run}/events");
    let request = api.request(Method::GET, &path, Some("cvg_one"));
    let request = request.header("accept", "text/event-stream").header("last-event-id", after);
    request.send().await.expect("opens").status().as_u16()
}

/// The frames of a WebSocket until it is closed.
async fn frames(api: &Api, run: &str, after: u64) -> Vec<Value> {
    let url = format!("{}/v1/runs/{run}/stream?after={after}", api.url.replace("http", "ws"));
    let mut request = url.into_client_request().expect("a request");
    let token = "Bearer cvg_one".parse().expect("a header");
    request.headers_mut().insert("authorization", token);
    let (socket, _) = connect_async(request).await.expect("opens");
    let frame = async |message: Result<tokio_tungstenite::tungstenite::Message, _>| {
        serde_json::from_str(message.ok()?.to_text().ok()?).ok()
    };
    socket.filter_map(frame).collect().await
}

#[tokio::test]
async fn who_has_seen_the_end_of_a_run_is_let_go() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    api.advance(&run, &[], true).await;
    for seen in ["3", "4", "99999999"] {
        assert_eq!(status_after(&api, &run, seen).await, 204, "{seen}");
    }
    assert_eq!(status_after(&api, &run, "2").await, 200);
    assert_eq!(status_after(&api, &run, "-1").await, 400);
    assert_eq!(frames(&api, &run, 3).await, Vec::<Value>::new(), "it closes");
    // A mark after the end is shown, and the stream ends all the same.
    let graph = api.graph().await;
    let mark = serde_json::json!({"run_id": run});
    api.post(&format!("/v1/graphs/{graph}/checkpoint"), &mark, None).await;
    assert_eq!(sse(&api, &run, 3).await, [4]);
    assert_eq!(status_after(&api, &run, "4").await, 204);
}

#[tokio::test]
async fn a_failed_run_that_goes_on_is_followed_from_its_old_end() {
    let api = Api::start().await;
    let run = api.run().await;
    api.advance(&run, &["a"], false).await;
    api.fail(&run, "a").await;
    let end = api.get(&format!("/v1/runs/{run}")).await.1["seq"].as_u64().expect("a number");
    assert_eq!(status_after(&api, &run, &end.to_string()).await, 204);
    api.post(&format!("/v1/runs/{run}/retry"), &serde_json::json!({}), None).await;
    let (seen, whole, socket, ()) =
        tokio::join!(sse(&api, &run, end), sse(&api, &run, 0), frames(&api, &run, end), async {
            api.advance(&run, &["a"], false).await;
            api.advance(&run, &[], true).await;
        });
    assert_eq!(seen, [end + 1, end + 2, end + 3], "reopened, started, completed");
    assert_eq!(whole, (1..=end + 3).collect::<Vec<_>>(), "the failure in between is no end");
    assert_eq!(socket.len(), 3);
}
