//! Declared fields of the compatible APIs: an undeclared name or a value of the wrong type is
//! rejected with its path. The tables in `docs/front-doors.md` are generated from the same
//! declarations.

use std::fmt;

use convergio_domain::chat::{ChatField, Interface, NativeFields};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Maximum of any token count in a request.
const TOKENS_LIMIT: u64 = 1 << 31;
/// Maximum characters of an unknown name that an error repeats.
const NAME_LETTERS: usize = 100;

/// Path of a value in a request, as errors name it: `messages[0].content`. It borrows its parents,
/// so building one allocates nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Name(&'a str),
    Place(usize),
}

impl Path<'_> {
    /// Path of the body.
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// Path of a field of this object.
    pub(super) fn field<'a>(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Name(name) }
    }

    /// Path of an entry of this list.
    pub(super) fn entry(&self, place: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Place(place) }
    }

    /// Creates a refusal of the value at this path.
    pub(super) fn refuse(&self, message: impl Into<String>) -> Refusal {
        Refusal::invalid(&self.to_string(), message)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        // The first field follows the body's path, which is empty: no dot.
        let is_first = self.parent.is_none_or(|parent| matches!(parent.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Name(name) if is_first => f.write_str(name),
            Step::Name(name) => write!(f, ".{name}"),
            Step::Place(place) => write!(f, "[{place}]"),
        }
    }
}

/// Type and range of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
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

impl Kind {
    fn takes(self, value: &Value) -> bool {
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
            Self::TextOrList(limit) => value.is_string() || Self::List(limit).takes(value),
            Self::TextOrObject => value.is_string() || value.is_object(),
        }
    }
}

impl fmt::Display for Kind {
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
pub(super) enum Fate {
    /// Part of every conversation; all providers support it.
    Kept,
    /// Becomes a field of [`ChatRequest`](convergio_domain::chat::ChatRequest) that providers
    /// support differently.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is made of it"))]
    Chat(ChatField),
    /// Like `Chat`, and its value passes unchanged, unless it is neutral.
    Option(ChatField),
    /// Goes unchanged to providers of the same interface; others get nothing of it.
    Native,
    /// Acted on by the gateway itself.
    Door,
    /// Has no effect here; the caller is told by a header.
    LeftOut,
    /// Rejected, unless the predicate finds the value neutral (it asks for nothing).
    Refused(fn(&Value) -> bool),
}

/// The declaration of a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) fate: Fate,
}

/// Declares a field of a table.
pub(super) const fn field(name: &'static str, kind: Kind, fate: Fate) -> Field {
    Field { name, kind, fate }
}

/// A declared object: its place in the documentation and its fields.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) place: &'static str,
    pub(super) fields: &'static [Field],
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
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    table: &'static Object,
    pub(super) path: Path<'a>,
}

/// Fields that the table does not declare.
type Rest<'a> = Vec<(&'a String, &'a Value)>;

impl<'a> Fields<'a> {
    /// Reads an object by its table.
    ///
    /// # Errors
    /// A refusal that names an undeclared field or a value of the wrong type.
    pub(super) fn read(
        value: &'a Value,
        path: Path<'a>,
        table: &'static Object,
    ) -> Result<Self, Refusal> {
        let (fields, rest) = Self::read_open(value, path, table)?;
        match rest.into_iter().next() {
            // The name is the caller's and may be long.
            Some((name, _)) => {
                let name: String = name.chars().take(NAME_LETTERS).collect();
                Err(path.field(&name).refuse("this field is not known here: leave it out"))
            }
            None => Ok(fields),
        }
    }

