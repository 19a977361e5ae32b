//! HTTP client of the command line: JSON requests, downloads and event streams.

use anyhow::Context;
use bytes::Bytes;
use convergio_domain::id::TokenId;
use convergio_domain::token::TokenHash;
use convergio_process::exit::{self, ExitError};
use convergio_schemas::wire::{EventEnvelope, Frame, Problem, ProgressNote};
use futures_util::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Client of one server, with one token.
#[derive(Clone)]
pub(crate) struct ApiClient {
    http: reqwest::Client,
    url: String,
    token: Zeroizing<String>,
}

impl ApiClient {
    pub(crate) fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let http = convergio_executor::provider::http_client()?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { http, url, token: Zeroizing::new(token.to_owned()) })
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.url
    }

    /// Id of the token that requests carry.
    pub(crate) fn token_id(&self) -> TokenId {
        // The token's hash is its id, so that the server need not be asked.
        TokenId::from_hash(&TokenHash::from_token(&self.token))
    }

    fn build_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&*self.token)
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        let response =
            self.send_request(self.build_request(Method::GET, path).query(query)).await?;
        Ok(response.json().await?)
    }

    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        idempotency_key: Option<&str>,
    ) -> anyhow::Result<T> {
        let mut request = self.build_request(Method::POST, path).json(body);
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        Ok(self.send_request(request).await?.json().await?)
    }

    pub(crate) async fn delete_resource<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        let response =
            self.send_request(self.build_request(Method::DELETE, path).query(query)).await?;
        Ok(response.json().await?)
    }

    /// Posts a manifest as YAML text.
    pub(crate) async fn post_manifest<T: DeserializeOwned>(
        &self,
        path: &str,
        text: String,
    ) -> anyhow::Result<T> {
        let request =
            self.build_request(Method::POST, path).header("content-type", "application/yaml");
        Ok(self.send_request(request.body(text)).await?.json().await?)
    }

    /// Downloads a response of any length, chunk by chunk.
    pub(crate) async fn download_to(
        &self,
        path: &str,
        query: &[(&str, String)],
        out: &mut (impl std::io::Write + Send),
    ) -> anyhow::Result<()> {
        let response =
            self.send_request(self.build_request(Method::GET, path).query(query)).await?;
        let mut bytes = response.bytes_stream();
        while let Some(chunk) = bytes.next().await {
            out.write_all(&chunk.context("the server broke off")?)?;
        }
        Ok(out.flush()?)
    }

    /// Sends a request; a response that is no success becomes an error with its problem details.
    async fn send_request(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| {
            exit::unavailable_error(format!("the server at {} does not answer: {error}", self.url))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        // A body that is no problem document comes from a proxy or another program.
        let problem: Problem = response
            .json()
            .await
            .with_context(|| format!("the server answered {status} and no reason"))?;
        let mut message = format!("{} ({})", problem.detail, problem.code);
        for mistake in &problem.mistakes {
            message += &format!(
                "\n  {}:{} {}: {}",
                mistake.line, mistake.column, mistake.path, mistake.message
            );
        }
        // A 4xx is the caller's mistake and ends scripts with another exit code than a server that
        // fails.
        let code = if status.is_client_error() { exit::BAD_INPUT } else { exit::UNAVAILABLE };
        Err(ExitError { code, message }.into())
    }

    /// True if the server answers. The request carries no token: another process may listen there.
    pub(crate) async fn is_alive(&self) -> bool {
        // Short, since a dead server must not hold up every command.
        let request = self.http.get(format!("{}/healthz", self.url));
        let request = request.timeout(std::time::Duration::from_secs(2));
        self.send_request(request).await.is_ok()
    }

    /// Follows a run from a sequence number until its end and reconnects when the stream breaks.
    /// `on_frame` gets every event once, in order, with progress notes between them.
    pub(crate) async fn follow_run(
        &self,
        run: &str,
        mut after: u64,
        mut on_frame: impl FnMut(&Frame),
    ) -> anyhow::Result<()> {
        let path = format!("/v1/runs/{run}/events");
        let mut failures = 0;
        loop {
            let request =
                self.build_request(Method::GET, &path).header("accept", "text/event-stream");
            let request = request.header("last-event-id", after.to_string());
            match self.send_request(request).await {
                // The run has ended and all its events were delivered.
                Ok(response) if response.status() == StatusCode::NO_CONTENT => return Ok(()),
                Ok(response) => {
                    failures = 0;
                    if self.read_frames(response, &mut after, &mut on_frame).await {
                        return Ok(());
                    }
                }
                // That is 5 seconds of failures at least; a restart of the server takes less.
                Err(error) if failures == 20 || exit_code(&error) == Some(exit::BAD_INPUT) => {
                    return Err(error);
                }
                Err(_) => failures += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
    }

    /// Reads frames until the stream ends; returns whether the run has ended.
    async fn read_frames(
        &self,
        response: Response,
        after: &mut u64,
        on_frame: &mut impl FnMut(&Frame),
    ) -> bool {
        let mut bytes = response.bytes_stream();
        let mut decoder = SseDecoder::default();
        let mut has_ended = false;
        while let Some(Ok(chunk)) = bytes.next().await {
            for frame in decoder.feed_bytes(&chunk) {
                if let Frame::Event(event) = &frame {
                    *after = event.seq;
                    // A failed run that is reopened within the same stream has not ended.
                    has_ended =
                        is_end_event(event) || (has_ended && event.kind != "run.reopened.v1");
                }
                on_frame(&frame);
            }
        }
        has_ended
    }
}

fn exit_code(error: &anyhow::Error) -> Option<u8> {
    error.downcast_ref::<ExitError>().map(|exit| exit.code)
}

/// True if an event ends its run.
pub(crate) fn is_end_event(event: &EventEnvelope) -> bool {
    matches!(event.kind.as_str(), "run.completed.v1" | "run.failed.v1" | "run.cancelled.v1")
}

/// Decoder of server-sent events; keeps a line that is not complete yet.
#[derive(Default)]
struct SseDecoder {
    pending: Vec<u8>,
    event_name: String,
}

impl SseDecoder {
    fn feed_bytes(&mut self, chunk: &Bytes) -> Vec<Frame> {
        let mut frames = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(part);
            // A chunk may end within a line or a character: only whole lines are decoded.
            if part.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.pending).trim_end().to_owned();
                self.pending.clear();
                frames.extend(self.decode_line(&line));
            }
        }
        frames
    }

    fn decode_line(&mut self, line: &str) -> Option<Frame> {
        if let Some(name) = line.strip_prefix("event:") {
            self.event_name = name.trim().to_owned();
        }
        let data = line.strip_prefix("data:")?.trim_start();
        if self.event_name == "progress" {
            let note: ProgressNote = serde_json::from_str(data).ok()?;
            return Some(Frame::Progress(note));
        }
        serde_json::from_str(data).ok().map(Frame::Event)
    }
}
