//! The debug view on a terminal: drawing of an event, and keys.

use convergio_domain::run::Phase;
use ratatui::crossterm::event::{self, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, List, ListItem, ListState, Paragraph, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::steps::{Node, Step, Steps};
use crate::terminal::escape_line;

/// Help on the last line of the screen.
const HELP: &str = " ←/→ event · PgUp/PgDn 20 · Home/End · n/p same step · tab pane · ↑/↓ scroll · \
    q quit";
/// Events that a page key skips.
const PAGE: usize = 20;

/// Action that a key triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Next,
    Back,
    NextPage,
    BackPage,
    First,
    Last,
    /// Jumps to the next event of the same step; [`Self::BackOfStep`] to the previous one.
    NextOfStep,
    BackOfStep,
    Pane,
    Down,
    Up,
    Quit,
}

impl Key {
    fn of(code: KeyCode, modifiers: KeyModifiers) -> Option<Self> {
        // Raw mode delivers Ctrl-C as a key.
        if modifiers.contains(KeyModifiers::CONTROL) {
            return (code == KeyCode::Char('c')).then_some(Self::Quit);
        }
        Some(match code {
            KeyCode::Right | KeyCode::Char('l') => Self::Next,
            KeyCode::Left | KeyCode::Char('h') => Self::Back,
            KeyCode::PageDown => Self::NextPage,
            KeyCode::PageUp => Self::BackPage,
            KeyCode::Home | KeyCode::Char('g') => Self::First,
            KeyCode::End | KeyCode::Char('G') => Self::Last,
            KeyCode::Char('n') => Self::NextOfStep,
            KeyCode::Char('p') => Self::BackOfStep,
            KeyCode::Tab => Self::Pane,
            KeyCode::Down | KeyCode::Char('j') => Self::Down,
            KeyCode::Up | KeyCode::Char('k') => Self::Up,
            KeyCode::Char('q') | KeyCode::Esc => Self::Quit,
            _ => return None,
        })
    }
}

/// Content of the right half below the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pane {
    Changes,
    Texts,
    Data,
}

/// State of the view: the run's events, and the one that is shown.
pub(crate) struct View {
    steps: Steps,
    index: usize,
    pane: Pane,
    scroll: u16,
    current: Step,
}

impl View {
    /// Shows the first event. There is at least one: a run begins with its creation.
    pub(crate) fn new(steps: Steps) -> Self {
        let current = steps.at(0);
        Self { steps, index: 0, pane: Pane::Changes, scroll: 0, current }
    }

    /// The event that is shown.
    #[cfg(test)]
    pub(crate) fn current(&self) -> &Step {
        &self.current
    }

