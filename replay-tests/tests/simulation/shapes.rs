//! The shapes of simulated runs, and what each must come to.

use std::fmt::Write as _;

/// Signals that a run of the waiting shape takes.
pub(crate) const SIGNALS: u128 = 8;

/// A graph of the simulation.
pub(crate) struct Shape {
    pub(crate) manifest: String,
    /// Steps that complete at least.
    pub(crate) steps: usize,
    /// Runs within it that end.
    pub(crate) children: usize,
}

/// What runs within other runs: it sleeps too.
const WITHIN: &str = "
name: within
inputs: {type: object, required: [count], properties: {count: {type: integer}}}
output: '{{ nodes.next.output }}'
nodes:
  - {id: rest, sleep: 30s}
  - {id: next, tool: math.eval, with: {expression: '{{ inputs.count }} + 1'}, needs: [rest]}
";

/// A run within a run within a run.
const DEEPER: &str = "
name: deeper
output: '{{ nodes.sub.output }}'
nodes:
  - {id: sub, graph: {name: within, inputs: {count: 1}}}
";

/// Graphs that run within others.
pub(crate) const INNER_GRAPHS: [&str; 2] = [WITHIN, DEEPER];

/// A line, a fan-out, its sum, a sleep, and a run within the run.
const MIXED: &str = "
name: mixed
output: '{{ nodes.last.output }}'
nodes:
  - {id: numbers, tool: list.range, with: {from: 1, to: 7}}
  - id: squares
    map:
      over: '{{ nodes.numbers.output }}'
      tool: math.eval
      with: {expression: '{{ item }} * {{ item }}'}
  - {id: rest, sleep: 90s, needs: [squares]}
  - {id: sum, tool: math.sum, with: {items: '{{ nodes.squares.output }}'}, needs: [rest]}
  - id: within
    graph: {name: within, inputs: {count: '{{ nodes.numbers.output | length }}'}}
  - id: last
    tool: math.sum
    with: {items: ['{{ nodes.sum.output }}', '{{ nodes.within.output }}']}
";

impl Shape {
    /// One of the shapes.
    pub(crate) fn of(number: u64) -> Self {
        match number % 6 {
            0 => Self { manifest: MIXED.to_owned(), steps: 11, children: 1 },
            1 => Self::side_by_side(60),
            2 => Self::in_a_row(30),
            3 => Self::family(7),
            4 => Self::branches(40),
            _ => Self::waiting(),
        }
    }

    fn side_by_side(count: usize) -> Self {
        let mut manifest = "name: beside\nnodes:\n".to_owned();
        for number in 0..count {
            let node = format!("{{id: n{number}, tool: text.trim, with: {{text: x}}}}");
            let _written = writeln!(manifest, "  - {node}");
        }
        Self { manifest, steps: count, children: 0 }
    }

    fn in_a_row(count: usize) -> Self {
        let mut manifest = "name: row\nnodes:\n".to_owned();
        for number in 0..count {
            let needs = if number == 0 { String::new() } else { format!("n{}", number - 1) };
            let node =
                format!("id: n{number}, tool: text.trim, with: {{text: x}}, needs: [{needs}]");
            let _written = writeln!(manifest, "  - {{{node}}}");
        }
        Self { manifest, steps: count, children: 0 }
    }

    /// More runs within it than there are places, one of them with one of its own.
    fn family(count: usize) -> Self {
        let mut manifest = "name: family\nnodes:\n".to_owned();
        for number in 1..count {
            let graph = format!("{{name: within, inputs: {{count: {number}}}}}");
            let _written = writeln!(manifest, "  - {{id: g{number}, graph: {graph}}}");
        }
        manifest.push_str("  - {id: g0, graph: {name: deeper}}\n");
        Self { manifest, steps: count, children: count }
    }

    /// Steps that begin and end at once, one after the other.
    fn branches(count: usize) -> Self {
        let mut manifest = "name: branches\nnodes:\n".to_owned();
        for number in 0..count {
            let next = number + 1;
            let branch = format!("{{if: 'true', then: [b{next}], else: [s{number}]}}");
            let _written = writeln!(manifest, "  - {{id: b{number}, branch: {branch}}}");
            let node = format!("{{id: s{number}, tool: text.trim, with: {{text: x}}}}");
            let _written = writeln!(manifest, "  - {node}");
        }
        let last = format!("{{id: b{count}, tool: text.trim, with: {{text: x}}}}");
        let _written = writeln!(manifest, "  - {last}");
        Self { manifest, steps: count + 1, children: 0 }
    }

    /// Steps that wait for signals, and for time.
    fn waiting() -> Self {
        let mut manifest = "name: waiting\nnodes:\n".to_owned();
        for number in 0..SIGNALS {
            let _written = writeln!(manifest, "  - {{id: s{number}, signal: go}}");
        }
        manifest.push_str("  - {id: rest, sleep: 20s}\n");
        Self { manifest, steps: SIGNALS as usize + 1, children: 0 }
    }
}
