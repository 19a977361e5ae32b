//! The model servers of this machine: those that were named, else those that are found. Nothing
//! private goes to one of another user until it is confirmed.

use convergio_executor::model::{Consent, Detected, detect};

use crate::trust;

/// Asks the servers that are named, or those that may be on this machine. What the user has
/// confirmed is consented to.
pub(crate) async fn find_model_servers(urls: &[String]) -> anyhow::Result<Vec<Detected>> {
    let mut found = detect(urls).await;
    for server in &mut found {
        let is_missing = matches!(server.consent, Consent::Missing(_));
        if is_missing && trust::is_trusted_model_server(&server.base_url)? {
            server.consent = Consent::Given;
        }
    }
    Ok(found)
}

/// Tells of servers that were found and not named, one line each.
pub(crate) fn tell_found(urls: &[String], found: &[Detected]) {
    if urls.is_empty() {
        found.iter().for_each(|server| err_line!("convergio: {}", describe(server)));
    }
}

/// Whether what is private may go to a server.
pub(crate) fn is_consented(server: &Detected) -> bool {
    !matches!(server.consent, Consent::Missing(_))
}

/// A server that was found, for people.
pub(crate) fn describe(server: &Detected) -> String {
    let (kind, url) = (server.kind.as_str(), &server.base_url);
    let whose = match server.consent {
        Consent::Given => return format!("found {kind} at {url}, which you have confirmed"),
        Consent::SameUser => return format!("found {kind} at {url}, a process of yours"),
        Consent::Missing(Some(uid)) => format!("a process of user {uid}"),
        Consent::Missing(None) => "and not whose process it is".to_owned(),
    };
    format!(
        "found {kind} at {url}, {whose}: nothing private goes there until you confirm it once: \
         convergio models trust {url}"
    )
}

/// The same in a word, for listings.
pub(crate) fn consent_name(server: &Detected) -> &'static str {
    match server.consent {
        Consent::Given => "confirmed",
        Consent::SameUser => "same_user",
        Consent::Missing(_) => "unconfirmed",
    }
}
