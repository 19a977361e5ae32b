//! Errors of providers: read from each of their forms and mapped to the API's codes.

use std::time::Duration;

use convergio_domain::chat::ChatField;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::error::{ModelError, QUOTA_EXCEEDED};

/// Longest pause that is accepted from a provider; a longer one is cut to it.
const PAUSE_LIMIT: Duration = Duration::from_secs(3600);

/// Maximum validation errors of a list that are quoted.
const MISTAKES_LIMIT: usize = 4;

/// An error as a provider reports it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProviderRefusal {
    status: StatusCode,
    /// The error's type, code and reasons, in lower case, separated by spaces.
    kind: String,
    /// The provider's message, not scrubbed yet.
    pub(crate) message: String,
    /// The request field to blame, by the provider's word.
    param: String,
    retry_after: Option<Duration>,
    /// True if the provider says that a retry is of no use (`x-should-retry: false`).
    is_final: bool,
}

impl ProviderRefusal {
    /// Reads a response with a status other than success.
    pub(crate) fn from_response(status: StatusCode, headers: &HeaderMap, body: &str) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let refusal = Self::with_status(status, &error_in_body(body));
        let pause = parse_retry_after(header("retry-after-ms"), header("retry-after"));
        Self {
            retry_after: pause.or(refusal.retry_after),
            is_final: header("x-should-retry") == Some("false"),
            ..refusal
        }
    }

    /// Reads an error inside of a stream, after the response began with success.
    pub(crate) fn from_stream(error: &Value) -> Self {
        // Some servers put an HTTP status into `code`; other numbers there are no status.
        let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let status = status.filter(|code| *code >= 400).and_then(|c| StatusCode::from_u16(c).ok());
        Self::with_status(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE), error)
    }

    /// Reads an error value under this status. Each provider's places for code, reason, field and
    /// pause are tried.
    pub(crate) fn with_status(status: StatusCode, error: &Value) -> Self {
        let text = |name: &str| error[name].as_str().unwrap_or("");
        let inner = error.pointer("/innererror/code").and_then(Value::as_str).unwrap_or("");
        let spend_code = error.pointer("/details/error_code").and_then(Value::as_str).unwrap_or("");
        let mut kind = [text("type"), text("code"), text("status"), inner, spend_code].join(" ");
        let mut pause = None;
        let mut param = error["param"].as_str();
        for detail in error["details"].as_array().into_iter().flatten() {
            kind = [&kind, " ", detail["reason"].as_str().unwrap_or("")].concat();
            pause = pause.or_else(|| gemini_retry_delay(detail));
            let fields = detail["fieldViolations"].as_array().into_iter().flatten();
            param = param.or_else(|| fields.into_iter().find_map(|it| it["field"].as_str()));
            // A daily quota is back tomorrow: that is out of quota, and no rate limit to wait for.
            let quotas = detail["violations"].as_array().into_iter().flatten();
            let mut quotas = quotas.filter_map(|quota| quota["quotaId"].as_str());
            if quotas.any(|quota| quota.contains("PerDay")) {
                kind.push_str(" quota_exceeded");
            }
        }
        let is_bare = error.is_string();
        Self {
            status,
            kind: if is_bare { "bare".to_owned() } else { kind.to_lowercase() },
            message: error.as_str().unwrap_or_else(|| text("message")).to_owned(),
            param: param.unwrap_or("").to_owned(),
            retry_after: pause,
            is_final: false,
        }
    }

    /// Returns whether streaming is refused rather than the request itself.
    pub(crate) fn is_about_streaming(&self) -> bool {
        let is_wrong_request =
            [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY].contains(&self.status);
        is_wrong_request && self.param == "stream"
    }

    /// Converts the refusal into an error of the API. `scrubbed` is its message without secrets.
    pub(crate) fn into_error(self, provider: &str, scrubbed: &str) -> ModelError {
        let (code, retryable) = self.error_code();
        let quoted = if scrubbed.is_empty() { String::new() } else { format!(": {scrubbed}") };
        let pause = match self.retry_after {
            // The pause is of no interest where a retry is of no use.
            Some(pause) if retryable => format!(" (it asks to wait {} s)", pause.as_secs()),
            _ => String::new(),
        };
        let place = match plain_place(&self.param) {
            Some(place) => format!(" (at `{place}`)"),
            None => String::new(),
        };
        let message =
            format!("{provider} refused the call ({}){quoted}{place}{pause}", self.status);
        let retryable = retryable && !self.is_final;
        let param = find_param(&self.param);
        let error = ModelError::new(code, retryable, message);
        ModelError { retry_after: self.retry_after, param, ..error }
    }

    /// Returns whether the provider says that it has no model of the name.
    fn is_missing_model(&self) -> bool {
        let lowercase_message = self.message.to_lowercase();
        let is_missing = self.kind.contains("not_found")
            || ["not found", "does not exist", "not exist"]
                .iter()
                .any(|word| lowercase_message.contains(word));
        self.status.as_u16() == 404 && is_missing && lowercase_message.contains("model")
    }

    /// Returns the error's code and whether it is retryable: by the provider's own name for it,
    /// else by its message for client errors, else by its status.
    fn error_code(&self) -> (&'static str, bool) {
        let status = self.status.as_u16();
        let lowercase_message = self.message.to_lowercase();
        let by_name = find_meaning(&BY_NAME, &self.kind);
        // Messages are matched for client errors only: a server error may say anything.
        let by_message =
            find_meaning(&BY_WORDS, &lowercase_message).filter(|_| (400..500).contains(&status));
        let by_status = BY_STATUS.iter().find(|(from, to, ..)| (*from..=*to).contains(&status));
        match (by_name.or(by_message), by_status) {
            // MLX's server answers 404 with a bare text when generation failed.
            (None, _) if self.kind == "bare" && status == 404 => ("provider.unavailable", true),
            (None, _) if self.is_missing_model() => ("model.not_found", false),
            (Some(verdict), _) => verdict,
            (None, Some((_, _, code, retryable))) => (code, *retryable),
            (None, None) => ("request.invalid", false),
        }
    }
}

