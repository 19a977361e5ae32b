//! The filters and tests that templates can use: a fixed list, whose work is metered together.

use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, tests};

use super::filter_meter::{ListAccess, charge_filter, charge_list, charge_value};

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
fn charge_text(state: &mut State<'_, '_>, text: String) -> Result<String, Error> {
    charge_filter(state, text.len(), text.len()).map(|()| text)
}

/// Adds the filters and tests to an empty environment.
pub(super) fn add_filters_and_tests(environment: &mut Environment<'_>) {
    add_text_filters(environment);
    add_list_filters(environment);
    add_value_filters(environment);
    add_tests(environment);
}

type TextResult = Result<String, Error>;

fn filter_upper(state: &mut State<'_, '_>, text: &str) -> TextResult {
    charge_filter(state, text.len(), 0)?;
    charge_text(state, text.to_uppercase())
}

fn filter_lower(state: &mut State<'_, '_>, text: &str) -> TextResult {
    charge_filter(state, text.len(), 0)?;
    charge_text(state, text.to_lowercase())
}

fn filter_capitalize(state: &mut State<'_, '_>, text: &str) -> TextResult {
    charge_filter(state, text.len(), 0)?;
    charge_text(state, capitalize_word(text))
}

fn filter_title(state: &mut State<'_, '_>, text: &str) -> TextResult {
    charge_filter(state, text.len(), 0)?;
    let words = text.split_inclusive(|letter: char| !letter.is_alphanumeric());
    charge_text(state, words.map(capitalize_word).collect())
}

fn capitalize_word(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

fn filter_trim(state: &mut State<'_, '_>, text: &str) -> TextResult {
    charge_filter(state, text.len(), text.len())?;
    Ok(text.trim().to_owned())
}

fn filter_string(state: &mut State<'_, '_>, value: &Value) -> TextResult {
    charge_value(state, value, 1)?;
    charge_text(state, value.to_string())
}

fn filter_replace(state: &mut State<'_, '_>, text: &str, from: &str, to: &str) -> TextResult {
    charge_filter(state, text.len() + from.len(), 0)?;
    // The length of the result is known before it is made, so an explosion is refused in time.
    let times = text.matches(from).count();
    let length = text.len().saturating_add(times.saturating_mul(to.len()));
    charge_filter(state, length, length)?;
    Ok(text.replace(from, to))
}

fn filter_indent(state: &mut State<'_, '_>, text: &str, width: Option<usize>) -> TextResult {
    // Without the cap, each line could grow by any number of spaces.
    let width = width.unwrap_or(4).min(INDENT_LIMIT);
    charge_filter(state, text.len(), 0)?;
    let length = text.len() + text.matches('\n').count() * width;
    charge_filter(state, length, length)?;
    Ok(text.replace('\n', &format!("\n{}", " ".repeat(width))))
}

fn filter_tojson(state: &mut State<'_, '_>, value: &Value) -> TextResult {
    charge_value(state, value, 1)?;
    let json = serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    charge_text(state, json)
}

fn filter_split(
    state: &mut State<'_, '_>,
    text: &str,
    by: Option<&str>,
) -> Result<Vec<Value>, Error> {
    match by.filter(|by| !by.is_empty()) {
        Some(by) => split_with(state, text, || text.split(by)),
        None => split_with(state, text, || text.split_whitespace()),
    }
}

fn filter_lines(state: &mut State<'_, '_>, text: &str) -> Result<Vec<Value>, Error> {
    split_with(state, text, || text.lines())
}

/// Splits a text into list items, and charges for them before they are made.
fn split_with<'t, I: Iterator<Item = &'t str>>(
    state: &mut State<'_, '_>,
    text: &str,
    cut: impl Fn() -> I,
) -> Result<Vec<Value>, Error> {
    charge_filter(state, text.len(), 0)?;
    let length = text.len() + cut().count().saturating_mul(ITEM_BYTES);
    charge_filter(state, length, length)?;
    Ok(cut().map(Value::from).collect())
}

fn filter_join(state: &mut State<'_, '_>, list: &Value, by: Option<&str>) -> TextResult {
    charge_value(state, list, 1)?;
    let mut joined = String::new();
    for (index, item) in list.try_iter()?.enumerate() {
        let item = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
        // Charged item by item: the length of the whole is not known without rendering each item.
        let by = if index > 0 { by.unwrap_or_default() } else { "" };
        charge_filter(state, by.len() + item.len(), by.len() + item.len())?;
        joined.push_str(by);
        joined.push_str(&item);
    }
    Ok(joined)
}

/// Adds a filter of the library that reads a list and returns no more items than the list has.
fn add_list_filter(
    environment: &mut Environment<'_>,
    name: &'static str,
    passage: ListAccess,
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

fn add_text_filters(environment: &mut Environment<'_>) {
    environment.add_filter("upper", filter_upper);
    environment.add_filter("lower", filter_lower);
    environment.add_filter("title", filter_title);
    environment.add_filter("capitalize", filter_capitalize);
    environment.add_filter("trim", filter_trim);
    environment.add_filter("string", filter_string);
    environment.add_filter("replace", filter_replace);
    environment.add_filter("indent", filter_indent);
    environment.add_filter("tojson", filter_tojson);
    environment.add_filter("split", filter_split);
    environment.add_filter("lines", filter_lines);
    environment.add_filter("join", filter_join);
}

fn add_list_filters(environment: &mut Environment<'_>) {
    let list_filters = [
        ("length", ListAccess::Glance, Value::from_function(filters::length)),
        ("count", ListAccess::Glance, Value::from_function(filters::length)),
        ("first", ListAccess::Glance, Value::from_function(filters::first)),
        ("last", ListAccess::Glance, Value::from_function(filters::last)),
        ("list", ListAccess::Once, Value::from_function(filters::list)),
        ("sort", ListAccess::Sort, Value::from_function(filters::sort)),
        ("unique", ListAccess::Sort, Value::from_function(filters::unique)),
        ("reverse", ListAccess::Once, Value::from_function(filters::reverse)),
        ("map", ListAccess::Once, Value::from_function(filters::map)),
        ("select", ListAccess::Once, Value::from_function(filters::select)),
        ("reject", ListAccess::Once, Value::from_function(filters::reject)),
        ("selectattr", ListAccess::Once, Value::from_function(filters::selectattr)),
        ("rejectattr", ListAccess::Once, Value::from_function(filters::rejectattr)),
        ("groupby", ListAccess::Sort, Value::from_function(filters::groupby)),
        ("items", ListAccess::Once, Value::from_function(filters::items)),
        ("dictsort", ListAccess::Sort, Value::from_function(filters::dictsort)),
        ("zip", ListAccess::Once, Value::from_function(filters::zip)),
        ("sum", ListAccess::Once, Value::from_function(filters::sum)),
        ("min", ListAccess::Once, Value::from_function(filters::min)),
        ("max", ListAccess::Once, Value::from_function(filters::max)),
    ];
    for (name, passage, filter) in list_filters {
        add_list_filter(environment, name, passage, filter);
    }
}

fn add_value_filters(environment: &mut Environment<'_>) {
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
