//! The debug view on a terminal: drawing of an event, and keys.

use convergio_domain::run::RunPhase;
use convergio_process::terminal::escape_line;
use ratatui::crossterm::event::{self, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, List, ListItem, ListState, Paragraph, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::timeline::{DebugNode, DebugStep, DebugTimeline};

/// Help on the last line of the screen.
const KEYS_HELP: &str = " ←/→ event · PgUp/PgDn 20 · Home/End · n/p same step · tab pane · \
    ↑/↓ scroll · q quit";
/// Events that a page key skips.
const PAGE_EVENTS: usize = 20;

/// Action that a key triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyAction {
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

impl KeyAction {
    fn from_key_code(code: KeyCode, modifiers: KeyModifiers) -> Option<Self> {
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
enum DetailPane {
    Changes,
    Texts,
    Data,
}

/// State of the view: the run's events, and the one that is shown.
pub(crate) struct DebugView {
    steps: DebugTimeline,
    index: usize,
    pane: DetailPane,
    scroll: u16,
    current: DebugStep,
}

impl DebugView {
    /// Shows the first event. There is at least one: a run begins with its creation.
    pub(crate) fn new(steps: DebugTimeline) -> Self {
        let current = steps.step_at(0);
        Self { steps, index: 0, pane: DetailPane::Changes, scroll: 0, current }
    }

    /// The event that is shown.
    #[cfg(test)]
    pub(crate) fn current_step(&self) -> &DebugStep {
        &self.current
    }

    /// Performs an action; returns false to quit.
    pub(crate) fn apply_key(&mut self, key: KeyAction) -> bool {
        let last = self.steps.len() - 1;
        let find_same_step = |forward| {
            let step = self.current.step.as_deref()?;
            self.steps.find_step_event(self.index, step, forward)
        };
        let target_index = match key {
            KeyAction::Quit => return false,
            KeyAction::Next => self.index + 1,
            KeyAction::Back => self.index.saturating_sub(1),
            KeyAction::NextPage => self.index + PAGE_EVENTS,
            KeyAction::BackPage => self.index.saturating_sub(PAGE_EVENTS),
            KeyAction::First => 0,
            KeyAction::Last => last,
            KeyAction::NextOfStep => find_same_step(true).unwrap_or(self.index),
            KeyAction::BackOfStep => find_same_step(false).unwrap_or(self.index),
            KeyAction::Pane => {
                self.pane = match self.pane {
                    DetailPane::Changes => DetailPane::Texts,
                    DetailPane::Texts => DetailPane::Data,
                    DetailPane::Data => DetailPane::Changes,
                };
                self.scroll = 0;
                return true;
            }
            KeyAction::Down => {
                self.scroll = self.scroll.saturating_add(1);
                return true;
            }
            KeyAction::Up => {
                self.scroll = self.scroll.saturating_sub(1);
                return true;
            }
        };
        let to = target_index.min(last);
        if to != self.index {
            self.index = to;
            self.scroll = 0;
            self.current = self.steps.step_at(to);
        }
        true
    }

    /// Draws the whole screen.
    pub(crate) fn draw_screen(&self, frame: &mut Frame<'_>) {
        let rows = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)];
        let [top, middle, bottom] = Layout::vertical(rows).areas(frame.area());
        let columns = [Constraint::Percentage(40), Constraint::Percentage(60)];
        let [left, right] = Layout::horizontal(columns).areas(middle);
        let graph_rows = u16::try_from(self.current.nodes.len()).unwrap_or(u16::MAX) + 2;
        let halves = [Constraint::Max(graph_rows.min(middle.height / 2)), Constraint::Min(3)];
        let [graph, pane] = Layout::vertical(halves).areas(right);
        frame.render_widget(Paragraph::new(self.header_line()).style(bold_style()), top);
        self.draw_events(frame, left);
        self.draw_graph(frame, graph);
        self.draw_pane(frame, pane);
        frame.render_widget(Paragraph::new(KEYS_HELP), bottom);
    }

    fn header_line(&self) -> String {
        let DebugStep { seq, status, tokens, tokens_held, cost, .. } = &self.current;
        let status = match status {
            RunPhase::New => "new",
            RunPhase::Running => "running",
            RunPhase::Completed => "completed",
            RunPhase::Failed => "failed",
            RunPhase::Cancelled => "cancelled",
        };
        let held = if *tokens_held > 0 { format!(", {tokens_held} held") } else { String::new() };
        let (run, len) = (self.steps.run_id(), self.steps.len());
        format!(" run {run} · event {seq} of {len} · {status} · {tokens} tokens{held} · {cost} USD")
    }

    fn draw_events(&self, frame: &mut Frame<'_>, area: Rect) {
        // The selected event stays in the middle as long as there are events on both sides.
        let height = usize::from(area.height.saturating_sub(2)).max(1);
        let first =
            self.index.saturating_sub(height / 2).min(self.steps.len().saturating_sub(height));
        let shown = first..(first + height).min(self.steps.len());
        let items = shown.map(|index| ListItem::new(visible_text(&self.steps.event_line(index))));
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
                let style =
                    if touched == Some(node.node.as_str()) { bold_style() } else { Style::new() };
                Line::styled(visible_text(&graph_line(node)), style)
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
            DetailPane::Changes => (" changes of the state · tab: texts ", self.change_lines()),
            DetailPane::Texts => (" prompts, inputs, answers · tab: data ", self.text_lines()),
            DetailPane::Data => (" data of the event · tab: changes ", self.data_lines()),
        };
        let pane = Paragraph::new(lines).block(Block::bordered().title(title));
        let pane = pane.wrap(Wrap { trim: false }).scroll((self.scroll, 0));
        frame.render_widget(pane, area);
    }

    fn change_lines(&self) -> Vec<Line<'static>> {
        if self.current.changes.is_empty() {
            return vec![Line::from("the event changes nothing in the state")];
        }
        let line = |change: &super::timeline::StateChange| {
            let name = Span::styled(visible_text(&change.path), bold_style());
            let values = visible_text(&format!("  {} → {}", change.before, change.after));
            Line::from(vec![name, Span::raw(values)])
        };
        self.current.changes.iter().map(line).collect()
    }

    fn text_lines(&self) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        for text in &self.current.texts {
            let bytes = text.text.as_ref().map_or(0, String::len);
            let head = format!("{} {} · {bytes} bytes", text.what, text.reference);
            lines.push(Line::styled(visible_text(&head), bold_style()));
            let content = text.text.as_deref().unwrap_or("(not here: erased, or left out)");
            lines.extend(content.lines().map(|line| Line::from(visible_text(line))));
        }
        if lines.is_empty() {
            lines.push(Line::from("the event has no texts"));
        }
        lines
    }

    fn data_lines(&self) -> Vec<Line<'static>> {
        let DebugStep { actor, time_ms, kind, data, .. } = &self.current;
        let text = serde_json::to_string_pretty(data).unwrap_or_default();
        let head = format!("{kind} by {actor} at {time_ms} ms");
        let lines = text.lines().map(|line| Line::from(visible_text(line)));
        std::iter::once(Line::styled(visible_text(&head), bold_style())).chain(lines).collect()
    }
}

/// Escapes a line of untrusted text for the terminal.
fn visible_text(line: &str) -> String {
    escape_line(&line.replace('\t', "    ")).into_owned()
}

fn graph_line(node: &DebugNode) -> String {
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

fn bold_style() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Shows a view on the terminal until the user quits.
///
/// # Errors
/// The terminal cannot be used.
pub(crate) fn show_view(mut view: DebugView) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = run_event_loop(&mut terminal, &mut view);
    // Also after an error: the user's shell must not be left in raw mode.
    ratatui::try_restore()?;
    shown
}

fn run_event_loop(terminal: &mut DefaultTerminal, view: &mut DebugView) -> std::io::Result<()> {
    loop {
        terminal.draw(|frame| view.draw_screen(frame))?;
        let event::Event::Key(pressed) = event::read()? else { continue };
        // Some terminals report presses and releases.
        if pressed.kind == KeyEventKind::Release {
            continue;
        }
        let key = KeyAction::from_key_code(pressed.code, pressed.modifiers);
        if key.is_some_and(|key| !view.apply_key(key)) {
            return Ok(());
        }
    }
}
