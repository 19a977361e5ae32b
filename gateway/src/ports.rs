//! What the gateway needs and does not do itself; the composition root provides it.

use async_trait::async_trait;
use convergio_domain::id::TenantId;

/// A model that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// Name of the model, as `PROVIDER/MODEL`.
    pub id: String,
    /// Name of the provider.
    pub owner: String,
}

/// The models that callers may name; implemented by the composition root.
#[async_trait]
pub trait ModelDirectory: Send + Sync {
    /// Lists the models that a tenant can call now.
    async fn list_models(&self, tenant: &TenantId) -> Vec<ModelEntry>;
}

/// A directory without models, for tests and tools.
#[async_trait]
impl ModelDirectory for () {
    async fn list_models(&self, _tenant: &TenantId) -> Vec<ModelEntry> {
        Vec::new()
    }
}
