//! Lists of a server's models: OpenAI's list, and what llama.cpp, Ollama and Gemini report beyond
//! it.

use std::time::Duration;

use convergio_kernel_c::KernelPlatform;
use futures_util::StreamExt;
use reqwest::header::HeaderMap;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

use super::config::{ModelInfo, ProviderApi, ProviderConfig};
use super::endpoint::Endpoint;

/// Maximum bytes of one list.
const LIST_LIMIT: usize = 4 << 20;
/// Maximum models taken from one list.
const MODELS_LIMIT: usize = 5_000;

/// The reason why a list could not be read.
#[derive(Debug)]
pub(crate) enum ListError {
    /// Nobody answered, or the answer was cut.
    Unreachable(Option<reqwest::Error>),
    /// The server answered with an error.
    Refused(StatusCode, HeaderMap, String),
    /// The answer is not a list of models.
    Malformed,
}

/// Reads lists of models from one server.
pub(crate) struct ModelLister<'a> {
    pub(crate) client: &'a Client,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) timeout: Duration,
}

impl ModelLister<'_> {
    /// Lists the models of a provider by the routes of its interface.
    pub(crate) async fn list_models(
        &self,
        config: &ProviderConfig,
    ) -> Result<Vec<ModelInfo>, ListError> {
        match (&config.api, config.platform) {
            (ProviderApi::Ollama, _) => self.list_ollama_models().await,
            (ProviderApi::Gemini | ProviderApi::GeminiInteractions, _) => {
                let list =
                    self.get_json(self.endpoint.url_below_base("/models?pageSize=1000")).await?;
                Ok(parse_gemini_list(&list))
            }
            (ProviderApi::Anthropic { .. }, _) => {
                let list =
                    self.get_json(self.endpoint.url_below_base("/models?limit=1000")).await?;
                Ok(parse_openai_list(&list))
            }
            // An unknown local server may be Ollama behind its OpenAI-compatible routes: models in
            // its maker's cloud are left out.
            (ProviderApi::OpenAiChat, KernelPlatform::OpenAiCompatible) => {
                let (list, cloud_models) =
                    tokio::join!(self.fetch_openai_list(), self.list_cloud_models());
                let mut models = parse_openai_list(&list?);
                models.retain(|model| !cloud_models.contains(&model.id));
                Ok(models)
            }
            (_, KernelPlatform::LlamaCpp) => {
                self.list_llama_cpp_models(&self.fetch_openai_list().await?).await
            }
            _ => Ok(parse_openai_list(&self.fetch_openai_list().await?)),
        }
    }

    /// Fetches OpenAI's list as it comes.
    pub(crate) async fn fetch_openai_list(&self) -> Result<Value, ListError> {
        self.get_json(self.endpoint.url_below_base("/models")).await
    }

    /// Lists llama.cpp's models. It divides its context among slots; its properties tell the
    /// context of one slot, which bounds a call.
    pub(crate) async fn list_llama_cpp_models(
        &self,
        list: &Value,
    ) -> Result<Vec<ModelInfo>, ListError> {
        let mut models = parse_openai_list(list);
        // The properties describe the loaded model: with several in the list it is unknown which.
        if let [model] = models.as_mut_slice()
            && let Ok(properties) = self.get_json(self.endpoint.url_beside_v1("/props")).await
        {
            let slot_context = properties.pointer("/default_generation_settings/n_ctx");
            model.context_tokens = slot_context.and_then(Value::as_u64).or(model.context_tokens);
        }
        Ok(models)
    }

    /// Lists Ollama's local models; models that it would run in its maker's cloud are left out. The
    /// context of a loaded model counts rather than what the model could have: its
    /// OpenAI-compatible routes silently cut longer prompts.
    pub(crate) async fn list_ollama_models(&self) -> Result<Vec<ModelInfo>, ListError> {
        let (tags_url, running_url) =
            (self.endpoint.url_beside_v1("/api/tags"), self.endpoint.url_beside_v1("/api/ps"));
        let (tags, running) = tokio::join!(self.get_json(tags_url), self.get_json(running_url));
        let tags = tags?;
        let running = running.unwrap_or(Value::Null);
        // The tags decide; a failed `/api/ps` only means that no loaded context is known.
        let models = tags["models"].as_array().ok_or(ListError::Malformed)?;
        let local = models.iter().filter(|model| is_local_model(model));
        let info = |model: &Value| {
            let id = model["name"].as_str()?.to_owned();
            let context_tokens = loaded_context(&running, &id)
                .or_else(|| model.pointer("/details/context_length")?.as_u64());
            let is_no_chat = !can_complete(model);
            Some(ModelInfo { is_non_chat: is_no_chat, ..ModelInfo::new(id, context_tokens) })
        };
        Ok(local.filter_map(info).take(MODELS_LIMIT).collect())
    }

    /// Lists the models that an Ollama server forwards to its maker's cloud. OpenAI's list does not
    /// tell them apart.
    async fn list_cloud_models(&self) -> Vec<String> {
        let tags =
            self.get_json(self.endpoint.url_beside_v1("/api/tags")).await.unwrap_or(Value::Null);
        let models = tags["models"].as_array().into_iter().flatten();
        let cloud_models = models.filter(|model| !is_local_model(model));
        cloud_models.filter_map(|model| Some(model["name"].as_str()?.to_owned())).collect()
    }

    async fn get_json(&self, url: Url) -> Result<Value, ListError> {
        let request = self.client.get(url).timeout(self.timeout).headers(self.headers.clone());
        let response = request.send().await.map_err(|error| ListError::Unreachable(Some(error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_text(response, LIST_LIMIT).await.ok_or(ListError::Unreachable(None))?;
        if status != StatusCode::OK {
            return Err(ListError::Refused(status, headers, body));
        }
        serde_json::from_str(&body).map_err(|_| ListError::Malformed)
    }
}

/// Reads a body as text, cut at `limit` bytes; `None` if the connection breaks before.
pub(crate) async fn read_text(response: Response, limit: usize) -> Option<String> {
    let body = read_bytes(response, limit).await?;
    Some(String::from_utf8_lossy(&body).into_owned())
}

/// Reads a body as bytes, cut at `limit`; `None` if the connection breaks before.
pub(crate) async fn read_bytes(response: Response, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(chunk) = bytes.next().await {
        // A broken body is discarded: half a list or half a recording would pass for a whole.
        body.extend_from_slice(&chunk.ok()?);
        if body.len() >= limit {
            body.truncate(limit);
            break;
        }
    }
    Some(body)
}

/// Parses OpenAI's list. Servers report the context window under different names.
pub(crate) fn parse_openai_list(list: &Value) -> Vec<ModelInfo> {
    const CONTEXT: [&str; 6] = [
        "/max_input_tokens",
        "/meta/n_ctx",
        "/meta/n_ctx_train",
        "/max_model_len",
        "/context_length",
        "/context_window",
    ];
    let models = list["data"].as_array().into_iter().flatten();
    let info = |model: &Value| {
        let id = model["id"].as_str().filter(|id| !id.is_empty())?.to_owned();
        let context_tokens = CONTEXT.iter().find_map(|place| model.pointer(place)?.as_u64());
        Some(ModelInfo::new(id, context_tokens))
    };
    models.filter_map(info).take(MODELS_LIMIT).collect()
}

/// Parses Gemini's list: the models that chat or embed.
fn parse_gemini_list(list: &Value) -> Vec<ModelInfo> {
    let models = list["models"].as_array().into_iter().flatten();
    let info = |model: &Value| {
        let id = model["name"].as_str()?.strip_prefix("models/")?.to_owned();
        let methods = model["supportedGenerationMethods"].as_array()?;
        let supports = |name: &str| methods.iter().any(|method| method == name);
        let is_no_chat = !supports("generateContent");
        let context_tokens = model["inputTokenLimit"].as_u64();
        let info = ModelInfo { is_non_chat: is_no_chat, ..ModelInfo::new(id, context_tokens) };
        (!is_no_chat || supports("embedContent") || supports("batchEmbedContents")).then_some(info)
    };
    models.filter_map(info).take(MODELS_LIMIT).collect()
}

/// Returns whether Ollama runs the model itself.
fn is_local_model(model: &Value) -> bool {
    let is_absent = |name| model[name].as_str().is_none_or(str::is_empty);
    is_absent("remote_host") && is_absent("remote_model")
}

/// Returns whether an Ollama model chats. Embedding models list their capabilities without
/// `completion`; old servers list none.
fn can_complete(model: &Value) -> bool {
    model["capabilities"]
        .as_array()
        .is_none_or(|list| list.is_empty() || list.iter().any(|word| word == "completion"))
}

/// Returns the context window of a model that Ollama has loaded.
fn loaded_context(running: &Value, id: &str) -> Option<u64> {
    let mut models = running["models"].as_array()?.iter();
    models.find(|model| model["name"] == id)?["context_length"].as_u64()
}
