//! The kinds of failure that are run, each with words of its own planted wherever words go.

use serde_json::{Value, json};

/// A run that is to end in a certain way.
pub(super) struct Case {
    /// Its graph is named so.
    pub(super) name: &'static str,
    /// The nodes of its graph.
    pub(super) nodes: &'static str,
    /// How it ends: the code of its failure, or `completed`.
    pub(super) ends: &'static str,
    /// Whether who may read the run is told the words with the failure.
    pub(super) is_told: bool,
}

const fn case(name: &'static str, ends: &'static str, is_told: bool, nodes: &'static str) -> Case {
    Case { name, nodes, ends, is_told }
}

/// What the graphs take: the words as a text, in a list and as the name of a field.
pub(super) fn inputs(words: &str) -> Value {
    json!({"s": words, "list": [words], "object": {words: 1}})
}

/// Graphs that others run, by their names.
pub(super) const CALLEES: [&str; 5] = [
    "name: wants_number\ninputs: {type: object, properties: {n: {type: integer}}}\n\
     nodes: [{id: a, tool: text.trim, with: {text: x}}]\n",
    "name: wants_one_of\ninputs: {type: object, properties: {n: {enum: [a, b]}}}\n\
     nodes: [{id: a, tool: text.trim, with: {text: x}}]\n",
    "name: wants_digits\n\
     inputs: {type: object, properties: {n: {type: string, pattern: '^[0-9]+$'}}}\n\
     nodes: [{id: a, tool: text.trim, with: {text: x}}]\n",
    "name: wants_nothing\ninputs: {type: object, additionalProperties: false}\n\
     nodes: [{id: a, tool: text.trim, with: {text: x}}]\n",
    "name: fails\ninputs: {type: object}\n\
     nodes: [{id: a, tool: json.parse, with: {text: '{{ inputs.n }}'}}]\n",
];

