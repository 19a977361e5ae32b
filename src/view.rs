//! Runs on a terminal: a live tree of steps while a run goes on, and its full tree afterwards.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use convergio_process::err_line;
use convergio_process::terminal::{self, EscapedLines, escape_line};
use convergio_schemas::wire::{EventEnvelope, Frame, RunError, RunView, StepView};
use indicatif::{ProgressBar, ProgressStyle};

/// Live view of a run: one line for each node on standard error.
pub(crate) struct LiveTree {
    bar: Option<ProgressBar>,
    nodes: BTreeMap<String, NodeProgress>,
    order: Vec<String>,
    tokens_in: u64,
    tokens_out: u64,
    /// Approval that the run waits for, if any.
    pub(crate) waiting: Option<String>,
}

/// Progress of a node; `width` and `done` count a map's items.
#[derive(Default)]
struct NodeProgress {
    status: &'static str,
    width: u64,
    done: u64,
}

impl LiveTree {
    pub(crate) fn new() -> Self {
        // Without a terminal there is no moving line: every change is printed instead.
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let (nodes, order) = (BTreeMap::new(), Vec::new());
        Self { bar, nodes, order, tokens_in: 0, tokens_out: 0, waiting: None }
    }

    /// Applies a frame of the event stream.
    pub(crate) fn apply_frame(&mut self, frame: &Frame) {
        match frame {
            Frame::Progress(note) => {
                let tokens = self.tokens_out + note.tokens_out;
                self.set_message(&format!("{} is answering, {tokens} tokens out", note.step));
            }
            Frame::Event(event) => self.apply_event(event),
        }
    }

    fn apply_event(&mut self, event: &EventEnvelope) {
        let text = |key: &str| event.data[key].as_str().unwrap_or("").to_owned();
        let step = if event.data["step"].is_string() { text("step") } else { text("node") };
        match event.kind.as_str() {
            "run.step.started.v1" => self.set_status(&step, "running"),
            "run.map.expanded.v1" => {
                self.node_entry(&step).width = event.data["width"].as_u64().unwrap_or(0);
            }
            "run.step.completed.v1" => {
                self.set_status(&step, "done");
                for node in event.data["skipped"].as_array().into_iter().flatten() {
                    self.set_status(node.as_str().unwrap_or(""), "skipped");
                }
            }
            "run.step.failed.v1" => self.set_status(&step, "failed"),
            "run.step.retried.v1" => self.set_status(&step, "waiting to try again"),
            "run.step.unknown.v1" => self.set_status(&step, "interrupted"),
            "run.timer.set.v1" => self.set_status(&step, "sleeping"),
            "run.signal.awaited.v1" => self.set_status(&step, "waiting for a signal"),
            "run.step.asked.v1" => self.set_status(&step, "waiting for a decision"),
            "run.step.skipped.v1" => self.set_status(&step, "skipped"),
            "run.approval.requested.v1" => {
                self.waiting = Some(text("approval"));
                self.set_status(&step, "waiting for a person");
                let id = text("approval");
                self.print_line(&format!("  answer: convergio approvals answer {id} --grant"));
            }
            "run.approval.granted.v1" | "run.approval.denied.v1" => self.waiting = None,
            "run.completed.v1" | "run.failed.v1" | "run.cancelled.v1" => self.abandon_open_nodes(),
            "run.usage.recorded.v1" => self.add_usage(event),
            _ => {}
        }
    }

    fn add_usage(&mut self, event: &EventEnvelope) {
        for (meter, count) in event.data["usage"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap_or(0);
            if meter.starts_with("out") {
                self.tokens_out += count;
            } else {
                self.tokens_in += count;
            }
        }
    }

    fn node_entry(&mut self, name: &str) -> &mut NodeProgress {
        if !self.nodes.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.nodes.entry(name.to_owned()).or_default()
    }

    /// Sets the status of a step; items count for their map.
    fn set_status(&mut self, step: &str, status: &'static str) {
        if let Some((map, _)) = step.split_once('[') {
            if status == "done" {
                let node = self.node_entry(map);
                node.done += 1;
                let (done, width) = (node.done, node.width);
                self.set_message(&format!("{map} {done}/{width}"));
                if self.bar.is_none() {
                    self.print_line(&format!("  {map} {done}/{width}"));
                }
            }
            return;
        }
        self.node_entry(step).status = status;
        let tokens = format!("{} in, {} out", self.tokens_in, self.tokens_out);
        match status {
            "running" => self.set_message(&format!("{step}  ({tokens})")),
            _ => {
                self.print_line(&format!("  {} {step}: {status}  ({tokens})", status_mark(status)));
            }
        }
    }

    /// Marks the nodes that had not ended when the run did.
    fn abandon_open_nodes(&mut self) {
        let is_open = |status| !matches!(status, "" | "done" | "failed" | "skipped");
        let open = self.order.iter().filter(|name| is_open(self.nodes[*name].status));
        for name in open.cloned().collect::<Vec<_>>() {
            self.set_status(&name, "abandoned");
        }
    }

