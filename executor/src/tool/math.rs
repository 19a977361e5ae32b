//! The tools `math.eval` and `math.sum`: exact decimal arithmetic. Answers are strings, since a
//! JSON number would lose digits.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::arguments::{
    ArgumentKind, FunctionTool, ToolArguments, ToolCallError, required_argument, tool_error,
};

pub(super) const TOOLS: &[FunctionTool] = &[
    FunctionTool {
        name: "math.eval",
        description: "Evaluates + - * / and parentheses on decimals of up to 28 digits, without \
            floats; the answer is a text, so that no digit is lost.",
        arguments: &[required_argument("expression", ArgumentKind::Text)],
        function: eval_expression,
    },
    FunctionTool {
        name: "math.sum",
        description: "The sum of a list of numbers, or of texts that are numbers, as a text.",
        arguments: &[required_argument("items", ArgumentKind::List)],
        function: sum_items,
    },
];

/// Maximum bytes of an expression.
const EXPRESSION_BYTES_LIMIT: usize = 4096;
/// Maximum nesting of parentheses and signs; bounds the recursion.
const NESTING_LIMIT: usize = 64;

fn eval_expression(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let expression = args.get_text("expression")?;
    if expression.len() > EXPRESSION_BYTES_LIMIT {
        return tool_error(format!(
            "`expression` must have at most {EXPRESSION_BYTES_LIMIT} characters"
        ));
    }
    let mut parser = ExpressionParser { text: expression.as_bytes(), position: 0, depth: 0 };
    let value = parser.parse_sum()?;
    match parser.peek_byte() {
        None => Ok(json!(value.normalize().to_string())),
        Some(_) => parser.error_here("an operator was expected"),
    }
}

fn sum_items(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let mut total = Decimal::ZERO;
    for (number, item) in args.get_list("items")?.iter().enumerate() {
        let value = match item {
            Value::String(text) => Decimal::from_str_exact(text.trim()).ok(),
            Value::Number(value) => parse_json_number(&value.to_string()),
            _ => None,
        };
        let wrong = || ToolCallError(format!("item {number} of `items` must be a number"));
        total = total.checked_add(value.ok_or_else(wrong)?).ok_or_else(number_too_large)?;
    }
    Ok(json!(total.normalize().to_string()))
}

/// Parses a number as JSON writes it: very small and very large ones have an exponent.
fn parse_json_number(text: &str) -> Option<Decimal> {
    Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()
}

fn number_too_large() -> ToolCallError {
    ToolCallError("a number is too large: 28 digits can be held".into())
}

/// Recursive-descent parser: a sum of products of signed factors.
struct ExpressionParser<'a> {
    text: &'a [u8],
    position: usize,
    depth: usize,
}

impl ExpressionParser<'_> {
    /// Returns the next byte that is not white space.
    fn peek_byte(&mut self) -> Option<u8> {
        while self.text.get(self.position).is_some_and(u8::is_ascii_whitespace) {
            self.position += 1;
        }
        self.text.get(self.position).copied()
    }

    /// Consumes the next byte if it is the expected one.
    fn take_byte(&mut self, expected: u8) -> bool {
        let is_next = self.peek_byte() == Some(expected);
        self.position += usize::from(is_next);
        is_next
    }

    fn error_here<T>(&self, problem: &str) -> Result<T, ToolCallError> {
        tool_error(format!("`expression`, at character {}: {problem}", self.position + 1))
    }

    fn parse_sum(&mut self) -> Result<Decimal, ToolCallError> {
        let mut value = self.parse_product()?;
        loop {
            value = if self.take_byte(b'+') {
                value.checked_add(self.parse_product()?).ok_or_else(number_too_large)?
            } else if self.take_byte(b'-') {
                value.checked_sub(self.parse_product()?).ok_or_else(number_too_large)?
            } else {
                return Ok(value);
            };
        }
    }

    fn parse_product(&mut self) -> Result<Decimal, ToolCallError> {
        let mut value = self.parse_factor()?;
        loop {
            value = if self.take_byte(b'*') {
                value.checked_mul(self.parse_factor()?).ok_or_else(number_too_large)?
            } else if self.take_byte(b'/') {
                let divisor = self.parse_factor()?;
                if divisor.is_zero() {
                    return self.error_here("a division by zero");
                }
                value.checked_div(divisor).ok_or_else(number_too_large)?
            } else {
                return Ok(value);
            };
        }
    }

    /// Parses a number, a signed factor, or a sum in parentheses.
    fn parse_factor(&mut self) -> Result<Decimal, ToolCallError> {
        self.depth += 1;
        if self.depth > NESTING_LIMIT {
            return self.error_here(&format!("nested more than {NESTING_LIMIT} levels deep"));
        }
        let value = if self.take_byte(b'-') {
            -self.parse_factor()?
        } else if self.take_byte(b'+') {
            self.parse_factor()?
        } else if self.take_byte(b'(') {
            let value = self.parse_sum()?;
            if !self.take_byte(b')') {
                return self.error_here("a closing parenthesis was expected");
            }
            value
        } else {
            self.parse_literal()?
        };
        // Not decremented on the error paths: an error ends the whole evaluation.
        self.depth -= 1;
        Ok(value)
    }

    fn parse_literal(&mut self) -> Result<Decimal, ToolCallError> {
        let is_digit = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
        let rest = &self.text[self.position..];
        let digits = &rest[..rest.iter().take_while(is_digit).count()];
        let number = Decimal::from_str_exact(&String::from_utf8_lossy(digits));
        match number {
            Ok(number) => {
                self.position += digits.len();
                Ok(number)
            }
            Err(_) => self.error_here("a number of at most 28 digits was expected"),
        }
    }
}
