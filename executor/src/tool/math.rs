//! Exact arithmetic on decimals. Answers are text, so that no digit is lost on the way.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::Builtin;
use super::args::{Args, ToolError, error};

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "math.eval",
        description: "Evaluates + - * / and parentheses on decimals; / rounds at 28 digits.",
        arguments: &[("expression", "string")],
        call: eval,
    },
    Builtin {
        name: "math.sum",
        description: "The sum of a list of numbers.",
        arguments: &[("items", "any")],
        call: sum,
    },
];

/// Characters of one expression; bounds the recursion with [`DEPTH_LIMIT`].
const LENGTH_LIMIT: usize = 4096;
const DEPTH_LIMIT: usize = 64;

fn eval(args: &Args<'_>) -> Result<Value, ToolError> {
    let expression = args.text("expression")?;
    if expression.len() > LENGTH_LIMIT {
        return error(format!("an expression has at most {LENGTH_LIMIT} characters"));
    }
    let mut reader = Reader { rest: expression.as_bytes(), depth: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        None => Ok(json!(value.normalize().to_string())),
        Some(other) => error(format!("`{}` was not expected", char::from(other))),
    }
}

fn sum(args: &Args<'_>) -> Result<Value, ToolError> {
    let mut total = Decimal::ZERO;
    for item in args.list("items")? {
        let number = match item {
            Value::String(text) => number(text.trim())?,
            Value::Number(value) => number(&value.to_string())?,
            _ => return error("`items` must be a list of numbers"),
        };
        total = total.checked_add(number).ok_or_else(too_large)?;
    }
    Ok(json!(total.normalize().to_string()))
}

fn number(text: &str) -> Result<Decimal, ToolError> {
    Decimal::from_str_exact(text).map_err(|_| ToolError(format!("`{text}` is not a number")))
}

fn too_large() -> ToolError {
    ToolError("a number is too large".into())
}

/// Reads by recursive descent: sum of products of signed atoms.
struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<u8> {
        while let [first, rest @ ..] = self.rest
            && first.is_ascii_whitespace()
        {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    fn take(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or(&[]);
    }

    fn sum(&mut self) -> Result<Decimal, ToolError> {
        let mut value = self.product()?;
        while let Some(sign @ (b'+' | b'-')) = self.peek() {
            self.take();
            let other = self.product()?;
            let result =
                if sign == b'+' { value.checked_add(other) } else { value.checked_sub(other) };
            value = result.ok_or_else(too_large)?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Decimal, ToolError> {
        let mut value = self.atom()?;
        while let Some(sign @ (b'*' | b'/')) = self.peek() {
            self.take();
            let other = self.atom()?;
            if sign == b'/' && other.is_zero() {
                return error("division by zero");
            }
            let result =
                if sign == b'*' { value.checked_mul(other) } else { value.checked_div(other) };
            value = result.ok_or_else(too_large)?;
        }
        Ok(value)
    }

    fn atom(&mut self) -> Result<Decimal, ToolError> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return error(format!("nested deeper than {DEPTH_LIMIT} levels"));
        }
        let value = match self.peek() {
            Some(b'-') => {
                self.take();
                -self.atom()?
            }
            Some(b'(') => {
                self.take();
                let value = self.sum()?;
                if self.peek() != Some(b')') {
                    return error("a parenthesis is not closed");
                }
                self.take();
                value
            }
            _ => self.literal()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn literal(&mut self) -> Result<Decimal, ToolError> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let length = self.rest.iter().take_while(|byte| is_digit(byte)).count();
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        if digits.is_empty() {
            return error("a number was expected");
        }
        number(&String::from_utf8_lossy(digits))
    }
}
