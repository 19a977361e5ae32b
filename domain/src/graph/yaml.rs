//! Parses YAML, and so JSON, into a tree that keeps the position of every value.
//!
//! The tree is built from the parser's events, without recursion and with limits on size, depth and
//! count, because manifests come from strangers. Aliases, anchors and tags are refused: an alias
//! can multiply a short text without bound.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Number, Value};

use super::diagnostic::{Diagnostic, TextPosition, diagnostic_at};
use crate::json::WholeNumberTooLarge;

/// Largest manifest in bytes.
const BYTES_LIMIT: usize = 1 << 20;
/// Most levels of nested collections.
const DEPTH_LIMIT: usize = 64;
/// Most values in a manifest.
const VALUES_LIMIT: usize = 100_000;

/// A value and the position where it begins.
#[derive(Debug, Clone)]
pub(super) struct YamlTree {
    pub(super) position: TextPosition,
    pub(super) kind: YamlKind,
}

#[derive(Debug, Clone)]
pub(super) enum YamlKind {
    Scalar(Value),
    List(Vec<YamlTree>),
    Map(Vec<(String, YamlTree)>),
}

impl YamlTree {
    fn new(position: TextPosition, kind: YamlKind) -> Self {
        Self { position, kind }
    }

    /// Position of a line within a text value; `line` counts from 1.
    pub(super) fn position_of_line(&self, line: usize) -> TextPosition {
        match line.saturating_sub(1) {
            0 => self.position,
            further => TextPosition { line: self.position.line + further, column: 1 },
        }
    }

    /// Converts to a plain value. Recursion is bounded by [`DEPTH_LIMIT`].
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            YamlKind::Scalar(value) => value.clone(),
            YamlKind::List(list) => list.iter().map(Self::to_value).collect(),
            YamlKind::Map(fields) => {
                let fields = fields.iter().map(|(key, field)| (key.clone(), field.to_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// Returns a field if this is a map that has it.
    pub(super) fn find_field(&self, key: &str) -> Option<&Self> {
        let YamlKind::Map(fields) = &self.kind else { return None };
        fields.iter().find(|(name, _)| name == key).map(|(_, field)| field)
    }

    /// Returns the text if this is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let YamlKind::Scalar(Value::String(text)) = &self.kind { Some(text) } else { None }
    }

    /// The kind of value in words for error messages.
    pub(super) fn kind_name(&self) -> &'static str {
        match &self.kind {
            YamlKind::Scalar(Value::Null) => "nothing",
            YamlKind::Scalar(Value::Bool(_)) => "true or false",
            YamlKind::Scalar(Value::Number(_)) => "a number",
            YamlKind::Scalar(_) => "text",
            YamlKind::List(_) => "a list",
            YamlKind::Map(_) => "a map",
        }
    }
}

/// Parses a manifest's text, within the limits of this file.
pub(super) fn parse_yaml(text: &str) -> Result<YamlTree, Diagnostic> {
    let start = TextPosition { line: 1, column: 1 };
    if text.len() > BYTES_LIMIT {
        let message =
            format!("a manifest has at most {BYTES_LIMIT} bytes, this has {}", text.len());
        return Err(diagnostic_at(start, "", message));
    }
    let mut builder = YamlTreeBuilder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error_diagnostic(&error))?;
        builder.handle_event(event, start_position(&span))?;
    }
    builder.root.ok_or_else(|| diagnostic_at(start, "", "the manifest is empty"))
}

fn scan_error_diagnostic(error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let place = TextPosition { line: marker.line(), column: marker.col() + 1 };
    diagnostic_at(place, "", format!("not readable as YAML: {}", error.info()))
}

fn start_position(span: &Span) -> TextPosition {
    TextPosition { line: span.start.line(), column: span.start.col() + 1 }
}

/// A collection whose end has not been read; a map also has the keys seen and the key that waits
/// for its value.
enum OpenCollection {
    List(TextPosition, Vec<YamlTree>),
    Map(TextPosition, Vec<(String, YamlTree)>, BTreeSet<String>, Option<String>),
}