    fn set_message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(terminal::escape_line(text).into_owned());
        }
    }

    fn print_line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(terminal::escape_line(text)),
            None => err_line!("{text}"),
        }
    }

    /// Clears the moving line.
    pub(crate) fn clear_line(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn status_mark(status: &str) -> &'static str {
    match status {
        "done" | "completed" => "✓",
        "failed" => "✗",
        "skipped" | "abandoned" => "-",
        _ => "…",
    }
}

/// Maximum items of a map that are shown; the rest is counted.
const ITEMS_LIMIT: usize = 20;

/// Writes the tree of a run's steps, with tokens, cost and error.
pub(crate) fn write_tree(out: &mut impl Write, run: &RunView) -> std::io::Result<()> {
    // Names and messages come from models and users.
    let out = &mut EscapedLines(out);
    let name = if run.graph_name.is_empty() { &run.graph_id } else { &run.graph_name };
    writeln!(out, "{} {name}  run {}  {}", status_mark(&run.status), run.id, run.status)?;
    for step in run.steps.iter().filter(|step| step.item.is_none()) {
        write_step_line(out, "├─", step)?;
        let of_map = |item: &&StepView| item.node == step.node && item.item.is_some();
        let items: Vec<&StepView> = run.steps.iter().filter(of_map).collect();
        for item in items.iter().take(ITEMS_LIMIT) {
            write_step_line(out, "│  ├─", item)?;
        }
        if items.len() > ITEMS_LIMIT {
            writeln!(out, "│  └─ and {} more", items.len() - ITEMS_LIMIT)?;
        }
    }
    let usage = &run.usage;
    writeln!(
        out,
        "└─ {} of {} steps{}, {} tokens in, {} out, cost {} USD",
        run.steps_done,
        run.steps_total,
        match run.steps_abandoned {
            0 => String::new(),
            count => format!(" ({count} abandoned)"),
        },
        usage.tokens_in,
        usage.tokens_out,
        usage.cost
    )?;
    if usage.unpriced_calls > 0 {
        writeln!(
            out,
            "   {} model calls have no price and are not in the cost",
            usage.unpriced_calls
        )?;
    }
    if let Some(error) = &run.error {
        let step = error.step.as_ref().map_or_else(String::new, |step| format!("step {step}: "));
        writeln!(out, "   {step}{}: {}", error.code, escape_line(&error.message))?;
        write_detail(out, "   ", error)?;
    }
    if let Some(import) = &run.imported {
        let signed = match &import.signer {
            Some(signer) => format!("signed by {signer}"),
            None => "unsigned".to_owned(),
        };
        writeln!(out, "   imported by {} at {}, {signed}: it never goes on", import.by, import.at)?;
        writeln!(out, "   file {}", import.file_hash)?;
    }
    write_family(out, run)
}

/// Writes the parent of a run and its children.
fn write_family(out: &mut impl Write, run: &RunView) -> std::io::Result<()> {
    if let Some(parent) = &run.parent {
        writeln!(out, "   within run {}, step {}", parent.run_id, parent.step)?;
    }
    for child in &run.children {
        let name = if child.graph_name.is_empty() { &child.graph_id } else { &child.graph_name };
        let mark = status_mark(&child.status);
        writeln!(
            out,
            "   {mark} {}: run {} of {name}, {}",
            child.step, child.run_id, child.status
        )?;
    }
    let shown = run.children.len() as u64;
    if run.children_total > shown {
        let more = run.children_total - shown;
        writeln!(out, "   and {more} more: convergio runs list --parent {}", run.id)?;
    }
    Ok(())
}

fn write_step_line(out: &mut impl Write, branch: &str, step: &StepView) -> std::io::Result<()> {
    let time = step.duration_ms.map_or_else(String::new, |ms| format!("{ms} ms"));
    write!(
        out,
        "{branch} {} {:<14} {:<9} {time:>9}",
        status_mark(&step.status),
        step.id,
        step.kind
    )?;
    let usage = &step.usage;
    if let Some(model) = &step.model {
        let (tokens_in, tokens_out) = (usage.tokens_in, usage.tokens_out);
        write!(out, "  {tokens_in:>5} in {tokens_out:>4} out  {}", escape_line(&model.name))?;
    }
    if step.attempt > 1 {
        write!(out, "  try {}", step.attempt)?;
    }
    if step.status == "abandoned" {
        write!(out, "  abandoned")?;
    }
    if let (Some(error), true) = (&step.error, step.status != "completed") {
        writeln!(out, "  {}: {}", error.code, escape_line(&error.message))?;
        return write_detail(out, "│     ", error);
    }
    writeln!(out)
}

/// Writes the full text of a failure below its line.
fn write_detail(out: &mut impl Write, indent: &str, error: &RunError) -> std::io::Result<()> {
    let Some(detail) = &error.detail else { return Ok(()) };
    detail.lines().try_for_each(|line| writeln!(out, "{indent}{}", escape_line(line)))
}

/// Prints rows under a header, with columns as wide as their cells.
pub(crate) fn print_rows(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| terminal::escape_line(cell)));
    }
    terminal::print_table(&table);
}
