//! Templates by minijinja: no clock, no randomness, no includes, bounded work and output.

use std::io;
use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value as Jinja};
use serde_json::Value;

use super::allowance::{Allowance, BoundedEvalError};
use super::error::ExprError;
use super::filter_meter::limit_filters;
use super::filters;
use super::scope::ExprScope;
use super::token_scan::{SourceForm, TextShape, scan_text};
use super::weight::ValueWeight;

/// Most instructions of one rendering.
const FUEL: u64 = 2_000_000;
/// Most bytes of rendered text.
const OUTPUT_LIMIT: usize = 4 << 20;
/// Most bytes in memory of one rendered value, with everything within it.
const RENDERED_LIMIT: u64 = 128 << 20;
/// Longest template in bytes.
const TEMPLATE_LIMIT: usize = 256 << 10;

/// Environment of every template: chosen filters and tests, strict about undefined values.
pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(new_environment);

fn new_environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    filters::add_filters_and_tests(&mut environment);
    environment.add_function("range", minijinja::functions::range);
    environment.set_fuel(Some(FUEL));
    // A misspelt name must fail, not render as nothing.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Prompts are not HTML.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, state, value| {
        if value.is_undefined() || value.as_str().is_some() || value.is_number() {
            return minijinja::escape_formatter(out, state, value);
        }
        // Values other than text and numbers are written as JSON.
        let json = serde_json::to_string(value).map_err(|error| {
            minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
        })?;
        out.write_str(&json).map_err(minijinja::Error::from)
    });
    environment
}

/// Returns the expression of a text that is nothing but one `{{ expression }}`.
pub(super) fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let is_sole = !["{{", "}}", "{%", "{#"].iter().any(|mark| inner.contains(mark));
    is_sole.then(|| inner.trim_start_matches('-').trim_end_matches('-'))
}

/// True if anything in a text is to be evaluated.
pub(super) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

pub(super) fn check_length(text: &str) -> Result<(), ExprError> {
    if text.len() > TEMPLATE_LIMIT {
        return Err(ExprError::new(format!("the template is longer than {TEMPLATE_LIMIT} bytes")));
    }
    Ok(())
}

/// Buffer that refuses to grow beyond [`OUTPUT_LIMIT`].
#[derive(Default)]
struct BoundedOutput(Vec<u8>);

impl io::Write for BoundedOutput {
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
/// The template is malformed, uses an undefined name, or exceeds a limit.
pub fn render_text(text: &str, scope: &ExprScope) -> Result<String, ExprError> {
    Rendering::new(scope, None).render_text(text).map_err(into_expr_error)
}

/// As [`render_text`], if it is certain to cost no more than the allowance.
///
/// # Errors
/// As [`render_text`], or [`BoundedEvalError::OverAllowance`].
pub fn render_text_within(
    text: &str,
    scope: &ExprScope,
    allowance: &mut Allowance,
) -> Result<String, BoundedEvalError> {
    Rendering::new(scope, Some(allowance)).render_text(text)
}

/// Renders every string within a value. A string that is nothing but one `{{ expression }}` keeps
/// the type of its value; any other becomes text.
///
/// # Errors
/// As [`render_text`].
pub fn render_value(value: &Value, scope: &ExprScope) -> Result<Value, ExprError> {
    Rendering::new(scope, None).render_value(value).map_err(into_expr_error)
}

/// As [`render_value`], if it is certain to cost no more than the allowance.
///
/// # Errors
/// As [`render_value`], or [`BoundedEvalError::OverAllowance`].
pub fn render_value_within(
    value: &Value,
    scope: &ExprScope,
    allowance: &mut Allowance,
) -> Result<Value, BoundedEvalError> {
    Rendering::new(scope, Some(allowance)).render_value(value)
}

/// Converts the error of a rendering without allowance, which is never over it.
fn into_expr_error(error: BoundedEvalError) -> ExprError {
    match error {
        BoundedEvalError::Expression(error) => error,
        BoundedEvalError::OverAllowance => ExprError::new("template: takes more than it may"),
    }
}

/// One rendering in progress.
struct Rendering<'a> {
    scope: &'a ExprScope,
    /// Allowance of the work; without one the limits of this file hold.
    allowance: Option<&'a mut Allowance>,
    /// Bytes that rendered values may still take.
    remaining_bytes: u64,
}

impl<'a> Rendering<'a> {
    fn new(scope: &'a ExprScope, allowance: Option<&'a mut Allowance>) -> Self {
        Self { scope, allowance, remaining_bytes: RENDERED_LIMIT }
    }

