//! Why a step or run failed: a code and words of ours for the event, and the full text beside it.
//!
//! What libraries, providers and tools say quotes values: inputs, prompts, answers. It stands in a
//! sealed payload, which can be erased. The event has a template of ours with numbers and names of
//! the graph in it, and cannot be given anything else: see [`MessageNoun`].

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{GraphId, GraphVersion, NodeId, RunId, StepId};
use crate::money::Money;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::stream::Seq;
use crate::time::Span;

/// Bytes of a detail that are kept.
const DETAIL_BYTES: usize = 16 << 10;

/// Why a step or run failed: a stable code, words of ours, and where the full text lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure<D = PayloadRef> {
    /// A stable code, as `provider.timeout`.
    pub code: PlatformCode,
    /// What happened, and what would be right; nothing that a person wrote or a model answered.
    pub message: PlatformText,
    /// Whether the same try might succeed later.
    pub retryable: bool,
    /// The full text: a sealed payload. Absent when the message says it all, and in events of
    /// before, whose message is the full text.
    #[serde(default = "no_detail", skip_serializing_if = "Option::is_none")]
    pub detail: Option<D>,
    /// The field of the request that is to blame, by a name of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<PlatformCode>,
}

fn no_detail<D>() -> Option<D> {
    None
}

/// A failure before its detail is stored.
pub type UnsealedFailure = Failure<Detail<DetailText>>;

/// A failure that a command names: its detail is a payload of the commit, or of an earlier one.
pub type FailureReport = Failure<Detail<PayloadSlot>>;

/// Where the full text of a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail<T> {
    /// It comes with the commit that is being made.
    New(T),
    /// In an earlier commit of the same stream.
    Known(PayloadRef),
}

impl<D> Failure<D> {
    /// A failure that is not repeated.
    pub fn new(code: impl Into<PlatformCode>, message: PlatformText) -> Self {
        Self { code: code.into(), message, retryable: false, detail: None, param: None }
    }

    /// The same failure, with its detail elsewhere.
    pub fn map_detail<E>(self, place: impl FnOnce(D) -> Option<E>) -> Failure<E> {
        let Self { code, message, retryable, detail, param } = self;
        Failure { code, message, retryable, detail: detail.and_then(place), param }
    }
}

impl UnsealedFailure {
    /// With the full text, which may quote anything.
    #[must_use]
    pub fn with_detail(self, text: impl Display) -> Self {
        Self { detail: Some(Detail::New(DetailText::new(&text.to_string()))), ..self }
    }

    /// With the message and what lies behind it as the full text.
    #[must_use]
    pub fn with_cause(self, cause: impl Display) -> Self {
        let text = format!("{}: {cause}", self.message);
        self.with_detail(text)
    }

    /// All that is known of it without reading the log; for who may read payloads.
    pub fn full_text(&self) -> &str {
        match &self.detail {
            Some(Detail::New(text)) => text.as_str(),
            _ => &self.message,
        }
    }
}

impl FailureReport {
    /// As it stands in an event of the commit whose first event has this number.
    pub fn at(self, first: Seq) -> Failure {
        self.map_detail(|detail| match detail {
            Detail::New(slot) => Some(slot.at(first)),
            Detail::Known(reference) => Some(reference),
        })
    }
}

impl Failure {
    /// The same failure once more, in a later commit of the same stream.
    pub fn again<T>(self) -> Failure<Detail<T>> {
        self.map_detail(|reference| Some(Detail::Known(reference)))
    }
}

/// The full text of a failure, on its way into a payload. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct DetailText(Arc<str>);

impl DetailText {
    fn new(text: &str) -> Self {
        if text.len() <= DETAIL_BYTES {
            return Self(text.into());
        }
        let end = text.floor_char_boundary(DETAIL_BYTES);
        Self(format!("{}... ({} bytes more)", &text[..end], text.len() - end).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DetailText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DetailText({} bytes)", self.0.len())
    }
}

/// The stable code of a failure: made from a constant, or read from the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlatformCode(Cow<'static, str>);

impl From<&'static str> for PlatformCode {
    fn from(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }
}

/// Words of ours about a failure: made by [`platform_text!`](crate::platform_text), or read
/// from the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlatformText(String);

impl PlatformText {
    /// A template whose `{}` are replaced in their order. The macro counts them.
    #[doc(hidden)]
    pub fn compose(template: &'static str, nouns: &[&dyn MessageNoun]) -> Self {
        let mut message = String::with_capacity(template.len());
        let mut nouns = nouns.iter();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{}") {
            message.push_str(before);
            if let Some(noun) = nouns.next() {
                noun.write_noun(&mut message);
            }
            rest = after;
        }
        message.push_str(rest);
        Self(message)
    }
}

/// What may stand in the message of a failure: numbers, times, amounts, constants and names of the
/// graph. A `String` is none of it, so that what somebody else wrote does not compile.
pub trait MessageNoun {
    /// Writes it.
    fn write_noun(&self, message: &mut String);
}

