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