    /// Reads an object like [`RequestFields::read_known`], and returns the undeclared fields
    /// instead of rejecting them.
    pub(super) fn read_open(
        value: &'a Value,
        path: Path<'a>,
        table: &'static Object,
    ) -> Result<(Self, Rest<'a>), Refusal> {
        let Value::Object(object) = value else { return Err(path.refuse("must be an object")) };
        let mut rest = Vec::new();
        for (name, value) in object {
            match table.fields.iter().find(|field| field.name == name) {
                Some(field) => check(field, value, path)?,
                None => rest.push((name, value)),
            }
        }
        Ok((Self { object, table, path }, rest))
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

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Returns a text field, empty if absent.
    pub(super) fn string(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// Returns a text field that is required.
    pub(super) fn need_text(&self, name: &str) -> Result<&'a str, Refusal> {
        self.text(name).ok_or_else(|| self.path.field(name).refuse("missing"))
    }

    /// Returns a field that is required, of any type.
    pub(super) fn need(&self, name: &str) -> Result<&'a Value, Refusal> {
        self.get(name).ok_or_else(|| self.path.field(name).refuse("missing"))
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(Value::as_bool)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Value::as_f64)
    }

    pub(super) fn tokens(&self, name: &str) -> Option<u32> {
        self.get(name).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok())
    }

    /// Returns a list field, empty if absent.
    pub(super) fn list(&self, name: &str) -> &'a [Value] {
        self.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Returns the texts of a list field; a single text is a list of one.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Refusal> {
        match self.get(name) {
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            _ => {
                let text = |(place, value): (usize, &Value)| match value {
                    Value::String(text) => Ok(text.clone()),
                    _ => Err(self.path.field(name).entry(place).refuse("must be text")),
                };
                self.list(name).iter().enumerate().map(text).collect()
            }
        }
    }

    /// Returns the fields that only this interface has.
    pub(super) fn native(&self, interface: Interface) -> Option<NativeFields> {
        let native = |field: &&Field| matches!(field.fate, Fate::Native);
        let fields = self.table.fields.iter().filter(native).filter_map(|field| {
            // SDKs send empty lists by default; they ask for nothing.
            let value = self.get(field.name).filter(|value| !is_empty_list(value))?;
            Some((field.name.to_owned(), value.clone()))
        });
        NativeFields::of(interface, fields.collect())
    }

    /// Returns the fields that pass unchanged.
    pub(super) fn options(&self) -> impl Iterator<Item = (ChatField, Value)> {
        self.table.fields.iter().filter_map(|field| match field.fate {
            // Some SDKs send defaults explicitly; passing them on would only limit the choice of
            // providers.
            Fate::Option(chat) => {
                let is_said = |value: &&Value| !chat.is_neutral(value) && !is_empty_list(value);
                let value = self.get(field.name).filter(is_said)?;
                Some((chat, value.clone()))
            }
            _ => None,
        })
    }

    /// Returns the names of present fields that are dropped.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &'static str> {
        let left_out = |field: &&Field| matches!(field.fate, Fate::LeftOut);
        self.table
            .fields
            .iter()
            .filter(left_out)
            .filter(|field| self.get(field.name).is_some_and(|value| !is_nothing(value)))
            .map(|field| field.name)
    }
}

fn check(field: &Field, value: &Value, path: Path<'_>) -> Result<(), Refusal> {
    // Null means the default in all three APIs.
    if value.is_null() {
        return Ok(());
    }
    let place = path.field(field.name);
    match field.fate {
        Fate::Refused(is_neutral) if is_neutral(value) => Ok(()),
        Fate::Refused(_) => Err(place.refuse("not available here: leave it out")),
        _ if field.kind.takes(value) => Ok(()),
        _ => Err(place.refuse(format!("must be {}", field.kind))),
    }
}

/// Returns the `type` of an object.
pub(super) fn kind_of<'a>(value: &'a Value, path: Path<'_>) -> Result<&'a str, Refusal> {
    match (&value["type"], value) {
        (Value::String(kind), _) => Ok(kind),
        (Value::Null, Value::Object(_)) => Err(path.field("type").refuse("missing")),
        (_, Value::Object(_)) => Err(path.field("type").refuse("must be text")),
        _ => Err(path.refuse("must be an object")),
    }
}

/// Creates a refusal of an unknown `type`.
pub(super) fn unknown_kind(kind: &str, path: Path<'_>) -> Refusal {
    let kind: String = kind.chars().take(NAME_LETTERS).collect();
    path.field("type").refuse(format!("the type `{kind}` is not known here"))
}
