//! The models that an Ollama server keeps: described, pulled with progress, and removed.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::config::Timeouts;
use super::endpoint::Endpoint;
use super::error::ModelError;
use super::listing;
use super::refusal::Refusal;
use super::scrub::{name, scrub};
use super::sse::{Framing, Lines};

/// Maximum bytes of a model's description.
const SHOW_LIMIT: usize = 16 << 20;
/// Longest silence of a server that pulls a model: verifying a large model's digest is silent.
const IDLE: Duration = Duration::from_secs(300);
/// Longest wait for requests that need no download.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The model library of one Ollama server.
pub struct Library {
    endpoint: Endpoint,
    client: Client,
}

/// Progress of a pull, as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The current step, in Ollama's words.
    pub status: String,
    /// Digest of the layer being fetched, if any.
    pub digest: Option<String>,
    /// Size of the layer in bytes.
    pub total: u64,
    /// Bytes of the layer fetched so far.
    pub completed: u64,
}

impl Library {
    /// Opens the library of the server at `url`, with or without `/v1`.
    ///
    /// # Errors
    /// The URL is malformed, or the machine has no usable TLS.
    pub fn new(url: &str) -> Result<Self, ModelError> {
        let endpoint = Endpoint::parse(url)?;
        let client = endpoint.client(Timeouts::default())?;
        Ok(Self { endpoint, client })
    }

    /// Returns the server's description of a model.
    ///
    /// # Errors
    /// The server has no such model or cannot be reached.
    pub async fn show(&self, model: &str) -> Result<Value, ModelError> {
        let request = self.client.post(self.endpoint.beside("/api/show"));
        let response = request.json(&json!({"model": model})).timeout(TIMEOUT).send().await;
        let response = accepted(response).await?;
        let text = listing::read(response, SHOW_LIMIT).await.unwrap_or_default();
        serde_json::from_str(&text).map_err(|_| malformed("a description is not JSON"))
    }

    /// Removes a model from the server's disk.
    ///
    /// # Errors
    /// The server has no such model or cannot be reached.
    pub async fn remove(&self, model: &str) -> Result<(), ModelError> {
        let request = self.client.delete(self.endpoint.beside("/api/delete"));
        let response = request.json(&json!({"model": model})).timeout(TIMEOUT).send().await;
        accepted(response).await.map(|_| ())
    }

    /// Pulls a model and reports progress to `on_progress`. The server verifies digests, and
    /// resumes a pull that was interrupted.
    ///
    /// # Errors
    /// There is no such model, or the pull was interrupted.
    pub async fn pull(
        &self,
        model: &str,
        heard: impl Fn(Progress) + Send,
    ) -> Result<(), ModelError> {
        let request = self.client.post(self.endpoint.beside("/api/pull"));
        let response = request.json(&json!({"model": model, "stream": true})).send().await;
        let mut bytes = accepted(response).await?.bytes_stream();
        let mut lines = Lines::new(Framing::Lines);
        let mut is_done = false;
        loop {
            let silent = || ModelError::new("provider.timeout", true, "Ollama fell silent");
            let Some(chunk) = timeout(IDLE, bytes.next()).await.map_err(|_| silent())? else {
                break;
            };
            let chunk = chunk.map_err(|_| cut())?;
            let data = lines.feed(&chunk).map_err(|_| malformed("an endless line"))?;
            for data in data {
                // `success` is the last line; a stream that ends without it was cut.
                is_done |= hear(&data, &heard)?;
            }
        }
        for data in lines.rest() {
            is_done |= hear(&data, &heard)?;
        }
        if is_done { Ok(()) } else { Err(cut()) }
    }
}

/// Reports one line of progress. Returns whether it is the last one.
///
/// # Errors
/// The line is not JSON, or is the server's error.
fn hear(data: &str, heard: &(impl Fn(Progress) + Send)) -> Result<bool, ModelError> {
    let line: Value = serde_json::from_str(data).map_err(|_| malformed("a line is not JSON"))?;
    if let Some(said) = line["error"].as_str() {
        let message = format!("Ollama cannot fetch the model: {}", scrub(said, None, ""));
        return Err(ModelError::new("provider.unavailable", false, message));
    }
    let status = name(line["status"].as_str().unwrap_or_default(), 200);
    let is_done = status == "success";
    heard(Progress {
        status,
        digest: line["digest"].as_str().map(|digest| name(digest, 100)),
        total: line["total"].as_u64().unwrap_or(0),
        completed: line["completed"].as_u64().unwrap_or(0),
    });
    Ok(is_done)
}

/// Returns the response if it is a success, else the server's error.
async fn accepted(response: reqwest::Result<Response>) -> Result<Response, ModelError> {
    let unreachable = |_| ModelError::unavailable("Ollama cannot be reached: is it running?");
    let response = response.map_err(unreachable)?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status == StatusCode::OK {
        return Ok(response);
    }
    let text = listing::read(response, 64 << 10).await.unwrap_or_default();
    let refusal = Refusal::of_answer(status, &headers, &text);
    let said = scrub(&refusal.said, None, "");
    Err(refusal.into_error("Ollama", &said))
}

fn malformed(what: &str) -> ModelError {
    ModelError::unavailable(format!("Ollama answered what cannot be used: {what}"))
}

fn cut() -> ModelError {
    ModelError::unavailable("the fetch broke off: the same command goes on where it stopped")
}
