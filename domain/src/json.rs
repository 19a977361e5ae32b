//! JSON without loss: whole numbers beyond 64 bits are refused, where a reader would round them,
//! and all others are written unchanged.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Fewest digits of a whole number that may exceed 64 bits.
const LONG_NUMBER_DIGITS: usize = 19;
/// Whole numbers up to here are exact as IEEE doubles.
const EXACT_DOUBLE_LIMIT: u64 = 1 << 53;

/// Error of a JSON text.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON, or not of the expected form.
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
    /// A number in it would be rounded.
    #[error(transparent)]
    WholeNumber(#[from] WholeNumberTooLarge),
}

/// A whole number beyond 64 bits. The number itself stays out of the message: it may be private,
/// and messages are logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}a whole number of {digits} digits is beyond 64 bits: write it as text, in quotes",
    place_of(.path)
)]
pub struct WholeNumberTooLarge {
    /// Path of the number, as `inputs.list[2]`; empty if the text is only the number.
    pub path: String,
    /// Number of its digits.
    pub digits: usize,
}

fn place_of(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

/// Parses a JSON text.
///
/// # Errors
/// The text is not readable as `T`, or a whole number in it exceeds 64 bits.
pub fn read_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    let value = serde_json::from_slice(text)?;
    check_whole_numbers(text)?;
    Ok(value)
}

/// True if digits, with or without a sign, are a whole number that 64 bits hold.
pub(crate) fn fits_64_bits(digits: &str) -> bool {
    digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok()
}

/// Searches JSON for whole numbers beyond 64 bits.
///
/// # Errors
/// The first such number, with its path.
pub fn check_whole_numbers(text: &[u8]) -> Result<(), WholeNumberTooLarge> {
    if has_long_number(text) { WholeNumberScan::new(text).run() } else { Ok(()) }
}

/// True if the text has enough digits in a row. Looks at every 19th byte, since a long number must
/// cover one of them.
fn has_long_number(text: &[u8]) -> bool {
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    // This pass is over every request and payload, most of which have no such number.
    let starts = (LONG_NUMBER_DIGITS - 1..text.len()).step_by(LONG_NUMBER_DIGITS);
    starts.filter(|at| text[*at].is_ascii_digit()).any(|at| {
        let before = text[..at].iter().rev().take_while(is_digit).count();
        let after = text[at..].iter().take_while(is_digit).count();
        before + after >= LONG_NUMBER_DIGITS
    })
}

/// A list or map whose end has not been read.
enum OpenContainer<'a> {
    List(usize),
    Map { key: &'a [u8], is_at_key: bool },
}

/// Scan over the tokens of a JSON text, for whole numbers beyond 64 bits.
struct WholeNumberScan<'a> {
    text: &'a [u8],
    offset: usize,
    containers: Vec<OpenContainer<'a>>,
}

impl<'a> WholeNumberScan<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, offset: 0, containers: Vec::new() }
    }

    fn run(mut self) -> Result<(), WholeNumberTooLarge> {
        while let Some(byte) = self.text.get(self.offset).copied() {
            match byte {
                b'"' => self.scan_string(),
                b'-' | b'0'..=b'9' => self.scan_number()?,
                _ => self.scan_punctuation(byte),
            }
        }
        Ok(())
    }

    fn scan_punctuation(&mut self, byte: u8) {
        self.offset += 1;
        match (byte, self.containers.last_mut()) {
            (b'[', _) => self.containers.push(OpenContainer::List(0)),
            (b'{', _) => self.containers.push(OpenContainer::Map { key: b"", is_at_key: true }),
            (b']' | b'}', _) => {
                self.containers.pop();
            }
            (b',', Some(OpenContainer::List(index))) => *index += 1,
            (b',', Some(OpenContainer::Map { is_at_key, .. })) => *is_at_key = true,
            (b':', Some(OpenContainer::Map { is_at_key, .. })) => *is_at_key = false,
            _ => {}
        }
    }

    fn scan_string(&mut self) {
        let begin = self.offset;
        self.offset += 1;
        while let Some(byte) = self.text.get(self.offset) {
            // The text is valid JSON, so an escape is at least two bytes, and only `\"` matters
            // here.
            self.offset += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                break;
            }
        }
        let end = self.offset.min(self.text.len());
        if let Some(OpenContainer::Map { key, is_at_key: true }) = self.containers.last_mut() {
            *key = &self.text[begin..end];
        }
    }

    fn scan_number(&mut self) -> Result<(), WholeNumberTooLarge> {
        let is_of_number = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let length = self.text[self.offset..].iter().take_while(is_of_number).count();
        let number = &self.text[self.offset..self.offset + length];
        self.offset += length;
        let is_whole = !number.iter().any(|byte| b".eE".contains(byte));
        if is_whole && !fits_64_bits(&String::from_utf8_lossy(number)) {
            let digits = number.iter().filter(|byte| byte.is_ascii_digit()).count();
            return Err(WholeNumberTooLarge { path: self.current_path(), digits });
        }
        Ok(())
    }

    fn current_path(&self) -> String {
        let mut path = String::new();
        for open in &self.containers {
            match open {
                OpenContainer::List(index) => path.push_str(&format!("[{index}]")),
                OpenContainer::Map { key, .. } => {
                    let dot = if path.is_empty() { "" } else { "." };
                    let key: String = serde_json::from_slice(key).unwrap_or_default();
                    path.push_str(&format!("{dot}{key}"));
                }
            }
        }
        path
    }
}

/// Bytes that a value takes besides its text: its slot in a list, with the list's growth.
const VALUE_BYTES: usize = 48;
/// Bytes that a map takes besides its fields: its first leaf has room for eleven.
const MAP_BYTES: usize = 640;

