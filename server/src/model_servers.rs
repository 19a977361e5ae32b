//! Model servers of this machine: those that were named, else those that are detected. Nothing
//! private is sent to a server of another user before this user has confirmed it.

use convergio_executor::catalog::{Consent, DetectedServer, detect_servers};
use convergio_process::err_line;

use crate::trust;

/// Detects the named servers, or the usual ones of this machine. A server that the user has
/// confirmed gets its consent here.
///
/// # Errors
/// The user's trust cannot be read.
pub async fn find_model_servers(urls: &[String]) -> anyhow::Result<Vec<DetectedServer>> {
    let mut found = detect_servers(urls).await;
    for server in &mut found {
        let is_missing = matches!(server.consent, Consent::Missing(_));
        if is_missing && trust::is_trusted_model_server(&server.base_url)? {
            server.consent = Consent::Given;
        }
    }
    Ok(found)
}

/// Prints servers that were detected without being named, one line each.
pub fn print_detected(urls: &[String], found: &[DetectedServer]) {
    if urls.is_empty() {
        found.iter().for_each(|server| err_line!("convergio: {}", describe_server(server)));
    }
}

/// True if private data may be sent to a server.
pub fn is_consented(server: &DetectedServer) -> bool {
    !matches!(server.consent, Consent::Missing(_))
}

/// One line about a detected server, for people.
pub fn describe_server(server: &DetectedServer) -> String {
    let (kind, url) = (server.kind.as_str(), &server.base_url);
    let owner = match server.consent {
        Consent::Given => return format!("found {kind} at {url}, which you have confirmed"),
        Consent::SameUser => return format!("found {kind} at {url}, a process of yours"),
        Consent::Missing(Some(uid)) => format!("a process of user {uid}"),
        Consent::Missing(None) => "and not whose process it is".to_owned(),
    };
    format!(
        "found {kind} at {url}, {owner}: nothing private goes there until you confirm it once: \
         convergio models trust {url}"
    )
}

/// Consent of a server as one word, for listings.
pub fn consent_name(server: &DetectedServer) -> &'static str {
    match server.consent {
        Consent::Given => "confirmed",
        Consent::SameUser => "same_user",
        Consent::Missing(_) => "unconfirmed",
    }
}
