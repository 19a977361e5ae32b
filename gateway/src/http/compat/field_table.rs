//! Declared fields of the compatible APIs: an undeclared name or a value of the wrong type is
//! rejected with its path. The tables in `docs/front-doors.md` are generated from the same
//! declarations.

use std::fmt;

use convergio_domain::chat::{ChatField, ChatInterface, NativeFields};
use serde_json::{Map, Value};

use super::refusal::CompatRefusal;

/// Maximum of any token count in a request.
const TOKENS_LIMIT: u64 = 1 << 31;
/// Maximum characters of an unknown name that an error repeats.
const NAME_CHARACTERS_LIMIT: usize = 100;

/// Path of a value in a request, as errors name it: `messages[0].content`. It borrows its parents,
/// so building one allocates nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldPath<'a> {
    parent: Option<&'a FieldPath<'a>>,
    segment: PathSegment<'a>,
}

#[derive(Debug, Clone, Copy)]
enum PathSegment<'a> {
    Root,
    Name(&'a str),
    Index(usize),
}

impl FieldPath<'_> {
    /// Path of the body.
    pub(super) const ROOT: FieldPath<'static> =
        FieldPath { parent: None, segment: PathSegment::Root };

    /// Path of a field of this object.
    pub(super) fn field<'a>(&'a self, name: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), segment: PathSegment::Name(name) }
    }

    /// Path of an entry of this list.
    pub(super) fn entry(&self, index: usize) -> FieldPath<'_> {
        FieldPath { parent: Some(self), segment: PathSegment::Index(index) }
    }

    /// Creates a refusal of the value at this path.
    pub(super) fn refuse(&self, message: impl Into<String>) -> CompatRefusal {
        CompatRefusal::invalid_field(&self.to_string(), message)
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        // The first field follows the body's path, which is empty: no dot.
        let is_first = self.parent.is_none_or(|parent| matches!(parent.segment, PathSegment::Root));
        match self.segment {
            PathSegment::Root => Ok(()),
            PathSegment::Name(name) if is_first => f.write_str(name),
            PathSegment::Name(name) => write!(f, ".{name}"),
            PathSegment::Index(place) => write!(f, "[{place}]"),
        }
    }
}

/// Type and range of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum ValueKind {
    Any,
    Text,
    Flag,
    Number(f64, f64),
    /// An integer of either sign.
    Whole,
    /// An integer from 0 on.
    Count,
    /// A number of tokens, at least 1.
    Tokens,
    Object,
    /// A list with a maximum number of entries.
    List(usize),
    Words(&'static [&'static str]),
    TextOrList(usize),
    TextOrObject,
}

impl ValueKind {
    fn accepts_value(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Number(least, most) => {
                value.as_f64().is_some_and(|number| (least..=most).contains(&number))
            }
            Self::Whole => value.is_i64(),
            Self::Count => value.is_u64(),
            Self::Tokens => value.as_u64().is_some_and(|count| (1..=TOKENS_LIMIT).contains(&count)),
            Self::Object => value.is_object(),
            Self::List(limit) => value.as_array().is_some_and(|list| list.len() <= limit),
            Self::Words(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::TextOrList(limit) => value.is_string() || Self::List(limit).accepts_value(value),
            Self::TextOrObject => value.is_string() || value.is_object(),
        }
    }
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("a value"),
            Self::Text => f.write_str("text"),
            Self::Flag => f.write_str("true or false"),
            Self::Number(least, most) => write!(f, "a number from {least} to {most}"),
            Self::Whole => f.write_str("a whole number"),
            Self::Count => f.write_str("a whole number from 0 on"),
            Self::Tokens => write!(f, "a whole number from 1 to {TOKENS_LIMIT}"),
            Self::Object => f.write_str("an object"),
            Self::List(limit) => write!(f, "a list of at most {limit} entries"),
            Self::Words(words) => f.write_str(&words.join(" or ")),
            Self::TextOrList(limit) => write!(f, "text, or a list of at most {limit} entries"),
            Self::TextOrObject => f.write_str("text or an object"),
        }
    }
}

