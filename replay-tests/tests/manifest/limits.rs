//! The guide's table of limits is the code's: each number is read from the table and held against
//! what a manifest is given, or against the constant that keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use convergio_domain::graph::manifest::{Graph, MapWork, NodeWork, RetryPolicy, TurnLimits};
use convergio_domain::graph::parse_manifest;
use convergio_domain::id::ExecutorId;
use convergio_domain::run::Budget;
use convergio_domain::time::Span;
use convergio_executor::{ExecutorConfig, tool};
use uuid::Uuid;

/// A row: its default and the most, as numbers where they are some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    default: Option<u64>,
    most: Option<u64>,
}

fn text_of(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The table of the guide.
fn table() -> BTreeMap<String, Row> {
    let guide = text_of("docs/manifest.md");
    let (_, section) = guide.split_once("\n## Limits\n").expect("the guide has its limits");
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, default, most, change] = cells[..] else { panic!("four cells: {line}") };
        if name == "limit" || name.starts_with("**") {
            continue;
        }
        assert!(!change.is_empty(), "how {name} is changed");
        let row = Row { default: number(default), most: number(most) };
        assert_eq!(rows.insert(name.to_owned(), row), None, "{name} stands twice");
    }
    rows
}

/// A number as people write it: `100,000`, `4 MiB`, `10m`; lengths of time in milliseconds.
fn number(text: &str) -> Option<u64> {
    if text == "-" {
        return None;
    }
    if let Ok(Span(ms)) = text.parse::<Span>() {
        return Some(ms);
    }
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        other => panic!("a unit: {other}"),
    };
    let digits: u64 = digits.replace(',', "").parse().expect(text);
    Some(digits << shift)
}

/// The value of a constant in a file, as its text says it; lengths of time in milliseconds.
fn constant(file: &str, name: &str) -> u64 {
    let text = text_of(file);
    let declared = format!("const {name}: ");
    let found = text.lines().find_map(|line| line.split_once(&declared));
    let (_, rest) = found.unwrap_or_else(|| panic!("{file} has no constant {name}"));
    let (_, value) = rest.split_once(" = ").expect("a value");
    evaluate(value.trim_end_matches(';'))
}

fn evaluate(text: &str) -> u64 {
    let inner = |function: &str| {
        Some(text.strip_prefix(function)?.strip_prefix('(')?.trim_end_matches(')'))
    };
    if let Some(seconds) = inner("Span::from_seconds").or_else(|| inner("Duration::from_secs")) {
        return evaluate(seconds) * 1000;
    }
    if let Some(ms) = inner("Duration::from_millis").or_else(|| inner("Span")) {
        return evaluate(ms);
    }
    if let Some((number, shift)) = text.split_once(" << ") {
        return evaluate(number) << evaluate(shift);
    }
    let factors = text.split(" * ").map(|digits| digits.replace('_', ""));
    factors.map(|digits| digits.parse::<u64>().expect(text)).product()
}

