//! The models that an Ollama server keeps: described, pulled with progress, and removed.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::provider::endpoint::Endpoint;
use crate::provider::listing;
use crate::provider::refusal::ProviderRefusal;
use crate::provider::scrub::{clean_name, scrub_message};
use crate::provider::sse::{Framing, StreamDecoder};
use crate::provider::{ModelError, Timeouts};

/// Maximum bytes of a model's description.
const SHOW_LIMIT: usize = 16 << 20;
/// Longest silence of a server that pulls a model: verifying a large model's digest is silent.
const PULL_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for requests that need no download.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The model library of one Ollama server.
pub struct OllamaLibrary {
    endpoint: Endpoint,
    client: Client,
}

/// Progress of a pull, as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// The current step, in Ollama's words.
    pub status: String,
    /// Digest of the layer being fetched, if any.
    pub digest: Option<String>,
    /// Size of the layer in bytes.
    pub total_bytes: u64,
    /// Bytes of the layer fetched so far.
    pub completed_bytes: u64,
}

impl OllamaLibrary {
    /// Opens the library of the server at `url`, with or without `/v1`.
    ///
    /// # Errors
    /// The URL is malformed, or the machine has no usable TLS.
    pub fn new(url: &str) -> Result<Self, ModelError> {
        let endpoint = Endpoint::parse(url)?;
        let client = endpoint.build_client(Timeouts::default())?;
        Ok(Self { endpoint, client })
    }

    /// Returns the server's description of a model.
    ///
    /// # Errors
    /// The server has no such model or cannot be reached.
    pub async fn show_model(&self, model: &str) -> Result<Value, ModelError> {
        let request = self.client.post(self.endpoint.url_beside_v1("/api/show"));
        let response = request.json(&json!({"model": model})).timeout(REQUEST_TIMEOUT).send().await;
        let response = checked_response(response).await?;
        let text = listing::read_text(response, SHOW_LIMIT).await.unwrap_or_default();
        serde_json::from_str(&text).map_err(|_| malformed_reply("a description is not JSON"))
    }

    /// Removes a model from the server's disk.
    ///
    /// # Errors
    /// The server has no such model or cannot be reached.
    pub async fn remove_model(&self, model: &str) -> Result<(), ModelError> {
        let request = self.client.delete(self.endpoint.url_beside_v1("/api/delete"));
        let response = request.json(&json!({"model": model})).timeout(REQUEST_TIMEOUT).send().await;
        checked_response(response).await.map(|_| ())
    }

    /// Pulls a model and reports progress to `on_progress`. The server verifies digests, and
    /// resumes a pull that was interrupted.
    ///
    /// # Errors
    /// There is no such model, or the pull was interrupted.
    pub async fn pull_model(
        &self,
        model: &str,
        on_progress: impl Fn(PullProgress) + Send,
    ) -> Result<(), ModelError> {
        let request = self.client.post(self.endpoint.url_beside_v1("/api/pull"));
        let response = request.json(&json!({"model": model, "stream": true})).send().await;
        let mut bytes = checked_response(response).await?.bytes_stream();
        let mut lines = StreamDecoder::new(Framing::JsonLines);
        let mut is_done = false;
        loop {
            let timeout_error = || ModelError::new("provider.timeout", true, "Ollama fell silent");
            let Some(chunk) =
                timeout(PULL_IDLE_TIMEOUT, bytes.next()).await.map_err(|_| timeout_error())?
            else {
                break;
            };
            let chunk = chunk.map_err(|_| interrupted_pull())?;
            let pieces =
                lines.push_bytes(&chunk).map_err(|_| malformed_reply("an endless line"))?;
            for piece in pieces {
                // `success` is the last line; a stream that ends without it was cut.
                is_done |= report_line(&piece, &on_progress)?;
            }
        }
        for piece in lines.take_rest() {
            is_done |= report_line(&piece, &on_progress)?;
        }
        if is_done { Ok(()) } else { Err(interrupted_pull()) }
    }
}

/// Reports one line of progress. Returns whether it is the last one.
///
/// # Errors
/// The line is not JSON, or is the server's error.
fn report_line(
    data: &str,
    on_progress: &(impl Fn(PullProgress) + Send),
) -> Result<bool, ModelError> {
    let line: Value =
        serde_json::from_str(data).map_err(|_| malformed_reply("a line is not JSON"))?;
    if let Some(server_message) = line["error"].as_str() {
        let message =
            format!("Ollama cannot fetch the model: {}", scrub_message(server_message, None, ""));
        return Err(ModelError::new("provider.unavailable", false, message));
    }
    let status = clean_name(line["status"].as_str().unwrap_or_default(), 200);
    let is_done = status == "success";
    on_progress(PullProgress {
        status,
        digest: line["digest"].as_str().map(|digest| clean_name(digest, 100)),
        total_bytes: line["total"].as_u64().unwrap_or(0),
        completed_bytes: line["completed"].as_u64().unwrap_or(0),
    });
    Ok(is_done)
}

/// Returns the response if it is a success, else the server's error.
async fn checked_response(response: reqwest::Result<Response>) -> Result<Response, ModelError> {
    let unreachable =
        |_| ModelError::provider_unavailable("Ollama cannot be reached: is it running?");
    let response = response.map_err(unreachable)?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status == StatusCode::OK {
        return Ok(response);
    }
    let text = listing::read_text(response, 64 << 10).await.unwrap_or_default();
    let refusal = ProviderRefusal::from_response(status, &headers, &text);
    let server_message = scrub_message(&refusal.message, None, "");
    Err(refusal.into_error("Ollama", &server_message))
}

fn malformed_reply(problem: &str) -> ModelError {
    ModelError::provider_unavailable(format!("Ollama answered what cannot be used: {problem}"))
}

fn interrupted_pull() -> ModelError {
    ModelError::provider_unavailable(
        "the fetch broke off: the same command goes on where it stopped",
    )
}
