//! Parses YAML, and so JSON, into a tree that keeps the position of every value.
//!
//! The tree is built from the parser's events, without recursion and with limits on size, depth and
//! count, because manifests come from strangers. Aliases, anchors and tags are refused: an alias
//! can multiply a short text without bound.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Number, Value};

use super::mistake::{Mistake, Place, mistake};
use crate::json::WholeNumberTooLarge;

/// Largest manifest in bytes.
const BYTES_LIMIT: usize = 1 << 20;
/// Most levels of nested collections.
const DEPTH_LIMIT: usize = 64;
/// Most values in a manifest.
const VALUES_LIMIT: usize = 100_000;

/// A value and the position where it begins.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(Value),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    fn new(place: Place, kind: Kind) -> Self {
        Self { place, kind }
    }

    /// Position of a line within a text value; `line` counts from 1.
    pub(super) fn line(&self, line: usize) -> Place {
        match line.saturating_sub(1) {
            0 => self.place,
            further => Place { line: self.place.line + further, column: 1 },
        }
    }

    /// Converts to a plain value. Recursion is bounded by [`DEPTH_LIMIT`].
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(list) => list.iter().map(Self::value).collect(),
            Kind::Map(fields) => {
                let fields = fields.iter().map(|(key, field)| (key.clone(), field.value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// Returns a field if this is a map that has it.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        let Kind::Map(fields) = &self.kind else { return None };
        fields.iter().find(|(name, _)| name == key).map(|(_, field)| field)
    }

    /// Returns the text if this is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Kind::Scalar(Value::String(text)) = &self.kind { Some(text) } else { None }
    }

    /// The kind of value in words for error messages.
    pub(super) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(Value::Null) => "nothing",
            Kind::Scalar(Value::Bool(_)) => "true or false",
            Kind::Scalar(Value::Number(_)) => "a number",
            Kind::Scalar(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Parses a manifest's text, within the limits of this file.
pub(super) fn read(text: &str) -> Result<Tree, Mistake> {
    let start = Place { line: 1, column: 1 };
    if text.len() > BYTES_LIMIT {
        let message =
            format!("a manifest has at most {BYTES_LIMIT} bytes, this has {}", text.len());
        return Err(mistake(start, "", message));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| unreadable(&error))?;
        builder.take(event, place(&span))?;
    }
    builder.root.ok_or_else(|| mistake(start, "", "the manifest is empty"))
}

fn unreadable(error: &ScanError) -> Mistake {
    let marker = error.marker();
    let place = Place { line: marker.line(), column: marker.col() + 1 };
    mistake(place, "", format!("not readable as YAML: {}", error.info()))
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

/// A collection whose end has not been read; a map also has the keys seen and the key that waits
/// for its value.
enum Open {
    List(Place, Vec<Tree>),
    Map(Place, Vec<(String, Tree)>, BTreeSet<String>, Option<String>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Tree>,
    values: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Mistake> {
        let refuse = |message: &str| Err(mistake(place, "", message));
        match event {
            Event::Alias(_) => refuse("aliases (*name) are not allowed: write the value out"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                refuse("anchors (&name) are not allowed: write the value out")
            }
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => refuse("tags (!name) are not allowed"),
            Event::Scalar(text, style, ..) => self.scalar(&text, style, place),
            Event::SequenceStart(..) => self.begin(Open::List(place, Vec::new()), place),
            Event::MappingStart(..) => {
                self.begin(Open::Map(place, Vec::new(), BTreeSet::new(), None), place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentStart(_) if self.root.is_some() => {
                refuse("one manifest a file: a second document begins here")
            }
            // Stream and document marks carry no value.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, place: Place) -> Result<(), Mistake> {
        // A map without a waiting key expects a key, and YAML allows collections there.
        if let Some(Open::Map(.., None)) = self.open.last() {
            return Err(mistake(place, "", "a key must be text"));
        }
        if self.open.len() == DEPTH_LIMIT {
            let message = format!("nested deeper than {DEPTH_LIMIT} levels");
            return Err(mistake(place, "", message));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Mistake> {
        match self.open.pop() {
            Some(Open::List(place, list)) => self.put(Tree::new(place, Kind::List(list))),
            Some(Open::Map(place, map, ..)) => self.put(Tree::new(place, Kind::Map(map))),
            None => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, place: Place) -> Result<(), Mistake> {
        if let Some(Open::Map(_, _, known, key @ None)) = self.open.last_mut() {
            if !known.insert(text.to_owned()) {
                return Err(mistake(place, "", format!("the key `{text}` stands here twice")));
            }
            *key = Some(text.to_owned());
            return Ok(());
        }
        let value = resolve(text, style).map_err(|error| mistake(place, "", error.to_string()))?;
        self.put(Tree::new(place, Kind::Scalar(value)))
    }

    fn put(&mut self, tree: Tree) -> Result<(), Mistake> {
        self.values += 1;
        if self.values > VALUES_LIMIT {
            let message = format!("more than {VALUES_LIMIT} values");
            return Err(mistake(tree.place, "", message));
        }
        match self.open.last_mut() {
            Some(Open::List(_, list)) => list.push(tree),
            Some(Open::Map(_, fields, _, key)) => {
                fields.push((key.take().unwrap_or_default(), tree));
            }
            None => self.root = Some(tree),
        }
        Ok(())
    }
}

/// Resolves a scalar by YAML's core schema; quoted ones are text.
fn resolve(text: &str, style: ScalarStyle) -> Result<Value, WholeNumberTooLarge> {
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.to_owned()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text)?.map_or_else(|| Value::String(text.to_owned()), Value::Number),
    })
}

/// Parses a plain scalar as a number; `None` if it is text. Whole numbers beyond 64 bits are an
/// error: a double would round them silently.
fn number(text: &str) -> Result<Option<Number>, WholeNumberTooLarge> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return Ok(None);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Some(Number::from(number)));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Ok(Some(Number::from(number)));
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WholeNumberTooLarge { path: String::new(), digits: digits.len() });
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    Ok(number.and_then(Number::from_f64))
}