/// Rows whose most stands in a constant.
const CONSTANTS: &[(&str, &str, &str)] = &[
    ("size of a manifest", "domain/src/graph/yaml.rs", "BYTES_LIMIT"),
    ("size of a manifest", "application/src/graphs.rs", "MANIFEST_LIMIT"),
    ("levels within each other", "domain/src/graph/yaml.rs", "DEPTH_LIMIT"),
    ("values of a manifest", "domain/src/graph/yaml.rs", "VALUES_LIMIT"),
    ("nodes of a graph", "domain/src/graph/decode_node.rs", "NODES_LIMIT"),
    ("name of a graph or node", "domain/src/id.rs", "NAME_LIMIT"),
    ("name of an agent", "domain/src/agent/mod.rs", "AGENT_NAME_LIMIT"),
    ("name of a signal", "domain/src/id.rs", "SIGNAL_NAME_LIMIT"),
    ("a length of time", "domain/src/time.rs", "SPAN_LIMIT"),
    ("mistakes told at once", "domain/src/graph/diagnostic.rs", "DIAGNOSTICS_LIMIT"),
    ("rules of a schema, references written out", "domain/src/graph/schema_refs.rs", "RULES_LIMIT"),
    ("runs within a run at once (places)", "domain/src/policy/child_runs.rs", "WIDTH_LIMIT"),
    ("runs within runs, levels", "domain/src/policy/child_runs.rs", "DEPTH_LIMIT"),
    ("signals to a run", "domain/src/run/command.rs", "SIGNALS_LIMIT"),
    ("a request with inputs", "gateway/src/body_memory.rs", "BODY_LIMIT"),
    ("what a signal or a told output carries", "application/src/payload.rs", "VALUE_BYTES_LIMIT"),
    ("output of a step", "executor/src/plan/outcome.rs", "OUTPUT_BYTES_LIMIT"),
    ("output of a run", "eventstore/src/commit.rs", "PAYLOAD_BYTES"),
    ("wait before the second try", "domain/src/graph/manifest.rs", "BACKOFF_LIMIT"),
    ("tries whose executors died", "domain/src/run/retry.rs", "CRASHED_TRIES"),
    ("pause that a provider asks for", "executor/src/provider/refusal.rs", "PAUSE_LIMIT"),
    ("providers that a step is handed on to", "domain/src/run/fallback.rs", "HOPS_LIMIT"),
    ("tool calls of one turn", "domain/src/policy/agent_limits.rs", "CALLS_PER_TURN_LIMIT"),
    ("tools of an agent", "domain/src/graph/decode_toolbox.rs", "TOOLS_LIMIT"),
    ("arguments of a tool call by a model", "executor/src/step/agent_tools.rs", "ARGUMENTS_LIMIT"),
    (
        "a tool's result as a model is told it",
        "executor/src/step/transcript.rs",
        "TOOL_RESULT_BYTES_LIMIT",
    ),
    ("text of an answer", "executor/src/provider/answer_parts.rs", "BYTES_LIMIT"),
    ("nodes of a proposed graph", "executor/src/step/proposals.rs", "NODES_LIMIT"),
    ("items of a map", "executor/src/step/context.rs", "MAP_WIDTH_LIMIT"),
    ("arguments of a tool", "executor/src/tool/bounds.rs", "ARGUMENTS_BYTES_LIMIT"),
    ("result of a tool", "executor/src/tool/bounds.rs", "ANSWER_BYTES_LIMIT"),
    ("list that a tool makes", "executor/src/tool/bounds.rs", "LIST_ITEMS_LIMIT"),
    (
        "characters of an expression of `math.eval`",
        "executor/src/tool/math.rs",
        "EXPRESSION_BYTES_LIMIT",
    ),
    ("text of a memory", "domain/src/memory/mod.rs", "TEXT_LIMIT"),
    ("memories of a subject", "domain/src/memory/mod.rs", "MEMORIES_LIMIT"),
    ("name of a subject", "domain/src/id.rs", "SUBJECT_LIMIT"),
    ("size of a template", "domain/src/expr/template.rs", "TEMPLATE_LIMIT"),
    ("text that a template yields", "domain/src/expr/template.rs", "OUTPUT_LIMIT"),
    ("what filters yield on the way", "domain/src/expr/filter_meter.rs", "YIELD_LIMIT"),
    ("what filters go over on the way", "domain/src/expr/filter_meter.rs", "TOUCH_LIMIT"),
    ("value that a template yields, in memory", "domain/src/expr/template.rs", "RENDERED_LIMIT"),
    ("instructions of a template", "domain/src/expr/template.rs", "FUEL"),
    ("operators and brackets of an expression", "domain/src/expr/token_scan.rs", "OPERATORS_LIMIT"),
    ("texts put together by `~` and `+`", "domain/src/expr/token_scan.rs", "SUMS_LIMIT"),
    ("statements of a template", "domain/src/expr/token_scan.rs", "STATEMENTS_LIMIT"),
    ("statements within each other", "domain/src/expr/token_scan.rs", "NESTING_LIMIT"),
    ("loops within each other", "domain/src/expr/token_scan.rs", "LOOPS_LIMIT"),
    ("size of a condition", "domain/src/expr/condition.rs", "CONDITION_LIMIT"),
    ("operators and brackets of a condition", "domain/src/expr/condition.rs", "OPERATORS_LIMIT"),
];

/// Rows whose most is what a manifest may say: the manifest with the number in it. `Ns` stands for
/// a length of time.
const MOST_SAID: &[(&str, &str)] = &[
    ("tokens of a run", "budget: {tokens: N}\nnodes: [{id: x, sleep: 1s}]"),
    ("time of a run", "budget: {wall: Nms}\nnodes: [{id: x, sleep: 1s}]"),
    ("time of a try", "nodes: [{id: x, timeout: Nms, agent: {prompt: p}}]"),
    ("tries of a step", "nodes: [{id: x, retry: {max: N}, agent: {prompt: p}}]"),
    ("wait before the second try", "nodes: [{id: x, retry: {backoff: Nms}, agent: {prompt: p}}]"),
    ("time of an approval", "nodes: [{id: x, approval: {show: s, ttl: Nms}}]"),
    ("time of a signal", "nodes: [{id: x, signal: {name: s, timeout: Nms}}]"),
    ("tokens of an answer", "nodes: [{id: x, agent: {prompt: p, max_tokens: N}}]"),
    (
        "model calls of an agent with tools",
        "nodes: [{id: x, agent: {prompt: p, tools: [math.eval], max_turns: N}}]",
    ),
    (
        "tool calls of an agent",
        "nodes: [{id: x, agent: {prompt: p, tools: [math.eval], max_tool_calls: N}}]",
    ),
    (
        "tokens of all turns",
        "nodes: [{id: x, agent: {prompt: p, tools: [math.eval], max_total_tokens: N}}]",
    ),
    (
        "tokens recalled from memory",
        "nodes: [{id: x, agent: {prompt: p, memory: {subject: s, max_tokens: N}}}]",
    ),
    ("proposals of a plan", "nodes: [{id: x, plan: {prompt: p, max_turns: N}}]"),
    (
        "items of a map at once (places)",
        "nodes: [{id: x, map: {over: '{{ [1] }}', max_parallel: N, agent: {prompt: p}}}]",
    ),
];

