//! The filters and tests that templates can use: a fixed list, whose work is metered together.

use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, tests};

use super::meter::{Passage, charge, charge_list, charge_value};

/// Bytes that one list item counts besides its text.
const ITEM_BYTES: usize = 48;
/// Most spaces of an indent.
const INDENT_LIMIT: usize = 64;

/// Names of the filters, in the order of the user guide.
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

/// Names of the tests in `x is NAME`.
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

/// Charges for a text made from one that was charged already, and so longer by a small factor at
/// most.
fn charged(state: &mut State<'_, '_>, text: String) -> Result<String, Error> {
    charge(state, text.len(), text.len()).map(|()| text)
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
    charge(state, text.len(), 0)?;
    charged(state, text.to_uppercase())
}

fn lower(state: &mut State<'_, '_>, text: &str) -> Text {
    charge(state, text.len(), 0)?;
    charged(state, text.to_lowercase())
}

fn capitalize(state: &mut State<'_, '_>, text: &str) -> Text {
    charge(state, text.len(), 0)?;
    charged(state, capitalized(text))
}

fn title(state: &mut State<'_, '_>, text: &str) -> Text {
    charge(state, text.len(), 0)?;
    let words = text.split_inclusive(|letter: char| !letter.is_alphanumeric());
    charged(state, words.map(capitalized).collect())
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

fn trim(state: &mut State<'_, '_>, text: &str) -> Text {
    charge(state, text.len(), text.len())?;
    Ok(text.trim().to_owned())
}

fn string(state: &mut State<'_, '_>, value: &Value) -> Text {
    charge_value(state, value, 1)?;
    charged(state, value.to_string())
}

fn replace(state: &mut State<'_, '_>, text: &str, from: &str, to: &str) -> Text {
    charge(state, text.len() + from.len(), 0)?;
    // The length of the result is known before it is made, so an explosion is refused in time.
    let times = text.matches(from).count();
    let length = text.len().saturating_add(times.saturating_mul(to.len()));
    charge(state, length, length)?;
    Ok(text.replace(from, to))
}

fn indent(state: &mut State<'_, '_>, text: &str, width: Option<usize>) -> Text {
    // Without the cap, each line could grow by any number of spaces.
    let width = width.unwrap_or(4).min(INDENT_LIMIT);
    charge(state, text.len(), 0)?;
    let length = text.len() + text.matches('\n').count() * width;
    charge(state, length, length)?;
    Ok(text.replace('\n', &format!("\n{}", " ".repeat(width))))
}

fn tojson(state: &mut State<'_, '_>, value: &Value) -> Text {
    charge_value(state, value, 1)?;
    let json = serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    charged(state, json)
}

fn split(state: &mut State<'_, '_>, text: &str, by: Option<&str>) -> Result<Vec<Value>, Error> {
    match by.filter(|by| !by.is_empty()) {
        Some(by) => pieces(state, text, || text.split(by)),
        None => pieces(state, text, || text.split_whitespace()),
    }
}

fn lines(state: &mut State<'_, '_>, text: &str) -> Result<Vec<Value>, Error> {
    pieces(state, text, || text.lines())
}

/// Splits a text into list items, and charges for them before they are made.
fn pieces<'t, I: Iterator<Item = &'t str>>(
    state: &mut State<'_, '_>,
    text: &str,
    cut: impl Fn() -> I,
) -> Result<Vec<Value>, Error> {
    charge(state, text.len(), 0)?;
    let length = text.len() + cut().count().saturating_mul(ITEM_BYTES);
    charge(state, length, length)?;
    Ok(cut().map(Value::from).collect())
}

fn join(state: &mut State<'_, '_>, list: &Value, by: Option<&str>) -> Text {
    charge_value(state, list, 1)?;
    let mut joined = String::new();
    for (index, item) in list.try_iter()?.enumerate() {
        let item = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
        // Charged item by item: the length of the whole is not known without rendering each item.
        let by = if index > 0 { by.unwrap_or_default() } else { "" };
        charge(state, by.len() + item.len(), by.len() + item.len())?;
        joined.push_str(by);
        joined.push_str(&item);
    }
    Ok(joined)
}

/// Adds a filter of the library that reads a list and returns no more items than the list has.
fn add_list_filter(
    environment: &mut Environment<'_>,
    name: &'static str,
    passage: Passage,
    filter: Value,
) {
    let metered = move |state: &mut State<'_, '_>, list: Value, rest: Rest<ValueOrKwargs>| {
        let mut arguments = rest.into_values();
        charge_list(state, &list, &arguments, passage)?;
        arguments.insert(0, list);
        filter.call(state, &arguments)
    };
    environment.add_filter(name, metered);
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
    let list_filters = [
        ("length", Passage::Glance, Value::from_function(filters::length)),
        ("count", Passage::Glance, Value::from_function(filters::length)),
        ("first", Passage::Glance, Value::from_function(filters::first)),
        ("last", Passage::Glance, Value::from_function(filters::last)),
        ("list", Passage::Once, Value::from_function(filters::list)),
        ("sort", Passage::Sort, Value::from_function(filters::sort)),
        ("unique", Passage::Sort, Value::from_function(filters::unique)),
        ("reverse", Passage::Once, Value::from_function(filters::reverse)),
        ("map", Passage::Once, Value::from_function(filters::map)),
        ("select", Passage::Once, Value::from_function(filters::select)),
        ("reject", Passage::Once, Value::from_function(filters::reject)),
        ("selectattr", Passage::Once, Value::from_function(filters::selectattr)),
        ("rejectattr", Passage::Once, Value::from_function(filters::rejectattr)),
        ("groupby", Passage::Sort, Value::from_function(filters::groupby)),
        ("items", Passage::Once, Value::from_function(filters::items)),
        ("dictsort", Passage::Sort, Value::from_function(filters::dictsort)),
        ("zip", Passage::Once, Value::from_function(filters::zip)),
        ("sum", Passage::Once, Value::from_function(filters::sum)),
        ("min", Passage::Once, Value::from_function(filters::min)),
        ("max", Passage::Once, Value::from_function(filters::max)),
    ];
    for (name, passage, filter) in list_filters {
        add_list_filter(environment, name, passage, filter);
    }
}

fn add_values(environment: &mut Environment<'_>) {
    // These read one value and return one: the library's own versions need no meter.
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
