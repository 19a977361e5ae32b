//! The limit of a listing.

/// Parses the limit of a listing, from 1 to 1000.
pub(crate) fn parse_page_limit(text: &str) -> Result<u16, String> {
    let limit = text.parse().ok().filter(|limit| (1..=1000).contains(limit));
    limit.ok_or_else(|| "use a number from 1 to 1000".to_owned())
}