/// Rows that have no number at all.
const UNBOUNDED: [&str; 2] =
    ["cost of a run", "tokens of an answer to a `request` that names no number"];

/// What each row is when nothing is said.
fn defaults() -> BTreeMap<&'static str, u64> {
    let (budget, retry, turns) = (Budget::default(), RetryPolicy::default(), TurnLimits::default());
    let executor = ExecutorConfig::new(ExecutorId(Uuid::nil()));
    let size = |size: usize| u64::try_from(size).expect("small");
    [
        ("tokens of a run", budget.tokens.expect("there is one")),
        ("time of a run", budget.wall.expect("there is one").0),
        ("steps of a run at once (places)", size(executor.steps_per_run)),
        ("model calls of a run at once (places)", size(executor.model_calls_per_run)),
        ("model calls of a process at once (places)", size(executor.model_calls)),
        ("runs in memory of a process (places)", size(executor.active_runs)),
        ("time of a try", constant("executor/src/step/prepare.rs", "DEFAULT_TIMEOUT")),
        ("tries of a step", retry.max.into()),
        ("wait before the second try", retry.backoff.0),
        ("model calls of an agent with tools", turns.max_turns.into()),
        ("tool calls of an agent", turns.max_tool_calls.into()),
        ("tokens of all turns", turns.max_total_tokens),
    ]
    .into_iter()
    .chain(said_nothing())
    .collect()
}

/// What the parser fills in.
fn said_nothing() -> Vec<(&'static str, u64)> {
    let graph = graph(
        "nodes:\n- {id: a, agent: {prompt: p, memory: {subject: s}}}\n\
        - {id: m, map: {over: '{{ [1] }}', agent: {prompt: p}}}\n- {id: l, plan: {prompt: p}}",
    );
    let [agent, map, plan] = &graph.nodes[..] else { panic!("three nodes") };
    let (NodeWork::Agent(agent), NodeWork::Map(map), NodeWork::Plan(plan)) =
        (&agent.work, &map.work, &plan.work)
    else {
        panic!("an agent, a map, a plan")
    };
    let MapWork::Agent(of_map) = &map.work else { panic!("of agents") };
    assert_eq!(of_map.max_tokens, agent.max_tokens);
    vec![
        ("tokens of an answer", agent.max_tokens.into()),
        ("tokens recalled from memory", agent.memory.as_ref().expect("given").max_tokens.into()),
        ("items of a map at once (places)", map.max_parallel.into()),
        ("proposals of a plan", plan.max_turns.into()),
    ]
}

fn graph(body: &str) -> Graph {
    let parsed = parse_manifest(&format!("name: a\n{body}"), &tool::builtin_catalog());
    parsed.unwrap_or_else(|mistakes| panic!("{body}: {mistakes:?}")).graph
}

#[test]
fn defaults_are_those_of_the_code() {
    let defaults = defaults();
    for (name, row) in table() {
        assert_eq!(row.default, defaults.get(name.as_str()).copied(), "{name}");
    }
}

#[test]
fn most_is_what_the_constants_say() {
    let table = table();
    for (name, file, constant_name) in CONSTANTS {
        let row = table.get(*name).unwrap_or_else(|| panic!("the table has no `{name}`"));
        assert_eq!(row.most, Some(constant(file, constant_name)), "{name}: {constant_name}");
    }
}

#[test]
fn most_is_taken_and_one_more_is_refused() {
    let table = table();
    for (name, body) in MOST_SAID {
        let most = table.get(*name).and_then(|row| row.most).expect(name);
        let filled = |number: u64| body.replace('N', &number.to_string());
        graph(&filled(most));
        let more = format!("name: a\n{}", filled(most + 1));
        assert!(parse_manifest(&more, &tool::builtin_catalog()).is_err(), "{name}: {more}");
    }
}

#[test]
fn every_row_is_held_by_a_test() {
    let defaults = defaults();
    let mut held: BTreeSet<&str> = defaults.keys().copied().chain(UNBOUNDED).collect();
    held.extend(CONSTANTS.iter().map(|(name, ..)| name));
    held.extend(MOST_SAID.iter().map(|(name, _)| name));
    let table = table();
    let rows: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    assert_eq!(rows, held);
}