pub(super) const CASES: [Case; 56] = [
    case(
        "t_undefined",
        "template.invalid",
        false,
        "{id: a, tool: text.trim, with: {text: '{{ inputs.s.nothing }}'}}",
    ),
    case(
        "t_int",
        "template.invalid",
        false,
        "{id: a, tool: text.trim, with: {text: '{{ inputs.s | int }}'}}",
    ),
    case(
        "t_literal",
        "template.invalid",
        false,
        "{id: a, tool: text.trim, with: {text: '{{ inputs[inputs.s] }}'}}",
    ),
    case(
        "t_object",
        "template.invalid",
        false,
        "{id: a, tool: text.trim, with: {text: '{{ inputs.object.missing }}'}}",
    ),
    case(
        "c_add",
        "template.invalid",
        true,
        "{id: a, branch: {if: inputs.s + 1 == 2, then: b}}, \
        {id: b, tool: text.trim, with: {text: x}}",
    ),
    case(
        "c_regex",
        "template.invalid",
        true,
        "{id: a, branch: {if: 'inputs.s.matches(\"(\" + inputs.s)', then: b}}, \
        {id: b, tool: text.trim, with: {text: x}}",
    ),
    case(
        "c_not_bool",
        "template.invalid",
        false,
        "{id: a, branch: {if: inputs.s, then: b}}, \
        {id: b, tool: text.trim, with: {text: x}}",
    ),
    case(
        "c_no_key",
        "template.invalid",
        true,
        "{id: a, branch: {if: 'inputs.object[inputs.s + inputs.s] == 1', then: b}}, \
        {id: b, tool: text.trim, with: {text: x}}",
    ),
    case(
        "c_compare",
        "template.invalid",
        false,
        "{id: a, branch: {if: 'inputs.s < 3', then: b}}, \
        {id: b, tool: text.trim, with: {text: x}}",
    ),
    case(
        "g_number",
        "request.invalid",
        true,
        "{id: a, graph: {name: wants_number, inputs: {n: '{{ inputs.s }}'}}}",
    ),
    case(
        "g_enum",
        "request.invalid",
        true,
        "{id: a, graph: {name: wants_one_of, inputs: {n: '{{ inputs.s }}'}}}",
    ),
    case(
        "g_pattern",
        "request.invalid",
        true,
        "{id: a, graph: {name: wants_digits, inputs: {n: '{{ inputs.s }}'}}}",
    ),
    case(
        "g_field",
        "request.invalid",
        true,
        "{id: a, graph: {name: wants_nothing, inputs: {n: '{{ inputs.s }}'}}}",
    ),
    case(
        "g_fails",
        "tool.invalid",
        false,
        "{id: a, graph: {name: fails, inputs: {n: '{{ inputs.s }}'}}}",
    ),
    case(
        "m_no_list",
        "graph.invalid",
        false,
        "{id: a, map: {over: '{{ inputs.s }}', tool: text.trim, with: {text: x}}}",
    ),
    case(
        "m_item",
        "tool.invalid",
        false,
        "{id: a, map: {over: '{{ inputs.list }}', \
        tool: json.parse, with: {text: '{{ item }}'}}}",
    ),
    case(
        "o_output",
        "template.invalid",
        false,
        "{id: a, tool: text.trim, with: {text: '{{ inputs.s }}'}}",
    ),
    case(
        "k_math",
        "tool.invalid",
        false,
        "{id: a, tool: math.eval, with: {expression: '{{ inputs.s }}'}}",
    ),
    case(
        "k_number",
        "tool.invalid",
        false,
        "{id: a, tool: math.add, with: {a: '{{ inputs.s }}', b: 1}}",
    ),
    case(
        "k_date",
        "tool.invalid",
        false,
        "{id: a, tool: date.weekday, with: {date: '{{ inputs.s }}'}}",
    ),
    case(
        "k_json",
        "tool.invalid",
        false,
        "{id: a, tool: json.parse, with: {text: '{{ inputs.s }}'}}",
    ),
    case(
        "k_list",
        "tool.invalid",
        false,
        "{id: a, tool: text.join, with: {items: '{{ inputs.s }}', separator: x}}",
    ),
    case(
        "k_field",
        "tool.invalid",
        false,
        "{id: a, tool: text.trim, with: {text: '{{ inputs.object }}'}}",
    ),
    case(
        "k_subject",
        "tool.invalid",
        false,
        "{id: a, tool: memory.store, with: {subject: '{{ inputs.s }}', text: x}}",
    ),
    case(
        "k_memory",
        "completed",
        false,
        "{id: a, tool: memory.store, with: {subject: pupil, text: '{{ inputs.s }}'}}, \
        {id: b, needs: a, tool: memory.recall, with: {subject: pupil, query: '{{ inputs.s }}'}}",
    ),
    case(
        "k_forget",
        "tool.invalid",
        false,
        "{id: a, tool: memory.forget, with: {subject: pupil, id: '{{ inputs.s }}'}}",
    ),
    case(
        "a_model",
        "provider.unavailable",
        false,
        "{id: a, agent: {request: '{{ {\"model\": inputs.s, \"messages\": []} }}'}}",
    ),
    case("a_request", "request.invalid", false, "{id: a, agent: {request: '{{ inputs.list }}'}}"),
    case("a_bad_request", "request.invalid", true, MODEL[0]),
    case("a_no_model", "model.not_found", true, MODEL[2]),
    case("a_too_long", "provider.context_exceeded", true, MODEL[3]),
    case("a_filtered", "provider.content_filtered", true, MODEL[4]),
    case("a_broken", "provider.unavailable", true, MODEL[6]),
    case(
        "a_hang",
        "provider.timeout",
        false,
        "{id: a, timeout: 1s, retry: {max: 1}, agent: {prompt: 'do:hang {{ inputs.s }}'}}",
    ),
    case("a_page", "request.invalid", false, MODEL[7]),
    case("a_half_json", "provider.unavailable", false, MODEL[8]),
    case("a_odd_finish", "completed", false, MODEL[9]),
    case("a_nonsense", "provider.content_filtered", false, MODEL[10]),
    case(
        "a_no_schema",
        "provider.invalid_answer",
        false,
        "{id: a, retry: {max: 1}, agent: \
        {prompt: 'do:answer {{ inputs.s }}', schema: {type: object}}}",
    ),
    case(
        "a_private",
        "privacy.cloud_denied",
        false,
        "{id: a, agent: {model: anthropic, \
        privacy: local, prompt: 'do:answer {{ inputs.s }}'}}",
    ),
    case("u_arguments", "agent.limit", false, TURNS[0]),
    case("u_no_tool", "agent.limit", false, TURNS[1]),
    case("u_no_json", "agent.limit", false, TURNS[2]),
    case("u_denied", "agent.limit", false, TURNS[3]),
    case("u_spawn", "agent.limit", false, TURNS[4]),
    case("u_spawn_wrongly", "agent.limit", false, TURNS[5]),
    case(
        "u_subject",
        "completed",
        false,
        "{id: a, agent: {prompt: 'do:answer x', \
        memory: {subject: '{{ inputs.s }}'}}}",
    ),
    case(
        "p_text",
        "agent.limit",
        false,
        "{id: a, plan: {prompt: 'do:answer {{ inputs.s }}', max_turns: 1}}",
    ),
    case(
        "p_graph",
        "agent.limit",
        false,
        "{id: a, plan: {prompt: 'do:bad_proposal {{ inputs.s }}', max_turns: 2}}",
    ),
    case(
        "b_tokens",
        "budget.exceeded",
        false,
        "{id: a, agent: {prompt: 'do:answer {{ inputs.s }}', max_tokens: 32000}}",
    ),
    case(
        "w_sleep",
        "sleep.timeout",
        false,
        "{id: x, tool: text.trim, with: {text: '{{ inputs.s }}'}}, \
        {id: a, needs: x, sleep: 1h, timeout: 1ms}",
    ),
    case(
        "w_signal",
        "signal.timeout",
        false,
        "{id: x, tool: text.trim, with: {text: '{{ inputs.s }}'}}, \
        {id: a, needs: x, signal: {name: go, timeout: 1ms}}",
    ),
    case(
        "w_approval",
        "approval.expired",
        false,
        "{id: a, approval: {role: owner, show: 'Is it right that {{ inputs.s }}?', ttl: 1ms}}",
    ),
    case(
        "marigold",
        "tool.invalid",
        false,
        "{id: marigold, tool: json.parse, with: {text: '{{ inputs.s }}'}}",
    ),
    // After this one the provider is not asked for a while.
    case("a_no_money", "provider.quota_exceeded", true, MODEL[5]),
    case("a_left_alone", "provider.quota_exceeded", false, MODEL[1]),
];