/// Treatment of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum FieldHandling {
    /// Part of every conversation; all providers support it.
    Kept,
    /// Becomes a field of [`ChatRequest`](convergio_domain::chat::ChatRequest) that providers
    /// support differently.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is made of it"))]
    Chat(ChatField),
    /// Like `Chat`, and its value passes unchanged, unless it is neutral.
    ChatOption(ChatField),
    /// Goes unchanged to providers of the same interface; others get nothing of it.
    Native,
    /// Acted on by the gateway itself.
    Dialect,
    /// Has no effect here; the caller is told by a header.
    LeftOut,
    /// Rejected, unless the predicate finds the value neutral (it asks for nothing).
    Refused(fn(&Value) -> bool),
}

/// The declaration of a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldSpec {
    pub(super) name: &'static str,
    pub(super) kind: ValueKind,
    pub(super) handling: FieldHandling,
}

/// Declares a field of a table.
pub(super) const fn field(name: &'static str, kind: ValueKind, fate: FieldHandling) -> FieldSpec {
    FieldSpec { name, kind, handling: fate }
}

/// A declared object: its place in the documentation and its fields.
#[derive(Debug)]
pub(super) struct ObjectSpec {
    pub(super) place: &'static str,
    pub(super) fields: &'static [FieldSpec],
}

/// A predicate for fields of which no value is neutral.
pub(super) fn never(_: &Value) -> bool {
    false
}

/// True for values that ask for nothing: false, zero, and empty lists and objects.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// An object of a request whose fields are all declared and of the right type.
pub(super) struct RequestFields<'a> {
    object: &'a Map<String, Value>,
    table: &'static ObjectSpec,
    pub(super) path: FieldPath<'a>,
}

/// Fields that the table does not declare.
type UnknownFields<'a> = Vec<(&'a String, &'a Value)>;

impl<'a> RequestFields<'a> {
    /// Reads an object by its table.
    ///
    /// # Errors
    /// A refusal that names an undeclared field or a value of the wrong type.
    pub(super) fn read_known(
        value: &'a Value,
        path: FieldPath<'a>,
        table: &'static ObjectSpec,
    ) -> Result<Self, CompatRefusal> {
        let (fields, unknown) = Self::read_with_unknown(value, path, table)?;
        match unknown.into_iter().next() {
            // The name is the caller's and may be long.
            Some((name, _)) => {
                let name: String = name.chars().take(NAME_CHARACTERS_LIMIT).collect();
                Err(path.field(&name).refuse("this field is not known here: leave it out"))
            }
            None => Ok(fields),
        }
    }

    /// Reads an object like [`RequestFields::read_known`], and returns the undeclared fields
    /// instead of rejecting them.
    pub(super) fn read_with_unknown(
        value: &'a Value,
        path: FieldPath<'a>,
        table: &'static ObjectSpec,
    ) -> Result<(Self, UnknownFields<'a>), CompatRefusal> {
        let Value::Object(object) = value else { return Err(path.refuse("must be an object")) };
        let mut unknown = Vec::new();
        for (name, value) in object {
            match table.fields.iter().find(|field| field.name == name) {
                Some(field) => check_field(field, value, path)?,
                None => unknown.push((name, value)),
            }
        }
        Ok((Self { object, table, path }, unknown))
    }

    /// Returns a field's value; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        // A typo in a parser would silently read nothing.
        debug_assert!(
            self.table.fields.iter().any(|field| field.name == name),
            "{name} is not in the table of {}",
            self.table.place
        );
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn get_text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Returns a text field, empty if absent.
    pub(super) fn text_or_empty(&self, name: &str) -> String {
        self.get_text(name).unwrap_or_default().to_owned()
    }

