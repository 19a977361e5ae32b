//! Files on Hugging Face: digest, size and download location.

use anyhow::Context;
use convergio_executor::provider::download_client;
use convergio_process::exit;
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Response, StatusCode, Url};

use super::digest::parse_digest;
use super::source::HubFile;

/// Maximum redirects from the hub to the server with the bytes.
const REDIRECTS_LIMIT: usize = 5;

/// A file that can be downloaded.
#[derive(Debug, Clone)]
pub(super) struct HubFileInfo {
    pub(super) url: String,
    pub(super) sha256: String,
    pub(super) size_bytes: u64,
    pub(super) token: Option<String>,
}

/// Queries digest and size of a file. `HF_ENDPOINT` names a mirror and `HF_TOKEN` gives access to
/// private files, as for the hub's own tools.
pub(super) async fn query_file(file: &HubFile) -> anyhow::Result<HubFileInfo> {
    let read_variable = |name| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let base = read_variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let HubFile { repository, file, revision } = file;
    let base = base.trim_end_matches('/');
    let url = format!("{base}/{repository}/resolve/{revision}/{file}");
    let token = read_variable("HF_TOKEN").map(|token| token.trim().to_owned());
    let client = http_client(&url)?;
    let request = client.head(&url);
    let request = match &token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = request.send().await;
    let response =
        response.map_err(|_| exit::unavailable_error(format!("{base} cannot be reached")))?;
    match response.status().as_u16() {
        // A redirect is a success here: its headers have digest and size, and the token must not go
        // where it leads.
        200 | 301 | 302 | 303 | 307 | 308 => {}
        401 | 403 => {
            let message = format!("{repository} is not open to all: set HF_TOKEN");
            return Err(exit::bad_input_error(message));
        }
        404 => {
            let message = format!("{repository} has no {file} at {revision}");
            return Err(exit::bad_input_error(message));
        }
        status => return Err(exit::unavailable_error(format!("{base} answered {status}"))),
    }
    let told = digest_and_size(response.headers());
    let (sha256, bytes) = told.ok_or_else(|| {
        let message = format!("{base} tells no SHA-256 of {file}: is it a model file?");
        exit::bad_input_error(message)
    })?;
    Ok(HubFileInfo { url, sha256, size_bytes: bytes, token })
}

/// Digest and size from the headers. Large files are stored under their digest, which the hub gives
/// as `x-linked-etag`; small ones have a git hash in `etag`, which is not accepted.
fn digest_and_size(headers: &HeaderMap) -> Option<(String, u64)> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let digest = text("x-linked-etag").or_else(|| text("etag"))?;
    let digest = parse_digest(digest.trim_matches('"')).ok()?;
    let bytes = text("x-linked-size").or_else(|| text("content-length"))?.parse().ok()?;
    Some((digest, bytes))
}

fn http_client(url: &str) -> anyhow::Result<reqwest::Client> {
    download_client(url).map_err(|error| exit::bad_input_error(error.message))
}

impl HubFileInfo {
    /// Requests the bytes from offset `from` on. The token is sent to the hub's origin only, not to
    /// where it redirects.
    pub(super) async fn request_bytes(&self, from: u64) -> anyhow::Result<Response> {
        let hub_url = Url::parse(&self.url).context("the hub's URL")?;
        let mut url = hub_url.clone();
        for _ in 0..REDIRECTS_LIMIT {
            let request =
                http_client(url.origin().ascii_serialization().as_str())?.get(url.clone());
            let request =
                if from > 0 { request.header("range", format!("bytes={from}-")) } else { request };
            let request = match &self.token {
                Some(token) if url.origin() == hub_url.origin() => request.bearer_auth(token),
                _ => request,
            };
            let response = request.send().await.context("the file's store cannot be reached")?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|next| next.to_str().ok());
            let next = next.and_then(|next| url.join(next).ok());
            let next = next.context("the hub leads nowhere")?;
            // A redirect must not downgrade to plain HTTP, unless the hub itself (a mirror) is
            // plain.
            anyhow::ensure!(
                next.scheme() == "https" || hub_url.scheme() == "http",
                "the hub leads to a place without encryption"
            );
            url = next;
        }
        anyhow::bail!("the hub leads in circles ({})", StatusCode::LOOP_DETECTED)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::digest_and_size;

    #[test]
    fn only_a_sha256_is_a_digest() {
        let headers = |etag: &str, size: &str| -> HeaderMap {
            let pairs = [("x-linked-etag", etag), ("x-linked-size", size)];
            pairs.into_iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
        };
        let digest = "a".repeat(64);
        assert_eq!(
            digest_and_size(&headers(&format!("\"{digest}\""), "7")),
            Some((digest.clone(), 7))
        );
        assert_eq!(digest_and_size(&headers(&"a".repeat(40), "7")), None);
        assert_eq!(digest_and_size(&headers(&digest, "-1")), None);
        assert_eq!(digest_and_size(&HeaderMap::new()), None);
    }
}