/// Returns the most bytes that a JSON text takes as a value in memory, by counting its brackets.
pub fn memory_upper_bound(text: &[u8]) -> usize {
    let (mut memory, mut is_text, mut is_escaped) = (text.len(), false, false);
    for byte in text {
        match (is_text, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => is_text = !is_text,
            (true, _) => {}
            (false, b'{') => memory += MAP_BYTES,
            (false, b'[' | b',' | b':') => memory += VALUE_BYTES,
            (false, _) => {}
        }
    }
    memory
}

/// Writes a value by RFC 8785, except that whole numbers beyond 2^53 are not rounded.
pub(crate) fn canonical_json(value: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Array(list) => {
            let write = |item: &Value, text: &mut Vec<u8>| write_canonical(item, text);
            write_list(b"[]", list.iter(), write, text);
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            // RFC 8785 sorts keys by UTF-16 code units, which differs from UTF-8 order beyond the
            // BMP.
            fields.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            let write = |(key, field): (&String, &Value), text: &mut Vec<u8>| {
                write_plain(key, text);
                text.push(b':');
                write_canonical(field, text);
            };
            write_list(b"{}", fields.into_iter(), write, text);
        }
        Value::Number(number) if is_beyond_doubles(number) => {
            text.extend_from_slice(number.to_string().as_bytes());
        }
        other => write_plain(other, text),
    }
}

fn write_list<T>(
    brackets: &[u8; 2],
    items: impl Iterator<Item = T>,
    write: impl Fn(T, &mut Vec<u8>),
    text: &mut Vec<u8>,
) {
    text.push(brackets[0]);
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        write(item, text);
    }
    text.push(brackets[1]);
}

fn write_plain(value: &impl serde::Serialize, text: &mut Vec<u8>) {
    // Writing text and finite numbers into memory cannot fail.
    text.extend(serde_json_canonicalizer::to_vec(value).unwrap_or_default());
}

fn is_beyond_doubles(number: &serde_json::Number) -> bool {
    let magnitude = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
    magnitude.is_some_and(|magnitude| magnitude > EXACT_DOUBLE_LIMIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::{
        MAP_BYTES, VALUE_BYTES, canonical_json, check_whole_numbers, memory_upper_bound, read_json,
    };

    const LARGE: &str = "12345678901234567890123";

    fn refusal(text: &str) -> String {
        read_json::<Value>(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn whole_numbers_beyond_64_bits_are_refused_with_their_place() {
        let cases = [
            (LARGE.to_owned(), "a whole number of 23 digits is beyond 64 bits"),
            (format!(r#"{{"inputs": {{"n": {LARGE}}}}}"#), "inputs.n: a whole number of 23 digits"),
            (format!("[1, [2, {LARGE}]]"), "[1][1]: a whole number"),
            (format!(r#"{{"a": [{{"b\"c": -{LARGE}}}]}}"#), "a[0].b\"c: a whole number"),
            ("18446744073709551616".to_owned(), "a whole number of 20 digits"),
            ("-9223372036854775809".to_owned(), "a whole number of 19 digits"),
        ];
        for (text, message) in cases {
            let refused = refusal(&text);
            assert!(refused.starts_with(message), "{text}: {refused}");
            assert!(!refused.contains("123"), "it is not repeated: {refused}");
        }
    }

    #[test]
    fn everything_else_is_read_as_it_is() {
        for text in ["18446744073709551615", "-9223372036854775808", "1e300", "0.1", "-0"] {
            assert!(read_json::<Value>(text.as_bytes()).is_ok(), "{text}");
        }
        let texts = [
            format!(r#"{{"{LARGE}": "{LARGE}", "\\": "\"{LARGE}"}}"#),
            format!("{LARGE}.0"),
            format!("[{LARGE}e1]"),
            "00".repeat(30).replace('0', " ") + "1",
        ];
        for text in texts {
            assert!(read_json::<Value>(text.as_bytes()).is_ok(), "{text}");
        }
        assert!(refusal("{").contains("EOF"), "what is not JSON is told as such");
    }

    #[test]
    fn a_large_number_is_found_wherever_it_stands() {
        for before in 0..60 {
            let text = format!("[{}\"\", {LARGE}{}]", " ".repeat(before), " ".repeat(before % 7));
            assert!(check_whole_numbers(text.as_bytes()).is_err(), "{before}");
        }
    }

    #[test]
    fn canonical_text_keeps_what_doubles_round() {
        let value = json!({"b": 9_007_199_254_740_993_u64, "a": [i64::MIN, u64::MAX, 1.0, 1e300]});
        let text = String::from_utf8(canonical_json(&value)).expect("text");
        let expected = "{\"a\":[-9223372036854775808,18446744073709551615,1,1e+300],\
            \"b\":9007199254740993}";
        assert_eq!(text, expected);
    }

    #[test]
    fn brackets_within_texts_take_nothing() {
        assert_eq!(memory_upper_bound(br#""[[{{,,::\"[[""#), 14);
        assert_eq!(memory_upper_bound(br#"{"a":[1,2]}"#), 11 + MAP_BYTES + 3 * VALUE_BYTES);
    }

    fn values() -> impl Strategy<Value = Value> {
        let exact = -(1_i64 << 53)..=(1_i64 << 53);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            exact.prop_map(Value::from),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_is_that_of_the_standard(value in values()) {
            let expected = serde_json_canonicalizer::to_vec(&value).expect("it can be written");
            prop_assert_eq!(canonical_json(&value), expected);
        }
    }
}