/// Agents whose model does something else.
const MODEL: [&str; 11] = [
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:bad_request {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:bad_key {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:no_model {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:too_long {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:filtered {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:no_money {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:broken {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:page {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:half_json {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:odd_finish {{ inputs.s }}'}}",
    "{id: a, retry: {max: 1}, agent: {prompt: 'do:nonsense {{ inputs.s }}'}}",
];

/// Agents that call tools wrongly.
const TURNS: [&str; 6] = [
    "{id: a, agent: {prompt: 'do:bad_arguments {{ inputs.s }}', tools: [math.eval], max_turns: 2}}",
    "{id: a, agent: {prompt: 'do:no_such_tool {{ inputs.s }}', tools: [math.eval], max_turns: 2}}",
    "{id: a, agent: {prompt: 'do:no_json_arguments {{ inputs.s }}', tools: [math.eval], \
        max_turns: 2}}",
    "{id: a, agent: {prompt: 'do:other_tool {{ inputs.s }}', tools: [math.eval], max_turns: 2}}",
    "{id: a, agent: {prompt: 'do:spawn_nobody {{ inputs.s }}', tools: [agent.spawn], \
        max_turns: 2}}",
    "{id: a, agent: {prompt: 'do:spawn_wrongly {{ inputs.s }}', tools: [agent.spawn], \
        max_turns: 2}}",
];
