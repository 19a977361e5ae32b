//! What templates can call: a fixed list of filters and tests, whose results are bounded together.

use minijinja::{Environment, Error, ErrorKind, State, Value, filters, tests};

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

/// What the filters of one rendering have yielded so far.
#[derive(Debug, Default)]
struct Yielded(usize);

/// Counts what a filter is about to yield.
fn charge(state: &mut State<'_, '_>, bytes: usize) -> Result<(), Error> {
    let yielded = state.get_or_insert_extension(Yielded::default());
    yielded.0 = yielded.0.saturating_add(bytes);
    if yielded.0 > YIELD_LIMIT {
        let message = format!("the filters yield more than {YIELD_LIMIT} bytes");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    Ok(())
}

fn charged(state: &mut State<'_, '_>, text: String) -> Result<String, Error> {
    charge(state, text.len()).map(|()| text)
}

/// Adds the filters and tests to an empty environment.
pub(super) fn add(environment: &mut Environment<'_>) {
    add_texts(environment);
    add_lists(environment);
    add_values(environment);
    add_tests(environment);
}

type Text = Result<String, Error>;

fn upper(state: &mut State<'_, '_>, text: &str) -> Text {
    charged(state, text.to_uppercase())
}

fn lower(state: &mut State<'_, '_>, text: &str) -> Text {
    charged(state, text.to_lowercase())
}

fn capitalize(state: &mut State<'_, '_>, text: &str) -> Text {
    charged(state, capitalized(text))
}

fn title(state: &mut State<'_, '_>, text: &str) -> Text {
    let words = text.split_inclusive(|letter: char| !letter.is_alphanumeric());
    charged(state, words.map(capitalized).collect())
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

fn trim(state: &mut State<'_, '_>, text: &str) -> Text {
    charged(state, text.trim().to_owned())
}

fn string(state: &mut State<'_, '_>, value: &Value) -> Text {
    charged(state, value.to_string())
}

fn replace(state: &mut State<'_, '_>, text: &str, from: &str, to: &str) -> Text {
    let times = text.matches(from).count();
    charge(state, text.len().saturating_add(times.saturating_mul(to.len())))?;
    Ok(text.replace(from, to))
}

fn indent(state: &mut State<'_, '_>, text: &str, width: Option<usize>) -> Text {
    let width = width.unwrap_or(4).min(INDENT_LIMIT);
    charge(state, text.len() + text.matches('\n').count() * width)?;
    Ok(text.replace('\n', &format!("\n{}", " ".repeat(width))))
}

fn tojson(state: &mut State<'_, '_>, value: &Value) -> Text {
    let json = serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    charged(state, json)
}

fn split(state: &mut State<'_, '_>, text: &str, by: Option<&str>) -> Result<Vec<Value>, Error> {
    let parts: Vec<Value> = match by {
        Some(by) if !by.is_empty() => text.split(by).map(Value::from).collect(),
        _ => text.split_whitespace().map(Value::from).collect(),
    };
    charge(state, text.len() + parts.len() * ITEM_BYTES)?;
    Ok(parts)
}

fn lines(state: &mut State<'_, '_>, text: &str) -> Result<Vec<Value>, Error> {
    let lines: Vec<Value> = text.lines().map(Value::from).collect();
    charge(state, text.len() + lines.len() * ITEM_BYTES)?;
    Ok(lines)
}

fn join(state: &mut State<'_, '_>, list: &Value, by: Option<&str>) -> Text {
    let mut joined = String::new();
    for (index, item) in list.try_iter()?.enumerate() {
        let item = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
        let by = if index > 0 { by.unwrap_or_default() } else { "" };
        charge(state, by.len() + item.len())?;
        joined.push_str(by);
        joined.push_str(&item);
    }
    Ok(joined)
}

fn add_texts(environment: &mut Environment<'_>) {
    environment.add_filter("upper", upper);
    environment.add_filter("lower", lower);
    environment.add_filter("title", title);
    environment.add_filter("capitalize", capitalize);
    environment.add_filter("trim", trim);
    environment.add_filter("string", string);
    environment.add_filter("replace", replace);
    environment.add_filter("indent", indent);
    environment.add_filter("tojson", tojson);
    environment.add_filter("split", split);
    environment.add_filter("lines", lines);
    environment.add_filter("join", join);
}

fn add_lists(environment: &mut Environment<'_>) {
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
