//! Reading requests field by field, with errors that name the field.

use axum::http::Uri;
use axum::http::uri::Scheme;
use convergio_domain::chat::{Part, ToolSpec};
use serde_json::{Value, json};

use super::refusal::Refusal;

/// Messages of one request at most.
pub(super) const MESSAGES_LIMIT: usize = 4096;
/// Tools of one request at most.
const TOOLS_LIMIT: usize = 256;

/// A text that must be there.
pub(super) fn text(body: &Value, name: &str) -> Result<String, Refusal> {
    match &body[name] {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(Refusal::invalid(name, "missing")),
        _ => Err(Refusal::invalid(name, "must be text")),
    }
}

/// A list that must be there, of 1 to `limit` entries.
pub(super) fn list<'a>(body: &'a Value, name: &str, limit: usize) -> Result<&'a [Value], Refusal> {
    let list = body[name].as_array().ok_or_else(|| Refusal::invalid(name, "must be a list"))?;
    if list.is_empty() || list.len() > limit {
        return Err(Refusal::invalid(name, format!("must have 1 to {limit} entries")));
    }
    Ok(list)
}

/// A yes or no that may be missing.
pub(super) fn flag(body: &Value, name: &str) -> Result<bool, Refusal> {
    match &body[name] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        _ => Err(Refusal::invalid(name, "must be true or false")),
    }
}

/// A number that may be missing.
pub(super) fn number(body: &Value, name: &str, max: f64) -> Result<Option<f64>, Refusal> {
    match &body[name] {
        Value::Null => Ok(None),
        value => match value.as_f64().filter(|number| (0.0..=max).contains(number)) {
            None => Err(Refusal::invalid(name, format!("must be a number from 0 to {max}"))),
            number => Ok(number),
        },
    }
}

/// A number of tokens that may be missing, under the first of these names.
pub(super) fn tokens(body: &Value, names: &[&str]) -> Result<Option<u32>, Refusal> {
    for name in names {
        if body[*name].is_null() {
            continue;
        }
        let count = body[*name].as_u64().and_then(|count| u32::try_from(count).ok());
        return match count.filter(|count| (1..=1 << 20).contains(count)) {
            None => Err(Refusal::invalid(name, "must be a whole number from 1 to 1048576")),
            count => Ok(count),
        };
    }
    Ok(None)
}

/// A text, or a list of texts, that may be missing.
pub(super) fn texts(body: &Value, name: &str) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::invalid(name, "must be a text or a list of at most 16 texts");
    match &body[name] {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) if list.len() <= 16 => {
            list.iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// Refuses what is asked for and cannot be given.
pub(super) fn refuse_unsupported(body: &Value, names: &[&str]) -> Result<(), Refusal> {
    let is_asked = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    match names.iter().find(|name| is_asked(&body[**name])) {
        Some(name) => Err(Refusal::invalid(name, "not available here: leave it out")),
        None => Ok(()),
    }
}

/// The tools, each read by `read`.
pub(super) fn tools(
    body: &Value,
    read: fn(&Value, &str) -> Result<ToolSpec, Refusal>,
) -> Result<Vec<ToolSpec>, Refusal> {
    match &body["tools"] {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) if list.len() <= TOOLS_LIMIT => {
            let places = list.iter().enumerate();
            places.map(|(place, tool)| read(tool, &format!("tools[{place}]"))).collect()
        }
        _ => Err(Refusal::invalid("tools", format!("must be a list of at most {TOOLS_LIMIT}"))),
    }
}

/// A tool by its parts.
pub(super) fn tool(named: &Value, schema: &str, path: &str) -> Result<ToolSpec, Refusal> {
    let name = named["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::invalid(path, "has no name"))?.to_owned();
    let description = named["description"].as_str().unwrap_or("").to_owned();
    let parameters = match &named[schema] {
        Value::Null => json!({"type": "object", "properties": {}}),
        Value::Object(_) => named[schema].clone(),
        _ => return Err(Refusal::invalid(&format!("{path}.{schema}"), "must be a JSON Schema")),
    };
    Ok(ToolSpec { name, description, parameters })
}

/// A picture by its URL, which may hold the picture itself. A URL is fetched by the provider, which
/// may be a server on this network: it must not be led to what callers cannot reach themselves.
pub(super) fn image(url: &str, path: &str) -> Result<Part, Refusal> {
    let Some(data) = url.strip_prefix("data:") else {
        return match is_public(url) {
            true => Ok(Part::ImageUrl { url: url.to_owned() }),
            false => {
                let message =
                    "must be a data: URL, or an https:// URL with the name of a public host";
                Err(Refusal::invalid(path, message))
            }
        };
    };
    match data.split_once(";base64,") {
        Some((media_type, data)) if media_type.starts_with("image/") => {
            Ok(Part::Image { media_type: media_type.to_owned(), data: data.to_owned() })
        }
        _ => Err(Refusal::invalid(path, "must be data:image/TYPE;base64,...")),
    }
}

/// Names that end so are of networks of their own.
const PRIVATE_NAMES: [&str; 10] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "localdomain",
    "arpa",
];

/// Whether a URL is https and names a host of the internet: neither an address, in whatever
/// notation, nor a name without a top-level domain, nor one of a private network.
fn is_public(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let has_userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let Some((_, top)) = host.rsplit_once('.') else { return false };
    let is_domain = top.starts_with(|letter: char| letter.is_ascii_alphabetic());
    is_https && !has_userinfo && is_domain && !PRIVATE_NAMES.contains(&top)
}

/// Two system prompts are one after the other.
pub(super) fn add_system(system: &mut Option<String>, text: &str) {
    match system {
        Some(system) => {
            system.push_str("\n\n");
            system.push_str(text);
        }
        None => *system = Some(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::is_public;

    #[test]
    fn images_are_fetched_from_public_hosts_alone() {
        for url in ["https://example.com/a.png", "https://cdn.example.co.uk:8443/x?y=1"] {
            assert!(is_public(url), "{url}");
        }
        for url in [
            "http://example.com/a.png",
            "https://localhost/a.png",
            "https://127.0.0.1/a.png",
            "https://[::1]/a.png",
            "https://169.254.169.254/latest/meta-data",
            "https://0x7f.1/a.png",
            "https://2130706433/a.png",
            "https://printer.local/a.png",
            "https://metadata.google.internal/x",
            "https://example.com@127.0.0.1/x",
            "https://ann@example.com/x",
            "file:///etc/passwd",
            "ftp://example.com/a.png",
            "",
        ] {
            assert!(!is_public(url), "{url}");
        }
    }
}
