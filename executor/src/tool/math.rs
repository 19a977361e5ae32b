//! The tools `math.eval` and `math.sum`: exact decimal arithmetic. Answers are strings, since a
//! JSON number would lose digits.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::args::{Args, Kind, ToolError, error, required};
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "math.eval",
        description: "Evaluates + - * / and parentheses on decimals of up to 28 digits, without \
            floats; the answer is a text, so that no digit is lost.",
        arguments: &[required("expression", Kind::Text)],
        call: eval,
    },
    Builtin {
        name: "math.sum",
        description: "The sum of a list of numbers, or of texts that are numbers, as a text.",
        arguments: &[required("items", Kind::List)],
        call: sum,
    },
];

/// Maximum bytes of an expression.
const LENGTH_LIMIT: usize = 4096;
/// Maximum nesting of parentheses and signs; bounds the recursion.
const DEPTH_LIMIT: usize = 64;

fn eval(args: &Args<'_>) -> Result<Value, ToolError> {
    let expression = args.text("expression")?;
    if expression.len() > LENGTH_LIMIT {
        return error(format!("`expression` must have at most {LENGTH_LIMIT} characters"));
    }
    let mut reader = Reader { text: expression.as_bytes(), at: 0, depth: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        None => Ok(json!(value.normalize().to_string())),
        Some(_) => reader.wrong("an operator was expected"),
    }
}

fn sum(args: &Args<'_>) -> Result<Value, ToolError> {
    let mut total = Decimal::ZERO;
    for (number, item) in args.list("items")?.iter().enumerate() {
        let value = match item {
            Value::String(text) => Decimal::from_str_exact(text.trim()).ok(),
            Value::Number(value) => decimal(&value.to_string()),
            _ => None,
        };
        let wrong = || ToolError(format!("item {number} of `items` must be a number"));
        total = total.checked_add(value.ok_or_else(wrong)?).ok_or_else(too_large)?;
    }
    Ok(json!(total.normalize().to_string()))
}

/// Parses a number as JSON writes it: very small and very large ones have an exponent.
fn decimal(text: &str) -> Option<Decimal> {
    Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()
}

fn too_large() -> ToolError {
    ToolError("a number is too large: 28 digits can be held".into())
}

/// Recursive-descent parser: a sum of products of signed factors.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Consumes the next byte if it is the expected one.
    fn take(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn wrong<T>(&self, what: &str) -> Result<T, ToolError> {
        error(format!("`expression`, at character {}: {what}", self.at + 1))
    }

    fn sum(&mut self) -> Result<Decimal, ToolError> {
        let mut value = self.product()?;
        loop {
            value = if self.take(b'+') {
                value.checked_add(self.product()?).ok_or_else(too_large)?
            } else if self.take(b'-') {
                value.checked_sub(self.product()?).ok_or_else(too_large)?
            } else {
                return Ok(value);
            };
        }
    }

    fn product(&mut self) -> Result<Decimal, ToolError> {
        let mut value = self.atom()?;
        loop {
            value = if self.take(b'*') {
                value.checked_mul(self.atom()?).ok_or_else(too_large)?
            } else if self.take(b'/') {
                let divisor = self.atom()?;
                if divisor.is_zero() {
                    return self.wrong("a division by zero");
                }
                value.checked_div(divisor).ok_or_else(too_large)?
            } else {
                return Ok(value);
            };
        }
    }

    /// Parses a number, a signed factor, or a sum in parentheses.
    fn atom(&mut self) -> Result<Decimal, ToolError> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return self.wrong(&format!("nested more than {DEPTH_LIMIT} levels deep"));
        }
        let value = if self.take(b'-') {
            -self.atom()?
        } else if self.take(b'+') {
            self.atom()?
        } else if self.take(b'(') {
            let value = self.sum()?;
            if !self.take(b')') {
                return self.wrong("a closing parenthesis was expected");
            }
            value
        } else {
            self.literal()?
        };
        // Not decremented on the error paths: an error ends the whole evaluation.
        self.depth -= 1;
        Ok(value)
    }

    fn literal(&mut self) -> Result<Decimal, ToolError> {
        let is_digit = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
        let rest = &self.text[self.at..];
        let digits = &rest[..rest.iter().take_while(is_digit).count()];
        let number = Decimal::from_str_exact(&String::from_utf8_lossy(digits));
        match number {
            Ok(number) => {
                self.at += digits.len();
                Ok(number)
            }
            Err(_) => self.wrong("a number of at most 28 digits was expected"),
        }
    }
}