    fn render_text(&mut self, text: &str) -> Result<String, BoundedEvalError> {
        if !is_template(text) {
            return Ok(text.to_owned());
        }
        check_length(text)?;
        let (_, shape) = scan_text(text, SourceForm::Template)?;
        let environment = self.bounded_environment(text, shape)?;
        let template =
            environment.template_from_str(text).map_err(|error| self.classify_error(&error))?;
        let values = Jinja::from(Serde(self.scope.values_for(text)));
        let mut rendered = BoundedOutput::default();
        let captured = template.render_captured_to(values, &mut rendered);
        captured.map_err(|error| self.classify_error(&error))?;
        String::from_utf8(rendered.0).map_err(|error| ExprError::new(error.to_string()).into())
    }

    fn render_value(&mut self, value: &Value) -> Result<Value, BoundedEvalError> {
        match value {
            Value::String(text) => match sole_expression(text) {
                Some(expression) => self.render_expression(expression),
                None => {
                    let rendered = Value::String(self.render_text(text)?);
                    self.charge_output(&rendered)?;
                    Ok(rendered)
                }
            },
            Value::Array(list) => list.iter().map(|item| self.render_value(item)).collect(),
            Value::Object(fields) => {
                let mut rendered = serde_json::Map::new();
                for (key, field) in fields {
                    rendered.insert(key.clone(), self.render_value(field)?);
                }
                Ok(Value::Object(rendered))
            }
            other => Ok(other.clone()),
        }
    }

    fn render_expression(&mut self, expression: &str) -> Result<Value, BoundedEvalError> {
        // Most expressions are plain paths, which need no interpreter.
        match self.scope.find_value(expression.trim()) {
            Some(value) => {
                self.charge_output(value)?;
                Ok(value.clone())
            }
            None => {
                let rendered = self.interpret_expression(expression)?;
                self.charge_output(&rendered)?;
                Ok(rendered)
            }
        }
    }

    fn interpret_expression(&mut self, expression: &str) -> Result<Value, BoundedEvalError> {
        check_length(expression)?;
        let (_, shape) = scan_text(expression, SourceForm::Expression)?;
        let environment = self.bounded_environment(expression, shape)?;
        let compiled = environment.compile_expression(expression);
        let compiled = compiled.map_err(|error| self.classify_error(&error))?;
        let values = Jinja::from(Serde(self.scope.values_for(expression)));
        let value = compiled.eval(values).map_err(|error| self.classify_error(&error))?;
        if value.is_undefined() {
            return Err(ExprError::new(format!("`{}` is undefined", expression.trim())).into());
        }
        Ok(jinja_to_json(&value)?)
    }

    fn charge_output(&mut self, rendered: &Value) -> Result<(), ExprError> {
        let weight = ValueWeight::of_value(rendered, self.remaining_bytes).bytes;
        self.remaining_bytes =
            self.remaining_bytes.checked_sub(weight).ok_or_else(output_too_large)?;
        Ok(())
    }

    /// Returns the environment for one text: the shared one, or a clone whose fuel fits the
    /// allowance.
    fn bounded_environment(
        &mut self,
        text: &str,
        shape: TextShape,
    ) -> Result<RenderEnvironment, BoundedEvalError> {
        let Some(allowance) = self.allowance.as_deref_mut() else {
            return Ok(RenderEnvironment::Shared(&ENVIRONMENT));
        };
        allowance.take_bytes(text.len() as u64 * COMPILE_BYTES)?;
        let weight = self.scope.weight_for(text, allowance.remaining_bytes());
        let share = RenderingBudget::take_from(text, shape, weight, allowance)?;
        let mut environment = ENVIRONMENT.clone();
        environment.set_fuel(Some(share.fuel));
        if share.filter_bytes > 0 {
            limit_filters(&mut environment, share.filter_bytes);
        }
        Ok(RenderEnvironment::Own(Box::new(environment)))
    }

    /// Tells an exhausted allowance from an error of the template: with an allowance, running out
    /// of fuel says nothing about the template.
    fn classify_error(&self, error: &minijinja::Error) -> BoundedEvalError {
        match self.allowance {
            Some(_) if is_out_of_fuel(error) => BoundedEvalError::OverAllowance,
            _ => explain_template_error(error).into(),
        }
    }
}

/// Bytes charged for parsing one byte of a template.
const COMPILE_BYTES: u64 = 16;

/// Bytes that filters may read however small the values are.
const LEAST_FILTER_BYTES: u64 = 4 << 10;

