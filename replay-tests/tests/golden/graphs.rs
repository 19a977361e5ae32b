//! The graphs of the runs that are recorded here.

pub(crate) const TOOL: &str = r#"
name: tool
output: "{{ nodes.count.output }}"
nodes:
  - {id: first, tool: text.trim, with: {text: " {{ inputs.text }} "}}
  - {id: count, tool: text.count, with: {text: "{{ nodes.first.output }}"}}
"#;

pub(crate) const BRANCH: &str = r#"
name: branch
nodes:
  - {id: first, tool: text.trim, with: {text: " {{ inputs.text }} "}}
  - id: way
    needs: [first]
    branch: {if: 'nodes.first.output == "text"', then: left, else: right}
  - {id: left, tool: text.trim, with: {text: left}}
  - {id: right, tool: text.trim, with: {text: right}}
  - {id: both, join: any, needs: [left, right], tool: text.trim, with: {text: b}}
"#;

pub(crate) const MAP: &str = r#"
name: map
output: "{{ nodes.sum.output }}"
nodes:
  - {id: numbers, tool: list.range, with: {from: 1, to: 31}}
  - id: squares
    map:
      over: "{{ nodes.numbers.output }}"
      max_parallel: 30
      tool: math.eval
      with: {expression: "{{ item }} * {{ item }}"}
  - {id: sum, tool: math.sum, with: {items: "{{ nodes.squares.output }}"}}
"#;

pub(crate) const MAP_AGENT: &str = r#"
name: map-agent
nodes:
  - id: notes
    map:
      over: "{{ ['a', 'b', 'c'] }}"
      max_parallel: 2
      agent: {model: local, prompt: "{{ item }}", max_tokens: 20}
"#;

/// `NAME` and `BUDGET` stand for what differs.
pub(crate) const AGENT: &str = r#"
name: NAME
budget: BUDGET
output: "{{ nodes.asks.output }}"
nodes:
  - id: asks
    retry: {max: 3, backoff: 1ms}
    agent:
      model: local
      system: You answer.
      prompt: "{{ inputs.text }}"
      max_tokens: 20
"#;

/// `NAME` stands for what differs.
pub(crate) const ASKING: &str = r#"
name: NAME
nodes:
  - {id: first, tool: text.trim, with: {text: " {{ inputs.text }} "}}
  - id: ask
    needs: [first]
    approval: {role: owner, show: "{{ nodes.first.output }}", ttl: 1h}
  - {id: last, needs: [ask], tool: text.trim, with: {text: end}}
"#;

/// What a moved run gets besides.
pub(crate) const MORE: &str = "  - {id: more, needs: [last], tool: text.trim, with: {text: x}}\n";

pub(crate) const SLEEP: &str = "name: sleep\nnodes:\n  - {id: nap, sleep: 20ms}\n";

pub(crate) const FAILED: &str = r#"
name: failed
nodes:
  - {id: fails, tool: math.eval, with: {expression: "1 +"}}
  - {id: also, tool: math.eval, with: {expression: "1 +"}}
"#;

pub(crate) const SKIP: &str = r#"
name: skip
nodes:
  - {id: fails, on_error: skip, tool: math.eval, with: {expression: "1 +"}}
  - {id: next, needs: [fails], tool: text.trim, with: {text: never}}
"#;

pub(crate) const FALLBACK: &str = r#"
name: fallback
output: "{{ nodes.fails.output }}"
nodes:
  - {id: fails, on_error: {fallback: instead}, tool: math.eval, with: {expression: "1 +"}}
  - {id: instead, tool: text.trim, with: {text: instead}}
"#;

pub(crate) const SIGNAL: &str = r#"
name: signal
output: "{{ nodes.note.output }}"
nodes:
  - {id: paid, signal: {name: payment, timeout: 1h}}
  - {id: note, tool: text.trim, with: {text: " {{ nodes.paid.output.by }} "}}
"#;

/// Fails at its first question when the model is busy.
pub(crate) const REOPENED: &str = r#"
name: reopened
nodes:
  - {id: asks, retry: {max: 1}, agent: {model: local, prompt: "{{ inputs.text }}", max_tokens: 20}}
"#;

pub(crate) const DECIDED: &str = r#"
name: decided
nodes:
  - {id: fails, on_error: ask, tool: math.eval, with: {expression: "1 +"}}
  - {id: next, needs: [fails], tool: text.trim, with: {text: never}}
  - {id: last, tool: text.trim, with: {text: end}}
