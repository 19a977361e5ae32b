//! What templates can call: a fixed list of filters and tests, whose results are bounded together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::{Environment, Error, ErrorKind, Value, filters, tests};

/// Bytes that the filters of one rendering may yield together.
const YIELD_LIMIT: usize = 64 << 20;
/// What one item of a list costs besides its text.
const ITEM_BYTES: usize = 48;
/// Widest indent.
const INDENT_LIMIT: usize = 64;

/// The filters, in the order of the guide.
pub(super) const FILTERS: [&str; 39] = [
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "replace",
    "indent",
    "string",
    "tojson",
    "split",
    "lines",
    "join",
    "length",
    "count",
    "first",
    "last",
    "list",
    "sort",
    "unique",
    "reverse",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "groupby",
    "items",
    "dictsort",
    "sum",
    "min",
    "max",
    "abs",
    "round",
    "int",
    "float",
    "bool",
    "default",
    "d",
    "zip",
];

/// The tests of `x is NAME`.
pub(super) const TESTS: [&str; 22] = [
    "defined",
    "undefined",
    "none",
    "true",
    "false",
    "boolean",
    "number",
    "integer",
    "float",
    "string",
    "sequence",
    "mapping",
    "iterable",
    "odd",
    "even",
    "divisibleby",
    "startingwith",
    "endingwith",
    "eq",
    "ne",
    "lt",
    "gt",
];

/// What the filters of one rendering may still yield.
#[derive(Clone)]
struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    fn take(&self, bytes: usize) -> Result<(), Error> {
        let left = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        left.map(drop).map_err(|_| {
            let message = format!("the filters yield more than {YIELD_LIMIT} bytes");
            Error::new(ErrorKind::InvalidOperation, message)
        })
    }

    fn text(&self, text: String) -> Result<String, Error> {
        self.take(text.len()).map(|()| text)
    }
}

/// Adds the filters and tests to an empty environment.
pub(super) fn add(environment: &mut Environment<'_>) {
    let allowance = Allowance(Arc::new(AtomicUsize::new(YIELD_LIMIT)));
    add_texts(environment, &allowance);
    add_lists(environment, &allowance);
    add_values(environment);
    add_tests(environment);
}

fn add_texts(environment: &mut Environment<'_>, allowance: &Allowance) {
    let a = allowance.clone();
    environment.add_filter("upper", move |text: &str| a.text(text.to_uppercase()));
    let a = allowance.clone();
    environment.add_filter("lower", move |text: &str| a.text(text.to_lowercase()));
    let a = allowance.clone();
    environment.add_filter("title", move |text: &str| a.text(title(text)));
    let a = allowance.clone();
    environment.add_filter("capitalize", move |text: &str| a.text(capitalize(text)));
    let a = allowance.clone();
    environment.add_filter("trim", move |text: &str| a.text(text.trim().to_owned()));
    let a = allowance.clone();
    environment.add_filter("string", move |value: Value| a.text(value.to_string()));
    let a = allowance.clone();
    environment.add_filter("replace", move |text: &str, from: &str, to: &str| {
        let times = text.matches(from).count();
        a.take(text.len().saturating_add(times.saturating_mul(to.len())))?;
        Ok::<_, Error>(text.replace(from, to))
    });
    let a = allowance.clone();
    environment.add_filter("indent", move |text: &str, width: Option<usize>| {
        let width = width.unwrap_or(4).min(INDENT_LIMIT);
        a.take(text.len() + text.matches('\n').count() * width)?;
        Ok::<_, Error>(text.replace('\n', &format!("\n{}", " ".repeat(width))))
    });
    let a = allowance.clone();
    environment.add_filter("tojson", move |value: Value| {
        let json = serde_json::to_string(&value);
        let unfit =
            |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
        a.text(json.map_err(unfit)?)
    });
}

fn add_lists(environment: &mut Environment<'_>, allowance: &Allowance) {
    let a = allowance.clone();
    environment.add_filter("split", move |text: &str, by: Option<&str>| {
        let parts: Vec<Value> = match by {
            Some(by) if !by.is_empty() => text.split(by).map(Value::from).collect(),
            _ => text.split_whitespace().map(Value::from).collect(),
        };
        a.take(text.len() + parts.len() * ITEM_BYTES)?;
        Ok::<_, Error>(Value::from(parts))
    });
    let a = allowance.clone();
    environment.add_filter("lines", move |text: &str| {
        let lines: Vec<Value> = text.lines().map(Value::from).collect();
        a.take(text.len() + lines.len() * ITEM_BYTES)?;
        Ok::<_, Error>(Value::from(lines))
    });
    let a = allowance.clone();
    environment.add_filter("join", move |list: Value, by: Option<&str>| {
        let mut joined = String::new();
        for (index, item) in list.try_iter()?.enumerate() {
            let item = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            let by = if index > 0 { by.unwrap_or_default() } else { "" };
            a.take(by.len() + item.len())?;
            joined.push_str(by);
            joined.push_str(&item);
        }
        Ok::<_, Error>(joined)
    });
    environment.add_filter("length", filters::length);
    environment.add_filter("count", filters::length);
    environment.add_filter("first", filters::first);
    environment.add_filter("last", filters::last);
    environment.add_filter("list", filters::list);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("unique", filters::unique);
    environment.add_filter("reverse", filters::reverse);
    environment.add_filter("map", filters::map);
    environment.add_filter("select", filters::select);
    environment.add_filter("reject", filters::reject);
    environment.add_filter("selectattr", filters::selectattr);
    environment.add_filter("rejectattr", filters::rejectattr);
    environment.add_filter("groupby", filters::groupby);
    environment.add_filter("items", filters::items);
    environment.add_filter("dictsort", filters::dictsort);
    environment.add_filter("zip", filters::zip);
}

fn add_values(environment: &mut Environment<'_>) {
    environment.add_filter("sum", filters::sum);
    environment.add_filter("min", filters::min);
    environment.add_filter("max", filters::max);
    environment.add_filter("abs", filters::abs);
    environment.add_filter("round", filters::round);
    environment.add_filter("int", filters::int);
    environment.add_filter("float", filters::float);
    environment.add_filter("bool", filters::bool);
    environment.add_filter("default", filters::default);
    environment.add_filter("d", filters::default);
}

fn add_tests(environment: &mut Environment<'_>) {
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("true", tests::is_true);
    environment.add_test("false", tests::is_false);
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("number", tests::is_number);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("float", tests::is_float);
    environment.add_test("string", tests::is_string);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("iterable", tests::is_iterable);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("even", tests::is_even);
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("endingwith", tests::is_endingwith);
    environment.add_test("eq", tests::is_eq);
    environment.add_test("ne", tests::is_ne);
    environment.add_test("lt", tests::is_lt);
    environment.add_test("gt", tests::is_gt);
}

fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

fn title(text: &str) -> String {
    text.split_inclusive(|letter: char| !letter.is_alphanumeric()).map(capitalize).collect()
}
