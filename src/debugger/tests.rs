//! The debug view of recorded runs, as data and as drawn.

use std::path::Path;

use convergio_domain::run::RunPhase;
use convergio_eventstore::run_file::RunFile;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::screen::{DebugView, KeyAction};
use super::timeline::{DebugStep, DebugTimeline};

fn recorded(name: &str) -> DebugTimeline {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("replay-tests/golden");
    DebugTimeline::new(RunFile::open(&golden.join(format!("{name}.jsonl"))).expect("recorded"))
}

fn all(steps: &DebugTimeline) -> Vec<DebugStep> {
    (0..steps.len()).map(|index| steps.step_at(index)).collect()
}

fn drawn(view: &DebugView) -> String {
    let mut terminal = Terminal::new(TestBackend::new(110, 32)).expect("a terminal");
    terminal.draw(|frame| view.draw_screen(frame)).expect("it is drawn");
    terminal.backend().to_string()
}

fn status<'a>(step: &'a DebugStep, node: &str) -> &'a str {
    step.nodes.iter().find(|found| found.node == node).expect("a node").status
}

#[test]
fn each_event_shows_what_it_changes_and_what_it_says() {
    let steps = recorded("agent");
    let seen = all(&steps);
    assert_eq!((seen[0].kind, seen[0].status), ("run.created.v1", RunPhase::Running));
    assert_eq!(status(&seen[0], "asks"), "waiting");
    let intended = seen.iter().find(|step| step.kind == "run.model_call.intended.v1");
    let intended = intended.expect("a call");
    assert_eq!(status(intended, "asks"), "running");
    assert!(intended.tokens_held > 0 && intended.tokens == 0);
    let prompt = intended.texts.iter().find(|text| text.what == "prompt").expect("a prompt");
    assert!(prompt.text.as_deref().expect("its bytes").contains("You answer."));
    assert!(intended.changes.iter().any(|change| change.path.starts_with("steps.asks.call")));
    let last = seen.last().expect("events");
    assert_eq!((last.status, last.tokens, last.tokens_held), (RunPhase::Completed, 17, 0));
    assert_eq!(last.cost, "0.000022");
    assert_eq!(status(last, "asks"), "done");
}

#[test]
fn a_map_counts_its_items_and_a_move_changes_the_graph() {
    let seen = all(&recorded("map"));
    let items = |step: &DebugStep| {
        step.nodes.iter().find(|node| node.node == "squares").expect("a map").items
    };
    assert!(seen.iter().any(|step| items(step) == Some((0, 30))));
    assert_eq!(items(seen.last().expect("events")), Some((30, 30)));
    let seen = all(&recorded("migrated"));
    let moved = seen.iter().position(|step| step.kind == "run.migrated.v1").expect("a move");
    assert_eq!(seen[moved].nodes.len(), seen[moved - 1].nodes.len() + 1);
}

#[test]
fn keys_go_through_the_run_and_every_screen_can_be_drawn() {
    let steps = recorded("map");
    let len = steps.len();
    let mut view = DebugView::new(steps);
    assert!(drawn(&view).contains("event 1 of"));
    for key in [
        KeyAction::Next,
        KeyAction::NextPage,
        KeyAction::Back,
        KeyAction::Pane,
        KeyAction::Down,
        KeyAction::Last,
        KeyAction::Next,
    ] {
        assert!(view.apply_key(key));
    }
    assert_eq!(view.current_step().seq, len as u64, "the end is the end");
    let screen = drawn(&view);
    assert!(screen.contains("✓ squares") && screen.contains("done 30/30"), "{screen}");
    assert!(screen.contains("completed") && screen.contains("q quit"), "{screen}");
    view.apply_key(KeyAction::First);
    view.apply_key(KeyAction::BackPage);
    assert_eq!(view.current_step().seq, 1);
    while view.current_step().step.is_none() {
        view.apply_key(KeyAction::Next);
    }
    let step = view.current_step().step.clone();
    view.apply_key(KeyAction::NextOfStep);
    assert_eq!(view.current_step().step, step);
    let there = view.current_step().seq;
    view.apply_key(KeyAction::BackOfStep);
    assert!(view.current_step().seq < there);
    assert!(!view.apply_key(KeyAction::Quit));
}

#[test]
fn a_prompt_is_on_the_screen_and_cannot_steer_it() {
    let mut view = DebugView::new(recorded("agent"));
    while view.current_step().kind != "run.model_call.intended.v1" {
        assert!(view.apply_key(KeyAction::Next));
    }
    view.apply_key(KeyAction::Pane);
    let screen = drawn(&view);
    assert!(screen.contains("prompt 2.0") && screen.contains("max_tokens"), "{screen}");
    assert!(!screen.contains('\u{1b}'));
}

#[test]
fn what_would_steer_the_screen_is_shown_on_it() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("replay-tests/golden/agent.jsonl");
    let mut file = RunFile::open(&golden).expect("recorded");
    let attack = "a\u{1b}[2J\u{9b}31m\u{202e}b\u{200b}";
    file.payloads.values_mut().for_each(|text| *text = attack.into());
    let mut view = DebugView::new(DebugTimeline::new(file));
    view.apply_key(KeyAction::Pane);
    let screen = drawn(&view);
    assert!(screen.contains(r"a\u{1b}[2J\u{9b}31m\u{202e}b\u{200b}"), "{screen}");
}

#[test]
fn a_fork_begins_where_its_parent_stood() {
    let seen = all(&recorded("forked"));
    assert_eq!((seen[0].kind, seen[0].status), ("run.forked.v1", RunPhase::Running));
    assert_eq!(status(&seen[0], "a"), "done", "it is inherited");
    assert_eq!(status(&seen[0], "b"), "scheduled", "it was under way in the parent");
    assert!(seen.iter().all(|step| step.step.as_deref() != Some("a")), "it is not done again");
    assert_eq!(status(seen.last().expect("events"), "c"), "done");
}
