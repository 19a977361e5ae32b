//! Query strings: their extractor, and the parameters of a page.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::problem::ApiError;

/// Items of a page by default.
pub(crate) const PAGE_ITEMS: usize = 50;
/// Maximum items of a page.
const PAGE_LIMIT: u16 = 1000;

/// The page size that a query asks for, 1 to 1000.
#[derive(Debug, Clone, Copy, Deserialize)]
// Query strings are text, and serde's own number error would not name the range.
#[serde(try_from = "String")]
pub(crate) struct PageLimit(u16);

impl TryFrom<String> for PageLimit {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let limit = text.parse().ok().filter(|limit| (1..=PAGE_LIMIT).contains(limit));
        limit.map(Self).ok_or_else(|| format!("`{text}` is not a number from 1 to {PAGE_LIMIT}"))
    }
}

impl From<PageLimit> for usize {
    fn from(limit: PageLimit) -> Self {
        Self::from(limit.0)
    }
}

/// Query parameters of a page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// The `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
    /// Items of a page, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<PageLimit>,
}

impl Paging {
    pub(crate) fn page_limit(&self) -> usize {
        self.limit.map_or(PAGE_ITEMS, usize::from)
    }
}

/// Extractor of a query string whose rejection is an [`ApiError`].
pub(crate) struct QueryParams<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|query| Self(query.0))
            .map_err(|error| ApiError::invalid_request(error.body_text()))
    }
}