    /// Returns a text field that is required.
    pub(super) fn require_text(&self, name: &str) -> Result<&'a str, CompatRefusal> {
        self.get_text(name).ok_or_else(|| self.path.field(name).refuse("missing"))
    }

    /// Returns a field that is required, of any type.
    pub(super) fn require_value(&self, name: &str) -> Result<&'a Value, CompatRefusal> {
        self.get(name).ok_or_else(|| self.path.field(name).refuse("missing"))
    }

    pub(super) fn get_flag(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(Value::as_bool)
    }

    pub(super) fn get_number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Value::as_f64)
    }

    pub(super) fn get_tokens(&self, name: &str) -> Option<u32> {
        self.get(name).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok())
    }

    /// Returns a list field, empty if absent.
    pub(super) fn get_list(&self, name: &str) -> &'a [Value] {
        self.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Returns the texts of a list field; a single text is a list of one.
    pub(super) fn get_texts(&self, name: &str) -> Result<Vec<String>, CompatRefusal> {
        match self.get(name) {
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            _ => {
                let text = |(place, value): (usize, &Value)| match value {
                    Value::String(text) => Ok(text.clone()),
                    _ => Err(self.path.field(name).entry(place).refuse("must be text")),
                };
                self.get_list(name).iter().enumerate().map(text).collect()
            }
        }
    }

    /// Returns the fields that only this interface has.
    pub(super) fn native_fields(&self, interface: ChatInterface) -> Option<NativeFields> {
        let native = |field: &&FieldSpec| matches!(field.handling, FieldHandling::Native);
        let fields = self.table.fields.iter().filter(native).filter_map(|field| {
            // SDKs send empty lists by default; they ask for nothing.
            let value = self.get(field.name).filter(|value| !is_empty_list(value))?;
            Some((field.name.to_owned(), value.clone()))
        });
        NativeFields::from_fields(interface, fields.collect())
    }

    /// Returns the fields that pass unchanged.
    pub(super) fn chat_options(&self) -> impl Iterator<Item = (ChatField, Value)> {
        self.table.fields.iter().filter_map(|field| match field.handling {
            // Some SDKs send defaults explicitly; passing them on would only limit the choice of
            // providers.
            FieldHandling::ChatOption(chat) => {
                let is_said = |value: &&Value| !chat.is_neutral(value) && !is_empty_list(value);
                let value = self.get(field.name).filter(is_said)?;
                Some((chat, value.clone()))
            }
            _ => None,
        })
    }

    /// Returns the names of present fields that are dropped.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &'static str> {
        let left_out = |field: &&FieldSpec| matches!(field.handling, FieldHandling::LeftOut);
        self.table
            .fields
            .iter()
            .filter(left_out)
            .filter(|field| self.get(field.name).is_some_and(|value| !is_nothing(value)))
            .map(|field| field.name)
    }
}

fn check_field(field: &FieldSpec, value: &Value, path: FieldPath<'_>) -> Result<(), CompatRefusal> {
    // Null means the default in all three APIs.
    if value.is_null() {
        return Ok(());
    }
    let field_path = path.field(field.name);
    match field.handling {
        FieldHandling::Refused(is_neutral) if is_neutral(value) => Ok(()),
        FieldHandling::Refused(_) => Err(field_path.refuse("not available here: leave it out")),
        _ if field.kind.accepts_value(value) => Ok(()),
        _ => Err(field_path.refuse(format!("must be {}", field.kind))),
    }
}

/// Returns the `type` of an object.
pub(super) fn read_type<'a>(
    value: &'a Value,
    path: FieldPath<'_>,
) -> Result<&'a str, CompatRefusal> {
    match (&value["type"], value) {
        (Value::String(kind), _) => Ok(kind),
        (Value::Null, Value::Object(_)) => Err(path.field("type").refuse("missing")),
        (_, Value::Object(_)) => Err(path.field("type").refuse("must be text")),
        _ => Err(path.refuse("must be an object")),
    }
}

/// Creates a refusal of an unknown `type`.
pub(super) fn unknown_type(kind: &str, path: FieldPath<'_>) -> CompatRefusal {
    let kind: String = kind.chars().take(NAME_CHARACTERS_LIMIT).collect();
    path.field("type").refuse(format!("the type `{kind}` is not known here"))
}
