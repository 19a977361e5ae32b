//! URLs that providers fetch. A provider may run inside this network, and must not be made to fetch
//! what the caller cannot reach (server-side request forgery).

use axum::http::Uri;
use axum::http::uri::Scheme;
use convergio_domain::chat::{ImagePart, ImageUrlPart, MessagePart};

use super::field_table::FieldPath;
use super::refusal::CompatRefusal;

/// Reads an image by URL; a data URL holds the image itself.
pub(super) fn image_from_url(url: &str, path: FieldPath<'_>) -> Result<MessagePart, CompatRefusal> {
    let Some(data) = url.strip_prefix("data:") else {
        check_provider_url(url, path)?;
        return Ok(MessagePart::ImageUrl(ImageUrlPart {
            url: url.to_owned(),
            ..ImageUrlPart::default()
        }));
    };
    match data.split_once(";base64,") {
        Some((media_type, data)) if media_type.starts_with("image/") => {
            let (media_type, data) = (media_type.to_owned(), data.to_owned());
            Ok(MessagePart::Image(ImagePart { media_type, data, ..ImagePart::default() }))
        }
        _ => Err(path.refuse("must be data:image/TYPE;base64,...")),
    }
}

/// Rejects a URL that a provider must not fetch.
pub(super) fn check_provider_url(url: &str, path: FieldPath<'_>) -> Result<(), CompatRefusal> {
    match is_public_url(url) {
        true => Ok(()),
        false => {
            let message = "must be a data: URL, or an https:// URL with the name of a public host";
            Err(path.refuse(message))
        }
    }
}

/// Top-level names of private networks.
const PRIVATE_TOP_LEVEL_NAMES: [&str; 10] = [
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

/// True if a URL is https and names a public host: no IP address in any notation, no user info, no
/// private network. Names are not resolved here, because the provider resolves them again.
fn is_public_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let has_userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let top_level_name = host.rsplit('.').next().unwrap_or_default();
    // A numeric last label makes the whole host an IPv4 address to URL parsers (WHATWG URL, host
    // parsing).
    let is_domain = top_level_name.starts_with(|letter: char| letter.is_ascii_alphabetic());
    is_https && !has_userinfo && is_domain && !PRIVATE_TOP_LEVEL_NAMES.contains(&top_level_name)
}

#[cfg(test)]
mod tests {
    use super::is_public_url;

    #[test]
    fn images_are_fetched_from_public_hosts_alone() {
        for url in ["https://example.com/a.png", "https://cdn.example.co.uk:8443/x?y=1"] {
            assert!(is_public_url(url), "{url}");
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
            assert!(!is_public_url(url), "{url}");
        }
    }
}
