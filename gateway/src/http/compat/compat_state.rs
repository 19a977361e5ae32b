//! State and extractors that the handlers of the compatible APIs share.

use std::sync::Arc;

use axum::Extension;

use super::compat_graph::CompatGraph;
use super::run_watch::RunWatch;
use crate::problem::RequestId;
use crate::state::Gateway;

/// State that the handlers of the compatible APIs share.
#[derive(Clone)]
pub(super) struct CompatState {
    pub(super) gateway: Arc<Gateway>,
    pub(super) run_watch: Arc<RunWatch>,
    pub(super) graph: Arc<CompatGraph>,
}

/// Extractor of the request's id.
pub(super) type RequestIdExtension = Extension<RequestId>;