/// Fuel and filter bytes of one rendering within an allowance. The bound is instructions times the
/// bytes that one instruction may read: every value that an expression names, and what filters
/// made.
struct RenderingBudget {
    fuel: u64,
    filter_bytes: u64,
}

impl RenderingBudget {
    /// Takes from the allowance what a text needs. Without loops the number of instructions is
    /// known; with loops half of the allowance is spent on fuel.
    fn take_from(
        text: &str,
        shape: TextShape,
        weight: ValueWeight,
        allowance: &mut Allowance,
    ) -> Result<Self, BoundedEvalError> {
        // Within a loop, a name may stand for a list of everything that the loop's own list names.
        let names = shape.names.max(1).saturating_pow(shape.loops.saturating_add(1));
        let values = weight.bytes.saturating_mul(names).saturating_add(text.len() as u64).max(1);
        let filter_bytes =
            if shape.has_filters { values.saturating_add(LEAST_FILTER_BYTES) } else { 0 };
        let bytes_per_instruction = values.saturating_add(filter_bytes);
        let straight_fuel = 2 * shape.tokens + 16;
        let fuel = if shape.loops == 0 {
            straight_fuel
        } else {
            allowance.remaining_bytes() / 2 / bytes_per_instruction
        };
        if fuel < straight_fuel {
            return Err(BoundedEvalError::OverAllowance);
        }
        allowance.take_bytes(fuel.saturating_mul(bytes_per_instruction))?;
        Ok(Self { fuel, filter_bytes })
    }
}

fn is_out_of_fuel(error: &minijinja::Error) -> bool {
    let mut error: &(dyn std::error::Error + 'static) = error;
    loop {
        let kind = error.downcast_ref::<minijinja::Error>().map(minijinja::Error::kind);
        match (kind, error.source()) {
            (Some(ErrorKind::OutOfFuel), _) => return true,
            (_, Some(source)) => error = source,
            (_, None) => return false,
        }
    }
}

fn output_too_large() -> ExprError {
    ExprError::new(format!("template: yields more than {RENDERED_LIMIT} bytes: yield less"))
}

/// The shared environment, or one with less fuel.
enum RenderEnvironment {
    Shared(&'static Environment<'static>),
    Own(Box<Environment<'static>>),
}

impl std::ops::Deref for RenderEnvironment {
    type Target = Environment<'static>;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Shared(environment) => environment,
            Self::Own(environment) => environment,
        }
    }
}

/// Explains an error of a template in terms of its author: a limit as the limit, else the library's
/// message.
pub(super) fn explain_template_error(error: &minijinja::Error) -> ExprError {
    let message = match error.kind() {
        ErrorKind::OutOfFuel => format!("takes more than {FUEL} instructions: loop over less"),
        // [`BoundedOutput`] is the only writer, and fails for one reason.
        ErrorKind::WriteFailure => format!("yields more than {OUTPUT_LIMIT} bytes: yield less"),
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    ExprError { message: format!("template: {message}"), line: error.line() }
}

/// Converts the value of an expression to JSON.
fn jinja_to_json(value: &Jinja) -> Result<Value, ExprError> {
    serde_json::to_value(value).map_err(|error| match error.to_string() {
        // minijinja computes with 128-bit integers, which JSON values cannot hold.
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
    use super::{ExprScope, Rendering};

    #[test]
    fn a_plain_name_means_what_the_interpreter_makes_of_it() {
        let value = json!({"a": {"b": [1, -2.5, "x", null, u64::MAX]}, "_c": "", "n": null});
        let output = Some(Arc::new(value.clone()));
        let scope = ExprScope {
            inputs: Arc::new(value.clone()),
            nodes: [("x".parse().unwrap(), NodeView { status: "completed", output })].into(),
            item: Some((value, 3)),
        };
        for start in ["inputs", "item", "nodes.x.output"] {
            for rest in ["", ".a", ".a.b", "._c", ".n", ".d", ".a.c", ".n.a", ".a.b.c"] {
                let expression = format!("{start}{rest}");
                let interpreted =
                    Rendering::new(&scope, None).interpret_expression(&expression).ok();
                assert_eq!(scope.find_value(&expression).cloned(), interpreted, "{expression}");
            }
        }
        for other in ["index", "nodes.x.status", "nodes.y.output", "nodes", "inputs.a[0]", "1", ""]
        {
            assert_eq!(scope.find_value(other), None::<&Value>, "{other}");
        }
    }
}