#[derive(Default)]
struct YamlTreeBuilder {
    open_collections: Vec<OpenCollection>,
    root: Option<YamlTree>,
    value_count: usize,
}

impl YamlTreeBuilder {
    fn handle_event(&mut self, event: Event<'_>, position: TextPosition) -> Result<(), Diagnostic> {
        let refuse = |message: &str| Err(diagnostic_at(position, "", message));
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
            Event::Scalar(text, style, ..) => self.add_scalar(&text, style, position),
            Event::SequenceStart(..) => {
                self.begin_collection(OpenCollection::List(position, Vec::new()), position)
            }
            Event::MappingStart(..) => self.begin_collection(
                OpenCollection::Map(position, Vec::new(), BTreeSet::new(), None),
                position,
            ),
            Event::SequenceEnd | Event::MappingEnd => self.end_collection(),
            Event::DocumentStart(_) if self.root.is_some() => {
                refuse("one manifest a file: a second document begins here")
            }
            // Stream and document marks carry no value.
            _ => Ok(()),
        }
    }

    fn begin_collection(
        &mut self,
        collection: OpenCollection,
        position: TextPosition,
    ) -> Result<(), Diagnostic> {
        // A map without a waiting key expects a key, and YAML allows collections there.
        if let Some(OpenCollection::Map(.., None)) = self.open_collections.last() {
            return Err(diagnostic_at(position, "", "a key must be text"));
        }
        if self.open_collections.len() == DEPTH_LIMIT {
            let message = format!("nested deeper than {DEPTH_LIMIT} levels");
            return Err(diagnostic_at(position, "", message));
        }
        self.open_collections.push(collection);
        Ok(())
    }

    fn end_collection(&mut self) -> Result<(), Diagnostic> {
        match self.open_collections.pop() {
            Some(OpenCollection::List(place, list)) => {
                self.add_value(YamlTree::new(place, YamlKind::List(list)))
            }
            Some(OpenCollection::Map(place, map, ..)) => {
                self.add_value(YamlTree::new(place, YamlKind::Map(map)))
            }
            None => Ok(()),
        }
    }

    fn add_scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        position: TextPosition,
    ) -> Result<(), Diagnostic> {
        if let Some(OpenCollection::Map(_, _, known, key @ None)) = self.open_collections.last_mut()
        {
            if !known.insert(text.to_owned()) {
                return Err(diagnostic_at(
                    position,
                    "",
                    format!("the key `{text}` stands here twice"),
                ));
            }
            *key = Some(text.to_owned());
            return Ok(());
        }
        let value = resolve_scalar(text, style)
            .map_err(|error| diagnostic_at(position, "", error.to_string()))?;
        self.add_value(YamlTree::new(position, YamlKind::Scalar(value)))
    }

    fn add_value(&mut self, tree: YamlTree) -> Result<(), Diagnostic> {
        self.value_count += 1;
        if self.value_count > VALUES_LIMIT {
            let message = format!("more than {VALUES_LIMIT} values");
            return Err(diagnostic_at(tree.position, "", message));
        }
        match self.open_collections.last_mut() {
            Some(OpenCollection::List(_, list)) => list.push(tree),
            Some(OpenCollection::Map(_, fields, _, key)) => {
                fields.push((key.take().unwrap_or_default(), tree));
            }
            None => self.root = Some(tree),
        }
        Ok(())
    }
}

/// Resolves a scalar by YAML's core schema; quoted ones are text.
fn resolve_scalar(text: &str, style: ScalarStyle) -> Result<Value, WholeNumberTooLarge> {
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.to_owned()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            parse_plain_number(text)?.map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
    })
}

/// Parses a plain scalar as a number; `None` if it is text. Whole numbers beyond 64 bits are an
/// error: a double would round them silently.
fn parse_plain_number(text: &str) -> Result<Option<Number>, WholeNumberTooLarge> {
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