/// Returns the error in a response body, whatever its form; null if there is none.
fn error_in_body(body: &str) -> Value {
    let value = serde_json::from_str(body).unwrap_or(Value::Null);
    // Gemini's streaming route puts the error into a list.
    let value = value.get(0).unwrap_or(&value);
    if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
        return error.clone();
    }
    // FastAPI's `detail`, which some servers wrap in `message`.
    for name in ["message", "detail"] {
        let detail = match &value[name] {
            Value::Object(inner) if name == "message" => inner.get("detail"),
            detail => Some(detail).filter(|_| name == "detail"),
        };
        if let Some(detail) = detail.filter(|detail| !detail.is_null()) {
            return error_from_detail(detail);
        }
    }
    if value["message"].is_string() {
        return value.clone();
    }
    // An HTML page of a gateway is not a message worth showing.
    let text = body.trim();
    let is_reason = value.is_null() && !text.is_empty() && !text.starts_with(['<', '{', '[']);
    if is_reason { json!({"message": text}) } else { Value::Null }
}

/// Converts FastAPI's `detail`: a text, or a list of validation errors with their places.
fn error_from_detail(detail: &Value) -> Value {
    let Some(list) = detail.as_array() else {
        return match detail {
            Value::String(text) => json!({"message": text}),
            detail => detail.clone(),
        };
    };
    let place = |mistake: &Value| {
        let steps = mistake["loc"].as_array().into_iter().flatten().filter_map(|step| match step {
            Value::String(name) if name != "body" => Some(name.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        steps.collect::<Vec<_>>().join(".")
    };
    let words = list.iter().take(MISTAKES_LIMIT).map(|mistake| {
        let description = mistake["msg"].as_str().unwrap_or("");
        format!("{}: {description}", place(mistake))
    });
    let words: Vec<String> = words.collect();
    json!({"message": words.join("; "), "param": list.first().map(place)})
}

/// Returns the place in the request that the provider blames, if it is plainly a field's path: it
/// could otherwise quote the prompt.
fn plain_place(param: &str) -> Option<&str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-[]".contains(letter);
    let is_name = !param.is_empty() && param.len() <= 100 && param.chars().all(is_plain);
    is_name.then_some(param)
}

/// Request fields besides those of [`ChatField`] that providers blame.
const BLAMED_FIELDS: [&str; 24] = [
    "contents",
    "input",
    "instructions",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "output_config",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "stop_sequences",
    "stream",
    "stream_options",
    "system",
    "text",
    "tools",
    "top_logprobs",
    "logprobs",
    "functions",
    "function_call",
    "extra_body",
];

/// Returns the blamed field by a name of our own list: the provider's text may quote anything.
fn find_param(param: &str) -> Option<&'static str> {
    // The whole path first, then its first segment.
    let names = || ChatField::ALL.iter().map(|field| field.name()).chain(BLAMED_FIELDS);
    let begin = param.split(['.', '[']).next().unwrap_or("");
    names().find(|name| *name == param).or_else(|| names().find(|name| *name == begin))
}

/// A row of the tables below: words, the code that they stand for, and true if a retry may help.
type ErrorMeaning = (&'static [&'static str], &'static str, bool);

fn find_meaning(table: &[ErrorMeaning], text: &str) -> Option<(&'static str, bool)> {
    let row = table.iter().find(|(words, ..)| words.iter().any(|word| text.contains(word)));
    row.map(|(_, code, retryable)| (*code, *retryable))
}

/// Errors by the words that providers use in `type`, `code`, `status` and `reason`, first match
/// first. Retries help against load, but not against a lack of money or a bad key.
const BY_NAME: [ErrorMeaning; 9] = [
    (
        &[
            "insufficient_quota",
            "credit_balance",
            "spend_limit",
            "usage_limit_exceeded",
            "billing",
            "quota_exceeded",
        ],
        QUOTA_EXCEEDED,
        false,
    ),
    (&["model_not_found", "invalid_model"], "model.not_found", false),
    (
        &["context_length", "exceed_context", "request_too_large"],
        "provider.context_exceeded",
        false,
    ),
    (
        &["content_filter", "content_policy", "responsibleaipolicyviolation"],
        "provider.content_filtered",
        false,
    ),
    (
        &["invalid_api_key", "api_key_invalid", "authentication", "permission", "unauthenticated"],
        "byok.bad_key",
        false,
    ),
    (&["rate_limit", "slow_down", "resource_exhausted"], "provider.rate_limited", true),
    (&["overloaded"], "provider.unavailable", true),
    (&["deadline_exceeded"], "provider.timeout", true),
    (&["not_supported"], "request.invalid", false),
];

/// Errors that only their message tells apart.
const BY_WORDS: [ErrorMeaning; 4] = [
    (
        &[
            "prompt is too long",
            "exceeds the maximum number of tokens",
            "exceeds the available context",
            "input length exceeds",
        ],
        "provider.context_exceeded",
        false,
    ),
    (&["credit balance is too low", "specified api usage limits"], QUOTA_EXCEEDED, false),
    // Ollama's message for a model that was not pulled, and that of other servers.
    (&["' not found", "model not exist"], "model.not_found", false),
    (&["not found"], "request.invalid", false),
];

/// Errors by ranges of HTTP status, for those whose name says nothing.
const BY_STATUS: [(u16, u16, &str, bool); 9] = [
    (401, 401, "byok.bad_key", false),
    (402, 402, QUOTA_EXCEEDED, false),
    (403, 403, "byok.bad_key", false),
    (408, 408, "provider.timeout", true),
    (409, 409, "provider.unavailable", true),
    (413, 413, "provider.context_exceeded", false),
    (429, 429, "provider.rate_limited", true),
    (504, 504, "provider.timeout", true),
    (500, 599, "provider.unavailable", true),
];

/// Parses the pause that a provider asks for: OpenAI's `retry-after-ms`, else `retry-after` in
/// seconds or as a date (RFC 9110, section 10.2.3).
fn parse_retry_after(millis: Option<&str>, seconds: Option<&str>) -> Option<Duration> {
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok());
    let seconds_asked = number(millis).map(|ms| ms / 1000.0).or(number(seconds));
    let seconds = seconds_asked.or_else(|| {
        let date = OffsetDateTime::parse(seconds?.trim(), &Rfc2822).ok()?;
        Some((date - OffsetDateTime::now_utc()).as_seconds_f64().max(0.0))
    });
    Duration::try_from_secs_f64(seconds?).ok().map(|pause| pause.min(PAUSE_LIMIT))
}

