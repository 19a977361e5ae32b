//! Failures of steps and runs: a stable code, a message composed by the platform, and the full text
//! in a sealed payload.
//!
//! Texts of libraries, providers and tools may quote inputs, prompts and answers. They are personal
//! data, so they go into a payload that can be erased. The event itself carries only a message
//! template with numbers and names of the graph in it; [`MessageNoun`] makes the compiler enforce
//! that.

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

/// Maximum bytes kept of a detail text; longer texts are truncated with a note.
const DETAIL_BYTES: usize = 16 << 10;

/// Failure of a step or run. `D` is the representation of the detail: a [`PayloadRef`] in events, a
/// [`FailureDetail`] on the way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure<D = PayloadRef> {
    /// Stable code, as `provider.timeout`; see [`crate::run::FAILURE_CODES`].
    pub code: PlatformCode,
    /// Message for people: the fault and its remedy. Contains no text of a person or a model.
    pub message: PlatformText,
    /// True if the same attempt might succeed later.
    pub retryable: bool,
    /// Full text, as a sealed payload. Absent when the message says everything, and in events of
    /// older versions, whose message is the full text.
    #[serde(default = "no_detail", skip_serializing_if = "Option::is_none")]
    pub detail: Option<D>,
    /// Name of the request field at fault, chosen by the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<PlatformCode>,
}

fn no_detail<D>() -> Option<D> {
    None
}

/// A failure whose detail is still text in memory, not yet stored as a payload.
pub type UnsealedFailure = Failure<FailureDetail<DetailText>>;

/// A failure within a command: its detail is a payload of the commit being made, or of an earlier
/// commit.
pub type FailureReport = Failure<FailureDetail<PayloadSlot>>;

/// Location of a failure's full text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureDetail<T> {
    /// Comes with the commit that is being made.
    New(T),
    /// Stored by an earlier commit of the same stream.
    Known(PayloadRef),
}

impl<D> Failure<D> {
    /// Creates a failure that is not retryable and has no detail.
    pub fn new(code: impl Into<PlatformCode>, message: PlatformText) -> Self {
        Self { code: code.into(), message, retryable: false, detail: None, param: None }
    }

    /// Converts the detail; `None` from `convert` drops it.
    pub fn map_detail<E>(self, convert: impl FnOnce(D) -> Option<E>) -> Failure<E> {
        let Self { code, message, retryable, detail, param } = self;
        Failure { code, message, retryable, detail: detail.and_then(convert), param }
    }
}

impl UnsealedFailure {
    /// Adds the full text, which may quote personal data.
    #[must_use]
    pub fn with_detail(self, text: impl Display) -> Self {
        Self { detail: Some(FailureDetail::New(DetailText::new(&text.to_string()))), ..self }
    }

    /// Adds the message followed by its cause as the full text.
    #[must_use]
    pub fn with_cause(self, cause: impl Display) -> Self {
        let text = format!("{}: {cause}", self.message);
        self.with_detail(text)
    }

    /// Returns the most complete text known without reading the log. Show it only to callers that
    /// may read payloads.
    pub fn full_text(&self) -> &str {
        match &self.detail {
            Some(FailureDetail::New(text)) => text.as_str(),
            _ => &self.message,
        }
    }
}

impl FailureReport {
    /// Resolves the detail to a payload reference, where `first` is the sequence number of the
    /// commit's first event.
    pub fn into_failure(self, first: Seq) -> Failure {
        self.map_detail(|detail| match detail {
            FailureDetail::New(slot) => Some(slot.to_payload_ref(first)),
            FailureDetail::Known(reference) => Some(reference),
        })
    }
}

impl Failure {
    /// Converts a recorded failure into a report for a later commit of the same stream, reusing the
    /// stored detail.
    pub fn into_repeated<T>(self) -> Failure<FailureDetail<T>> {
        self.map_detail(|reference| Some(FailureDetail::Known(reference)))
    }
}

/// Full text of a failure on its way into a payload. `Debug` prints its length only, so that it
/// cannot leak into the program's log.
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

    /// Returns the text. Callers must keep it out of events and logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DetailText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DetailText({} bytes)", self.0.len())
    }
}

/// Stable code of a failure. Created only from a constant or by deserialising the log, so that it
/// cannot hold foreign text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlatformCode(Cow<'static, str>);

impl From<&'static str> for PlatformCode {
    fn from(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }
}

/// Text written by the platform. Created only by [`platform_text!`](crate::platform_text) or by
/// deserialising the log, so that it cannot hold foreign text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlatformText(String);

impl PlatformText {
    /// Replaces the `{}` of a template in order. [`platform_text!`](crate::platform_text) checks
    /// their number at compile time.
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

/// Values allowed in a failure message: numbers, times, amounts, constants and names of the graph.
/// `String` does not implement it, so that foreign text does not compile.
pub trait MessageNoun {
    /// Appends the value as it is shown to people.
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

/// Composes a [`failure::PlatformText`](crate::failure::PlatformText) from a literal with a `{}`
/// for each [`failure::MessageNoun`](crate::failure::MessageNoun).
///
/// A `String` is rejected, since it may hold foreign text:
///
/// ```compile_fail
/// let said = String::from("the provider's words");
/// let _message = convergio_domain::platform_text!("the provider says {}", said);
/// ```
///
/// So is a borrowed `str` that is not `'static`:
///
/// ```compile_fail
/// let said = String::from("the provider's words");
/// let _message = convergio_domain::platform_text!("the provider says {}", said.as_str());
/// ```
///
/// The literal may not capture a variable:
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

/// Returns whether a template has exactly `nouns` placeholders `{}` and no other braces. Called by
/// [`platform_text!`](crate::platform_text) in a constant expression.
#[doc(hidden)]
pub const fn fits_nouns(template: &str, nouns: usize) -> bool {
    let bytes = template.as_bytes();
    let (mut index, mut places) = (0, 0);
    while index < bytes.len() {
        match bytes[index] {
            b'{' if index + 1 < bytes.len() && bytes[index + 1] == b'}' => {
                places += 1;
                index += 2;
            }
            b'{' | b'}' => return false,
            _ => index += 1,
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
            /// Returns the text as a string slice.
            pub fn as_str(&self) -> &str {
                self
            }
        }
    )* };
}

written!(PlatformCode, PlatformText);

#[cfg(test)]
mod tests {
    use super::{DETAIL_BYTES, Failure, FailureDetail, UnsealedFailure, fits_nouns};
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
            detail: Some(FailureDetail::New(PayloadSlot(2))),
            ..Failure::new("internal", platform_text!("m"))
        };
        let written = report.into_failure(Seq(5));
        assert_eq!(written.detail, Some(PayloadRef { seq: Seq(5), index: 2 }));
        assert_eq!(written.clone().into_repeated::<PayloadSlot>().into_failure(Seq(9)), written);
    }
}