"#;

pub(crate) const RECONCILED: &str = r#"
name: reconciled
output: "{{ nodes.asks.output }}"
nodes:
  - id: asks
    on_unknown: reconcile
    agent: {model: local, prompt: "{{ inputs.text }}", max_tokens: 20}
"#;

pub(crate) const TURNS: &str = r#"
name: turns
output: "{{ nodes.reckon.output }}"
nodes:
  - id: reckon
    agent:
      model: local
      prompt: "{{ inputs.text }}"
      max_tokens: 20
      tools: [math.eval, text.trim]
"#;

/// What a sub-run is a run of; it sleeps longer than the outer run waits before it looks whether
/// the sub-run exists.
pub(crate) const INNER: &str = r#"
name: inner
inputs: {type: object, required: [text], properties: {text: {type: string}}}
output: "{{ nodes.a.output }}!"
nodes:
  - {id: nap, sleep: 11s}
  - {id: a, needs: [nap], tool: text.trim, with: {text: "{{ inputs.text }}"}}
"#;

pub(crate) const OUTER: &str = r#"
name: sub-run
output: "{{ nodes.last.output }}"
nodes:
  - {id: sub, graph: {name: inner, inputs: {text: " {{ inputs.text }} "}}}
  - {id: last, tool: text.trim, with: {text: "got {{ nodes.sub.output }}"}}
"#;

/// A sub-run that fails when the model is busy.
pub(crate) const INNER_ASKING: &str = r#"
name: asking-inner
inputs: {type: object, required: [text], properties: {text: {type: string}}}
output: "{{ nodes.asks.output }}"
nodes:
  - {id: trims, tool: text.trim, with: {text: "{{ inputs.text }}"}}
  - id: asks
    retry: {max: 1}
    agent: {model: local, prompt: "{{ nodes.trims.output }}", max_tokens: 20}
"#;

pub(crate) const REPAIRED: &str = r#"
name: repaired
output: "{{ nodes.sub.output }}"
budget: {tokens: 1000}
nodes:
  - id: sub
    retry: {max: 1}
    graph: {name: asking-inner, inputs: {text: " {{ inputs.text }} "}}
"#;

pub(crate) const SPAWNING: &str = r#"
name: spawning
output: "{{ nodes.lead.output }}"
nodes:
  - id: lead
    agent: {model: local, prompt: "{{ inputs.text }}", max_tokens: 20, tools: [{agent: tutor}]}
"#;

/// What a run of the agent `tutor` is a run of.
pub(crate) const TUTOR: &str = r#"
name: agent-tutor
description: Explains.
inputs: {type: object, required: [message], properties: {message: {type: string}}}
output: "{{ nodes.reply.output }}"
nodes:
  - {id: reply, agent: {model: local, prompt: "{{ inputs.message }}", max_tokens: 20}}
"#;

pub(crate) const PLAN: &str = r#"
name: plan
output: "{{ nodes.work.output }}"
nodes:
  - id: work
    plan:
      model: local
      prompt: "Shout {{ inputs.text }}"
      max_tokens: 200
      max_turns: 3
      inputs: {text: "{{ inputs.text }}"}
      tools: [text.trim]
"#;

/// What the model proposes for it.
pub(crate) const PROPOSAL: &str = r#"{"nodes": [{"id": "a", "tool": "text.trim",
    "with": {"text": " {{ inputs.text }} "}}], "output": "{{ nodes.a.output | upper }}"}"#;

pub(crate) const MEMORY: &str = r#"
name: memory
output: "{{ nodes.asks.output }}"
nodes:
  - {id: store, tool: memory.store, with: {subject: ann, text: "likes {{ inputs.text }}"}}
  - id: asks
    needs: [store]
    agent:
      model: local
      prompt: "What does Ann like?"
      max_tokens: 20
      memory: {subject: ann, max_tokens: 100}
  - id: forget
    needs: [asks]
    tool: memory.forget
    with: {subject: ann, id: "{{ nodes.store.output.id }}"}
"#;

pub(crate) const LINE: &str = r#"
name: forked
output: "{{ nodes.c.output }}"
nodes:
  - {id: a, tool: text.trim, with: {text: "{{ inputs.text | upper }}"}}
  - {id: b, tool: text.trim, with: {text: "{{ nodes.a.output }}{{ inputs.end }}"}}
  - {id: c, tool: text.trim, with: {text: "<{{ nodes.b.output }}>"}}
"#;