/// Parses the pause in `RetryInfo` of Google's errors: `{"retryDelay": "17s"}`.
fn gemini_retry_delay(detail: &Value) -> Option<Duration> {
    let seconds = detail["retryDelay"].as_str()?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(|pause| pause.min(PAUSE_LIMIT))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;
    use serde_json::{Value, json};

    use super::ProviderRefusal;
    use crate::provider::ModelError;

    fn read(status: u16, headers: &[(&'static str, &str)], error: &Value) -> ModelError {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let status = StatusCode::from_u16(status).unwrap();
        let headers: HeaderMap = headers.collect();
        let refusal =
            ProviderRefusal::from_response(status, &headers, &json!({"error": error}).to_string());
        let said = refusal.message.clone();
        refusal.into_error("p", &said)
    }

    fn check(cases: &[(u16, Value, &str, bool)]) {
        for (status, error, code, retryable) in cases {
            let read = read(*status, &[], error);
            assert_eq!((read.code, read.retryable), (*code, *retryable), "{status} {error}");
        }
    }

    #[test]
    fn each_row_of_openais_table_has_its_code() {
        check(&[
            (429, json!({"code": "rate_limit_exceeded"}), "provider.rate_limited", true),
            (429, json!({"code": "slow_down"}), "provider.rate_limited", true),
            (429, json!({}), "provider.rate_limited", true),
            (429, json!({"type": "insufficient_quota"}), "provider.quota_exceeded", false),
            (429, json!({"code": "credit_balance_exhausted"}), "provider.quota_exceeded", false),
            (
                429,
                json!({"code": "project_spend_limit_exceeded"}),
                "provider.quota_exceeded",
                false,
            ),
            (
                429,
                json!({"code": "organization_usage_limit_exceeded"}),
                "provider.quota_exceeded",
                false,
            ),
            (402, json!({"type": "billing_error"}), "provider.quota_exceeded", false),
            (401, json!({"code": "invalid_api_key"}), "byok.bad_key", false),
            (403, json!({"type": "permission_error"}), "byok.bad_key", false),
            (400, json!({"code": "API_KEY_INVALID"}), "byok.bad_key", false),
            (400, json!({"code": "context_length_exceeded"}), "provider.context_exceeded", false),
            (
                400,
                json!({"code": 400, "type": "exceed_context_size_error", "n_ctx": 2048}),
                "provider.context_exceeded",
                false,
            ),
            (413, json!({"type": "request_too_large"}), "provider.context_exceeded", false),
            (400, json!({"code": "content_filter"}), "provider.content_filtered", false),
            (
                400,
                json!({"innererror": {"code": "ResponsibleAIPolicyViolation"}}),
                "provider.content_filtered",
                false,
            ),
            (400, json!({"type": "invalid_request_error"}), "request.invalid", false),
            (404, json!({"code": "model_not_found"}), "model.not_found", false),
            (404, json!("generation failed"), "provider.unavailable", true),
            (408, json!({}), "provider.timeout", true),
            (409, json!({}), "provider.unavailable", true),
            (422, json!({}), "request.invalid", false),
            (500, json!({}), "provider.unavailable", true),
            (501, json!({"type": "not_supported_error"}), "request.invalid", false),
            (503, json!({"message": "Loading model"}), "provider.unavailable", true),
            (503, json!({"code": "server_is_overloaded"}), "provider.unavailable", true),
            (504, json!({}), "provider.timeout", true),
            (529, json!({"type": "overloaded_error"}), "provider.unavailable", true),
            (302, json!({}), "request.invalid", false),
        ]);
    }

    #[test]
    fn each_row_of_anthropics_table_has_its_code() {
        check(&[
            (429, json!({"type": "rate_limit_error"}), "provider.rate_limited", true),
            (
                429,
                json!({"type": "rate_limit_error",
                    "details": {"error_code": "enforced_spend_limit_reached"}}),
                "provider.quota_exceeded",
                false,
            ),
            (
                400,
                json!({"type": "invalid_request_error",
                    "message": "Your credit balance is too low to access the API."}),
                "provider.quota_exceeded",
                false,
            ),
            (
                400,
                json!({"type": "invalid_request_error",
                    "message": "prompt is too long: 210000 tokens > 200000 maximum"}),
                "provider.context_exceeded",
                false,
            ),
            (401, json!({"type": "authentication_error"}), "byok.bad_key", false),
            (404, json!({"type": "not_found_error"}), "request.invalid", false),
            (
                404,
                json!({"type": "not_found_error", "message": "model: claude-x"}),
                "model.not_found",
                false,
            ),
            (504, json!({"type": "timeout_error"}), "provider.timeout", true),
        ]);
    }

    #[test]
    fn each_row_of_geminis_table_has_its_code() {
        check(&[
            (
                429,
                json!({"code": 429, "status": "RESOURCE_EXHAUSTED"}),
                "provider.rate_limited",
                true,
            ),
            (
                429,
                json!({"status": "RESOURCE_EXHAUSTED", "details": [{"violations": [
                    {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}),
                "provider.quota_exceeded",
                false,
            ),
            (
                400,
                json!({"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}),
                "byok.bad_key",
                false,
            ),
            (403, json!({"status": "PERMISSION_DENIED"}), "byok.bad_key", false),
            (503, json!({"status": "UNAVAILABLE"}), "provider.unavailable", true),
            (504, json!({"status": "DEADLINE_EXCEEDED"}), "provider.timeout", true),
            (
                400,
                json!({"status": "INVALID_ARGUMENT", "message":
                    "The input token count exceeds the maximum number of tokens allowed"}),
                "provider.context_exceeded",
                false,
            ),
        ]);
    }

    #[test]
    fn each_row_of_ollamas_table_has_its_code() {
        check(&[
            (404, json!("model 'x' not found"), "model.not_found", false),
            (
                400,
                json!("the input length exceeds the context length"),
                "provider.context_exceeded",
                false,
            ),
            (500, json!("llama runner process has terminated"), "provider.unavailable", true),
            (502, json!("no route to cloud"), "provider.unavailable", true),
        ]);
    }

    #[test]
    fn a_pause_that_is_asked_for_is_told() {
        let pause = |headers: &[(&'static str, &str)]| read(429, headers, &json!({})).retry_after;
        assert_eq!(pause(&[("retry-after", "20")]).unwrap().as_secs(), 20);
        assert_eq!(pause(&[("retry-after-ms", "1500")]).unwrap().as_millis(), 1500);
        assert_eq!(pause(&[("retry-after", "99999999")]).unwrap().as_secs(), 3600);
        let past = pause(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]);
        assert_eq!(past.unwrap().as_secs(), 0);
        let future = pause(&[("retry-after", "Fri, 31 Dec 2199 23:59:59 GMT")]);
        assert_eq!(future.unwrap().as_secs(), 3600);
        for odd in ["-1", "NaN", "inf", "1e300", "tomorrow"] {
            let pause = pause(&[("retry-after", odd)]);
            assert!(pause.is_none_or(|pause| pause.as_secs() <= 3600), "{odd}");
        }
        let told = read(429, &[("retry-after", "20")], &json!({}));
        assert!(told.message.ends_with("(it asks to wait 20 s)"), "{}", told.message);
    }

    #[test]
    fn googles_pause_stands_in_the_details() {
        let error = json!({"status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "google.rpc.RetryInfo", "retryDelay": "17s"}]});
        assert_eq!(read(429, &[], &error).retry_after.unwrap().as_secs(), 17);
    }

    #[test]
    fn a_provider_may_say_that_asking_again_is_of_no_use() {
        assert!(!read(503, &[("x-should-retry", "false")], &json!({})).retryable);
        assert!(read(503, &[("x-should-retry", "true")], &json!({})).retryable);
    }

    #[test]
    fn errors_inside_of_a_stream_carry_their_own_status() {
        let error = json!({"code": 400, "type": "exceed_context_size_error", "message": "m"});
        assert_eq!(
            ProviderRefusal::from_stream(&error).into_error("p", "").code,
            "provider.context_exceeded"
        );
        let error = json!({"type": "overloaded_error", "message": "m"});
        assert_eq!(
            ProviderRefusal::from_stream(&error).into_error("p", "").code,
            "provider.unavailable"
        );
    }

    fn read_body(status: u16, body: &str) -> ModelError {
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = ProviderRefusal::from_response(status, &HeaderMap::new(), body);
        let said = refusal.message.clone();
        refusal.into_error("p", &said)
    }

    #[test]
    fn every_form_of_a_reason_is_told_with_its_place() {
        let forbidden = json!([{"type": "extra_forbidden", "loc": ["body", "max_tokens"],
            "msg": "Extra inputs are not permitted"}]);
        let extra = "max_tokens: Extra inputs are not permitted";
        for (body, said, param) in [
            (json!({"detail": "no such thing"}).to_string(), "no such thing", None),
            (json!({"detail": &forbidden}).to_string(), extra, Some("max_tokens")),
            (
                json!({"object": "error", "message": {"detail": forbidden}}).to_string(),
                extra,
                Some("max_tokens"),
            ),
            (
                json!({"message": "bad role", "param": "messages[0].role"}).to_string(),
                "bad role (at `messages[0].role`)",
                Some("messages"),
            ),
            (
                json!({"error": {"message": "m", "param": "people's words"}}).to_string(),
                ": m",
                None,
            ),
            ("upstream says no".to_owned(), "upstream says no", None),
        ] {
            let error = read_body(400, &body);
            assert!(error.message.contains(said), "{}", error.message);
            assert!(!error.message.contains("people"), "{}", error.message);
            assert_eq!((error.code, error.param), ("request.invalid", param), "{body}");
        }
        let page = read_body(502, "<html>nginx</html>");
        assert!(!page.message.contains("nginx"), "{}", page.message);
    }
}
