//! Templates by minijinja: no clock, no randomness, no includes, bounded work and output.

use std::io;
use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value as Jinja};
use serde_json::Value;

use super::tokens::{Form, scan};
use super::{ExprError, Scope, filters};

/// Instructions that one rendering may take.
const FUEL: u64 = 2_000_000;
/// Bytes that one rendering may yield.
const OUTPUT_LIMIT: usize = 4 << 20;
/// Bytes of one template.
const TEMPLATE_LIMIT: usize = 256 << 10;

/// The environment of every template: chosen filters and tests, strict about what is undefined.
pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    filters::add(&mut environment);
    environment.add_function("range", minijinja::functions::range);
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, state, value| {
        if value.is_undefined() || value.as_str().is_some() || value.is_number() {
            return minijinja::escape_formatter(out, state, value);
        }
        // What is not text appears in text as JSON.
        let json = serde_json::to_string(value).map_err(|error| {
            minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
        })?;
        out.write_str(&json).map_err(minijinja::Error::from)
    });
    environment
}

/// The expression of a text that is nothing but one `{{ expression }}`.
pub(super) fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let is_sole = !["{{", "}}", "{%", "{#"].iter().any(|mark| inner.contains(mark));
    is_sole.then(|| inner.trim_start_matches('-').trim_end_matches('-'))
}

/// Whether anything in a text is to be evaluated.
pub(super) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

pub(super) fn check_length(text: &str) -> Result<(), ExprError> {
    if text.len() > TEMPLATE_LIMIT {
        return Err(ExprError::new(format!("the template is longer than {TEMPLATE_LIMIT} bytes")));
    }
    Ok(())
}

/// A text that refuses to grow beyond the limit.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_LIMIT {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Renders a template to text.
///
/// # Errors
/// The template is malformed, names something undefined, or exceeds a limit.
pub fn render_text(text: &str, scope: &Scope) -> Result<String, ExprError> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    check_length(text)?;
    scan(text, Form::Template)?;
    let template = ENVIRONMENT.template_from_str(text).map_err(|error| explain(&error))?;
    let values = Jinja::from(Serde(scope.values_for(text)));
    let mut rendered = Bounded::default();
    template.render_captured_to(values, &mut rendered).map_err(|error| explain(&error))?;
    String::from_utf8(rendered.0).map_err(|error| ExprError::new(error.to_string()))
}

/// Renders every string within a value. A string that is nothing but one `{{ expression }}` keeps
/// the type of what it yields; any other becomes text.
///
/// # Errors
/// As [`render_text`].
pub fn render_value(value: &Value, scope: &Scope) -> Result<Value, ExprError> {
    match value {
        Value::String(text) => match sole_expression(text) {
            Some(expression) => evaluate(expression, scope),
            None => render_text(text, scope).map(Value::String),
        },
        Value::Array(list) => list.iter().map(|item| render_value(item, scope)).collect(),
        Value::Object(fields) => {
            let render =
                |(key, field): (&String, &Value)| Ok((key.clone(), render_value(field, scope)?));
            fields.iter().map(render).collect::<Result<_, _>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

fn evaluate(expression: &str, scope: &Scope) -> Result<Value, ExprError> {
    // Mostly it is the name of a value: that needs no interpreter.
    scope.named(expression.trim()).map_or_else(|| interpret(expression, scope), Ok)
}

fn interpret(expression: &str, scope: &Scope) -> Result<Value, ExprError> {
    check_length(expression)?;
    scan(expression, Form::Expression)?;
    let compiled = ENVIRONMENT.compile_expression(expression).map_err(|error| explain(&error))?;
    let values = Jinja::from(Serde(scope.values_for(expression)));
    let value = compiled.eval(values).map_err(|error| explain(&error))?;
    if value.is_undefined() {
        return Err(ExprError::new(format!("`{}` is undefined", expression.trim())));
    }
    json_of(&value)
}

/// A template's mistake in the words of who wrote it: a limit as the limit, else the library's.
pub(super) fn explain(error: &minijinja::Error) -> ExprError {
    let message = match error.kind() {
        ErrorKind::OutOfFuel => format!("takes more than {FUEL} instructions: loop over less"),
        // Whatever is written goes to `Bounded`, which refuses for one reason.
        ErrorKind::WriteFailure => format!("yields more than {OUTPUT_LIMIT} bytes: yield less"),
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    ExprError { message: format!("template: {message}"), line: error.line() }
}

/// The value of an expression as JSON.
fn json_of(value: &Jinja) -> Result<Value, ExprError> {
    serde_json::to_value(value).map_err(|error| match error.to_string() {
        // Arithmetic of templates is wider than JSON's numbers.
        reason if reason.contains("out of range") => ExprError::new(
            "template: yields a whole number beyond 64 bits: make it text with `| string`",
        ),
        reason => ExprError::new(reason),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::NodeView;
    use super::{Scope, interpret};

    #[test]
    fn a_plain_name_means_what_the_interpreter_makes_of_it() {
        let value = json!({"a": {"b": [1, -2.5, "x", null, u64::MAX]}, "_c": "", "n": null});
        let output = Some(Arc::new(value.clone()));
        let scope = Scope {
            inputs: Arc::new(value.clone()),
            nodes: [("x".parse().unwrap(), NodeView { status: "completed", output })].into(),
            item: Some((value, 3)),
        };
        for start in ["inputs", "item", "nodes.x.output"] {
            for rest in ["", ".a", ".a.b", "._c", ".n", ".d", ".a.c", ".n.a", ".a.b.c"] {
                let expression = format!("{start}{rest}");
                let interpreted = interpret(&expression, &scope).ok();
                assert_eq!(scope.named(&expression), interpreted, "{expression}");
            }
        }
        for other in ["index", "nodes.x.status", "nodes.y.output", "nodes", "inputs.a[0]", "1", ""]
        {
            assert_eq!(scope.named(other), None::<Value>, "{other}");
        }
    }
}
