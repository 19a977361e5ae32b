//! The models that an Ollama server keeps: told of, fetched with progress, and removed.

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

/// Bytes of one description at most.
const SHOW_LIMIT: usize = 16 << 20;
/// Longest silence of a server that fetches a model: checking a large one's digest is silent.
const IDLE: Duration = Duration::from_secs(300);
/// Longest wait for what is done at once.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The models of one Ollama server.
pub struct Library {
    endpoint: Endpoint,
    client: Client,
}

/// How far a fetch has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in Ollama's words.
    pub status: String,
    /// The part that is fetched, by its digest.
    pub digest: Option<String>,
    /// Its bytes.
    pub total: u64,
    /// Those that are here.
    pub completed: u64,
}

impl Library {
    /// The library of the server at a URL, with or without `/v1`.
    ///
    /// # Errors
    /// The URL is not one, or the machine has no usable TLS.
    pub fn new(url: &str) -> Result<Self, ModelError> {
        let endpoint = Endpoint::parse(url)?;
        let client = endpoint.client(Timeouts::default())?;
        Ok(Self { endpoint, client })
    }

    /// What the server tells of a model.
    ///
    /// # Errors
    /// It has no such model, or cannot be asked.
    pub async fn show(&self, model: &str) -> Result<Value, ModelError> {
        let request = self.client.post(self.endpoint.beside("/api/show"));
        let response = request.json(&json!({"model": model})).timeout(TIMEOUT).send().await;
        let response = accepted(response).await?;
        let text = listing::read(response, SHOW_LIMIT).await.unwrap_or_default();
        serde_json::from_str(&text).map_err(|_| malformed("a description is not JSON"))
    }

    /// Removes a model.
    ///
    /// # Errors
    /// The server has no such model, or cannot be asked.
    pub async fn remove(&self, model: &str) -> Result<(), ModelError> {
        let request = self.client.delete(self.endpoint.beside("/api/delete"));
        let response = request.json(&json!({"model": model})).timeout(TIMEOUT).send().await;
        accepted(response).await.map(|_| ())
    }

    /// Fetches a model; the server checks its digest, and goes on where it stopped when a fetch
    /// was broken off.
    ///
    /// # Errors
    /// There is no such model, or the fetch broke off.
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
                is_done |= hear(&data, &heard)?;
            }
        }
        for data in lines.rest() {
            is_done |= hear(&data, &heard)?;
        }
        if is_done { Ok(()) } else { Err(cut()) }
    }
}

/// Tells of a line; whether it is the last one.
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

/// A response that is a success.
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
