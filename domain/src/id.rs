//! Identifiers: newtypes that cannot be confused with one another, each with its text form.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::serde_text::written_as_text;

/// A text that is not a valid identifier of the named kind. Shows a shortened quotation only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// Maximum bytes of a tenant, node, actor or other [`Name`].
const NAME_LIMIT: usize = 40;
const NAME_RULE: &str = "use 1 to 40 characters of a-z, 0-9, `_` and `-`";
/// Maximum characters of a signal's name.
pub const SIGNAL_NAME_LIMIT: usize = 128;
/// Most characters of a subject.
const SUBJECT_LIMIT: usize = 128;
const SIGNAL_NAME_RULE: &str =
    "use 1 to 128 characters of a-z, A-Z, 0-9, `_`, `-`, `.`, `:` and `/`, as `payment.settled`";

fn is_name(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    !text.is_empty() && text.len() <= NAME_LIMIT && text.bytes().all(is_allowed)
}

/// Signal names allow more characters than other names: webhook senders choose them.
fn is_signal_name(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b);
    !text.is_empty() && text.len() <= SIGNAL_NAME_LIMIT && text.bytes().all(is_allowed)
}

/// Defines an identifier that is a validated name and cheap to clone. Arguments: type, description
/// for error messages, validating function, and its rule in words.
macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $is_valid:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        written_as_text!($name);

        impl $name {
            /// Returns the text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if $is_valid(text) {
                    return Ok(Self(text.into()));
                }
                let text = text.chars().take(NAME_LIMIT * 2).collect();
                Err(InvalidId { kind: $kind, text, rule: $rule })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id!(
    /// Owner of data: every stream, row and request belongs to exactly one tenant.
    TenantId, "tenant id", is_name, NAME_RULE
);
name_id!(
    /// Name of a node in a graph manifest.
    NodeId, "node id", is_name, NAME_RULE
);
name_id!(
    /// Pseudonymous reference to whoever acts: `owner`, `executor`, or a user's handle.
    ActorId, "actor", is_name, NAME_RULE
);
name_id!(
    /// Name of anything but a node: a graph, an agent, a role.
    Name, "name", is_name, NAME_RULE
);
name_id!(
    /// Name of an external event that a `signal` node waits for, as `payment.settled`.
    SignalName, "signal name", is_signal_name, SIGNAL_NAME_RULE
);

/// Defines an identifier that is a UUID.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = |_| InvalidId {
                    kind: $kind,
                    text: text.chars().take(80).collect(),
                    rule: "use a UUID, as 018f2f6e-0000-7000-8000-000000000000",
                };
                Uuid::parse_str(text).map(Self).map_err(invalid)
            }
        }
    };
}

uuid_id!(
    /// Id of one execution of a graph.
    RunId, "run id"
);
uuid_id!(
    /// Id of a graph by its name; its versions are content-addressed ([`GraphVersion`]).
    GraphId, "graph id"
);
uuid_id!(
    /// Id of an agent by its name.
    AgentId, "agent id"
);
uuid_id!(
    /// Id of one approval request to a person.
    ApprovalId, "approval id"
);
uuid_id!(
    /// Id of an access token. Reveals nothing about the token's secret.
    TokenId, "token id"
);
uuid_id!(
    /// Id of one executor process, from its start to its end. Outcomes of steps started by a dead
    /// process are unknown.
    ExecutorId, "executor id"
);

/// Content address of a graph version: BLAKE3 of its canonical manifest, as 64 lowercase
/// hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GraphVersion(Arc<str>);

impl GraphVersion {
    /// Computes the version of a canonical manifest.
    pub fn from_manifest(canonical_manifest: &[u8]) -> Self {
        Self(blake3::hash(canonical_manifest).to_hex().as_str().into())
    }

    /// Returns the 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GraphVersion {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Ok(Self(text.into()));
        }
        let text = text.chars().take(NAME_LIMIT * 2).collect();
        Err(InvalidId { kind: "graph version", text, rule: "use its 64 hexadecimal digits" })
    }
}

impl fmt::Display for GraphVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One step of a run: a node, or one item of a `map` node. Text form: `summary` or `notes[3]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    /// Node that the step executes.
    pub node: NodeId,
    /// Index of the map item, from 0; `None` for the node itself.
    pub item: Option<u32>,
}

written_as_text!(StepId);

impl StepId {
    /// Returns the step of a whole node.
    pub fn for_node(node: NodeId) -> Self {
        Self { node, item: None }
    }

    /// Returns the step of one item of a map node.
    pub fn for_map_item(node: NodeId, item: u32) -> Self {
        Self { node, item: Some(item) }
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item {
            None => self.node.fmt(f),
            Some(item) => write!(f, "{}[{item}]", self.node),
        }
    }
}

impl FromStr for StepId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let Some((node, rest)) = text.split_once('[') else {
            return Ok(Self::for_node(text.parse()?));
        };
        let item = rest.strip_suffix(']').and_then(|digits| digits.parse().ok());
        let invalid = || InvalidId {
            kind: "step id",
            text: text.chars().take(NAME_LIMIT * 2).collect(),
            rule: "use NODE or NODE[ITEM]",
        };
        Ok(Self { node: node.parse()?, item: Some(item.ok_or_else(invalid)?) })
    }
}

impl TryFrom<String> for StepId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<StepId> for String {
    fn from(id: StepId) -> String {
        id.to_string()
    }
}

/// Identity of one memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemoryId(pub Uuid);

impl fmt::Display for MemoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MemoryId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl MemoryId {
    /// Derives the id of what a call stores: the same call repeated is the same memory.
    pub fn from_call(tenant: &TenantId, origin: &str) -> Self {
        Self(derive_uuid(&["memory/v1", tenant.as_str(), origin]))
    }
}

/// Person or thing that a memory is about: a pseudonymous name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

/// Error of a text that cannot name a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subject has 1 to 128 of the characters a-z A-Z 0-9 . _ : @ / -")]
pub struct InvalidSubject;

impl Subject {
    /// The pseudonymous name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@/-".contains(&byte);
        let fits = (1..=SUBJECT_LIMIT).contains(&text.len()) && text.bytes().all(is_right);
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidSubject) }
    }
}

impl TryFrom<String> for Subject {
    type Error = InvalidSubject;
    fn try_from(text: String) -> Result<Self, InvalidSubject> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.0
    }
}

/// Derives a UUIDv8 from the BLAKE3 of parts, each closed by a zero byte.
pub fn derive_uuid(parts: &[&str]) -> Uuid {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