    /// Performs an action; returns false to quit.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        let last = self.steps.len() - 1;
        let of_step = |forward| {
            let step = self.current.step.as_deref()?;
            self.steps.find(self.index, step, forward)
        };
        let to = match key {
            Key::Quit => return false,
            Key::Next => self.index + 1,
            Key::Back => self.index.saturating_sub(1),
            Key::NextPage => self.index + PAGE,
            Key::BackPage => self.index.saturating_sub(PAGE),
            Key::First => 0,
            Key::Last => last,
            Key::NextOfStep => of_step(true).unwrap_or(self.index),
            Key::BackOfStep => of_step(false).unwrap_or(self.index),
            Key::Pane => {
                self.pane = match self.pane {
                    Pane::Changes => Pane::Texts,
                    Pane::Texts => Pane::Data,
                    Pane::Data => Pane::Changes,
                };
                self.scroll = 0;
                return true;
            }
            Key::Down => {
                self.scroll = self.scroll.saturating_add(1);
                return true;
            }
            Key::Up => {
                self.scroll = self.scroll.saturating_sub(1);
                return true;
            }
        };
        let to = to.min(last);
        if to != self.index {
            self.index = to;
            self.scroll = 0;
            self.current = self.steps.at(to);
        }
        true
    }

    /// Draws the whole screen.
    pub(crate) fn draw(&self, frame: &mut Frame<'_>) {
        let rows = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)];
        let [top, middle, bottom] = Layout::vertical(rows).areas(frame.area());
        let columns = [Constraint::Percentage(40), Constraint::Percentage(60)];
        let [left, right] = Layout::horizontal(columns).areas(middle);
        let graph_rows = u16::try_from(self.current.nodes.len()).unwrap_or(u16::MAX) + 2;
        let halves = [Constraint::Max(graph_rows.min(middle.height / 2)), Constraint::Min(3)];
        let [graph, pane] = Layout::vertical(halves).areas(right);
        frame.render_widget(Paragraph::new(self.head()).style(bold()), top);
        self.draw_events(frame, left);
        self.draw_graph(frame, graph);
        self.draw_pane(frame, pane);
        frame.render_widget(Paragraph::new(HELP), bottom);
    }

    fn head(&self) -> String {
        let Step { seq, status, tokens, tokens_held, cost, .. } = &self.current;
        let status = match status {
            Phase::New => "new",
            Phase::Running => "running",
            Phase::Completed => "completed",
            Phase::Failed => "failed",
            Phase::Cancelled => "cancelled",
        };
        let held = if *tokens_held > 0 { format!(", {tokens_held} held") } else { String::new() };
        let (run, len) = (self.steps.run(), self.steps.len());
        format!(" run {run} · event {seq} of {len} · {status} · {tokens} tokens{held} · {cost} USD")
    }

    fn draw_events(&self, frame: &mut Frame<'_>, area: Rect) {
        // The selected event stays in the middle as long as there are events on both sides.
        let height = usize::from(area.height.saturating_sub(2)).max(1);
        let first =
            self.index.saturating_sub(height / 2).min(self.steps.len().saturating_sub(height));
        let shown = first..(first + height).min(self.steps.len());
        let items = shown.map(|index| ListItem::new(visible(&self.steps.line(index))));
        let list = List::new(items).block(Block::bordered().title(" events "));
        let list = list.highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = ListState::default().with_selected(Some(self.index - first));
        frame.render_stateful_widget(list, area, &mut state);
    }

    fn draw_graph(&self, frame: &mut Frame<'_>, area: Rect) {
        let touched =
            self.current.step.as_deref().map(|step| step.split('[').next().unwrap_or(step));
        let lines: Vec<Line<'_>> = self
            .current
            .nodes
            .iter()
            .map(|node| {
                let style = if touched == Some(node.node.as_str()) { bold() } else { Style::new() };
                Line::styled(visible(&graph_line(node)), style)
            })
            .collect();
        // Scrolls so that the event's node is visible.
        let at = self.current.nodes.iter().position(|node| touched == Some(node.node.as_str()));
        let height = usize::from(area.height.saturating_sub(2));
        let skip = at.map_or(0, |at| (at + 1).saturating_sub(height));
        let graph = Paragraph::new(lines).block(Block::bordered().title(" graph "));
        frame.render_widget(graph.scroll((u16::try_from(skip).unwrap_or(0), 0)), area);
    }

    fn draw_pane(&self, frame: &mut Frame<'_>, area: Rect) {
        let (title, lines) = match self.pane {
            Pane::Changes => (" changes of the state · tab: texts ", self.changes()),
            Pane::Texts => (" prompts, inputs, answers · tab: data ", self.texts()),
            Pane::Data => (" data of the event · tab: changes ", self.data()),
        };
        let pane = Paragraph::new(lines).block(Block::bordered().title(title));
        let pane = pane.wrap(Wrap { trim: false }).scroll((self.scroll, 0));
        frame.render_widget(pane, area);
    }

    fn changes(&self) -> Vec<Line<'static>> {
        if self.current.changes.is_empty() {
            return vec![Line::from("the event changes nothing in the state")];
        }
        let line = |change: &super::steps::Change| {
            let name = Span::styled(visible(&change.path), bold());
            let values = visible(&format!("  {} → {}", change.before, change.after));
            Line::from(vec![name, Span::raw(values)])
        };
        self.current.changes.iter().map(line).collect()
    }

    fn texts(&self) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        for text in &self.current.texts {
            let bytes = text.text.as_ref().map_or(0, String::len);
            let head = format!("{} {} · {bytes} bytes", text.what, text.reference);
            lines.push(Line::styled(visible(&head), bold()));
            let content = text.text.as_deref().unwrap_or("(not here: erased, or left out)");
            lines.extend(content.lines().map(|line| Line::from(visible(line))));
        }
        if lines.is_empty() {
            lines.push(Line::from("the event has no texts"));
        }
        lines
    }

    fn data(&self) -> Vec<Line<'static>> {
        let Step { actor, time_ms, kind, data, .. } = &self.current;
        let text = serde_json::to_string_pretty(data).unwrap_or_default();
        let head = format!("{kind} by {actor} at {time_ms} ms");
        let lines = text.lines().map(|line| Line::from(visible(line)));
        std::iter::once(Line::styled(visible(&head), bold())).chain(lines).collect()
    }
}

/// Escapes a line of untrusted text for the terminal.
fn visible(line: &str) -> String {
    escape_line(&line.replace('\t', "    ")).into_owned()
}

fn graph_line(node: &Node) -> String {
    let mark = match node.status {
        "done" => "✓",
        "failed" => "✗",
        "skipped" => "-",
        "waiting" => "·",
        _ => "▶",
    };
    let items = node.items.map_or_else(String::new, |(done, all)| format!(" {done}/{all}"));
    let needs = match node.needs.is_empty() {
        true => String::new(),
        false => format!("  ← {}", node.needs.join(", ")),
    };
    format!("{mark} {:<16} {}{items}{needs}", node.node, node.status)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Shows a view on the terminal until the user quits.
///
/// # Errors
/// The terminal cannot be used.
pub(crate) fn show(mut view: View) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = follow(&mut terminal, &mut view);
    // Also after an error: the user's shell must not be left in raw mode.
    ratatui::try_restore()?;
    shown
}

fn follow(terminal: &mut DefaultTerminal, view: &mut View) -> std::io::Result<()> {
    loop {
        terminal.draw(|frame| view.draw(frame))?;
        let event::Event::Key(pressed) = event::read()? else { continue };
        // Some terminals report presses and releases.
        if pressed.kind == KeyEventKind::Release {
            continue;
        }
        let key = Key::of(pressed.code, pressed.modifiers);
        if key.is_some_and(|key| !view.press(key)) {
            return Ok(());
        }
    }
}