macro_rules! nouns {
    ($($noun:ty),*) => { $(
        impl MessageNoun for $noun {
            fn write_noun(&self, message: &mut String) {
                // Writing to a string cannot fail.
                let _written = write!(message, "{self}");
            }
        }
    )* };
}

nouns!(&'static str, u8, u16, u32, u64, u128, usize, i32, i64, i128);
nouns!(NodeId, StepId, RunId, GraphId, GraphVersion, PayloadRef, Money, Span);

impl MessageNoun for Duration {
    fn write_noun(&self, message: &mut String) {
        let _written = write!(message, "{self:?}");
    }
}

impl<T: MessageNoun> MessageNoun for &T {
    fn write_noun(&self, message: &mut String) {
        (*self).write_noun(message);
    }
}

/// Words of ours: a literal with `{}` where a [`MessageNoun`] goes.
///
/// A text that somebody else wrote is none:
///
/// ```compile_fail
/// let said = String::from("the provider's words");
/// let _message = convergio_domain::platform_text!("the provider says {}", said);
/// ```
///
/// nor is one that is only lent:
///
/// ```compile_fail
/// let said = String::from("the provider's words");
/// let _message = convergio_domain::platform_text!("the provider says {}", said.as_str());
/// ```
///
/// nor may the literal name a variable:
///
/// ```compile_fail
/// let said = 1;
/// let _message = convergio_domain::platform_text!("the provider says {said}");
/// ```
#[macro_export]
macro_rules! platform_text {
    ($template:literal $(, $noun:expr)* $(,)?) => {{
        const _: () = assert!(
            $crate::failure::fits_nouns($template, <[&str]>::len(&[$(stringify!($noun)),*])),
            "a place for each noun",
        );
        $crate::failure::PlatformText::compose(
            $template,
            &[$(&$noun as &dyn $crate::failure::MessageNoun),*],
        )
    }};
}

/// Whether a template has so many places for nouns and no other braces.
#[doc(hidden)]
pub const fn fits_nouns(template: &str, nouns: usize) -> bool {
    let bytes = template.as_bytes();
    let (mut at, mut places) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'{' if at + 1 < bytes.len() && bytes[at + 1] == b'}' => {
                places += 1;
                at += 2;
            }
            b'{' | b'}' => return false,
            _ => at += 1,
        }
    }
    places == nouns
}

macro_rules! written {
    ($($text:ty),*) => { $(
        impl Deref for $text {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Display for $text {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl PartialEq<str> for $text {
            fn eq(&self, other: &str) -> bool {
                **self == *other
            }
        }

        impl PartialEq<&str> for $text {
            fn eq(&self, other: &&str) -> bool {
                **self == **other
            }
        }

        impl $text {
            /// The text.
            pub fn as_str(&self) -> &str {
                self
            }
        }
    )* };
}

written!(PlatformCode, PlatformText);

#[cfg(test)]
mod tests {
    use super::{DETAIL_BYTES, Detail, Failure, UnsealedFailure, fits_nouns};
    use crate::payload::{PayloadRef, PayloadSlot};
    use crate::stream::Seq;

    #[test]
    fn a_message_is_a_template_with_nouns_in_it() {
        let message = platform_text!("step {}: {} of at most {}", "a", 7, 3_u64);
        assert_eq!(message, "step a: 7 of at most 3");
        assert!(fits_nouns("a {} b {}", 2) && !fits_nouns("{}", 0) && !fits_nouns("{x}", 1));
    }

    #[test]
    fn the_detail_never_shows_itself() {
        let failure = UnsealedFailure::new("tool.invalid", platform_text!("ours"));
        let failure = failure.with_detail("theirs");
        assert_eq!(failure.full_text(), "theirs");
        assert!(!format!("{failure} {failure:?}").contains("theirs"));
        let long = failure.with_detail("é".repeat(DETAIL_BYTES));
        assert!(long.full_text().len() < DETAIL_BYTES + 64);
        assert!(long.full_text().ends_with("bytes more)"));
    }

    #[test]
    fn failures_of_earlier_logs_are_read_and_print_as_before() {
        let before = r#"{"code":"internal","message":"m","retryable":false}"#;
        let failure: Failure = serde_json::from_str(before).unwrap();
        assert_eq!(failure.detail, None);
        assert_eq!(serde_json::to_string(&failure).unwrap(), before);
    }

    #[test]
    fn a_detail_of_a_commit_is_found_in_the_commits_that_follow() {
        let report = Failure {
            detail: Some(Detail::New(PayloadSlot(2))),
            ..Failure::new("internal", platform_text!("m"))
        };
        let written = report.at(Seq(5));
        assert_eq!(written.detail, Some(PayloadRef { seq: Seq(5), index: 2 }));
        assert_eq!(written.clone().again::<PayloadSlot>().at(Seq(9)), written);
    }
}
