//! The caller of a use case, and the key under which a request is carried out once.

use std::str::FromStr;

use convergio_domain::id::{ActorId, RunId, TenantId};
use convergio_domain::request;
use convergio_domain::stream::StreamKey;
use uuid::Uuid;

/// Most characters of an idempotency key.
const KEY_LIMIT: usize = 255;

/// Person or program on whose behalf a use case acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Tenant whose data the caller may use.
    pub tenant: TenantId,
    /// Actor that events are attributed to.
    pub actor: ActorId,
    /// Roles whose approvals the actor may answer.
    pub roles: Vec<String>,
    /// Key of the request, if it has one: sent again under it, the request changes nothing.
    pub key: Option<IdempotencyKey>,
}

impl Caller {
    /// Creates a caller without roles, whose request has no key.
    pub fn new(tenant: TenantId, actor: ActorId) -> Self {
        Self { tenant, actor, roles: Vec::new(), key: None }
    }

    /// Returns the id under which streams remember the request, if it has a key.
    pub fn request_id(&self) -> Option<Uuid> {
        self.key.as_ref().map(|key| request::request_id(&self.tenant, key.as_str()))
    }

    /// Returns the stream of a run in the caller's tenant; a foreign run is thus never found.
    pub fn run_stream(&self, run: RunId) -> StreamKey {
        StreamKey::for_run(self.tenant.clone(), run)
    }
}

/// Key of a request that is carried out once: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// Text that is no idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to 255 visible ASCII characters")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// Returns the key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let is_key = (1..=KEY_LIMIT).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key { Ok(Self(text.to_owned())) } else { Err(InvalidIdempotencyKey) }
    }
}
