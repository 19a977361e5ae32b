//! `convergio crash-test` on graphs that it must pass, refuse, and tell the truth of.

use serde_json::Value;

use crate::harness::{convergio, model_url, repository, text};

fn tested(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let output = convergio(folder.path(), &[&["crash-test", "--json"], arguments].concat());
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}{}", text(&output.stderr));
    serde_json::from_str(&report).expect("JSON")
}

fn example(name: &str) -> String {
    repository(&format!("examples/{name}")).to_str().expect("a path").to_owned()
}

fn clean(report: &Value) {
    for list in ["repeated_effects", "usage", "divergences", "outcomes"] {
        assert_eq!(report[list], Value::Array(Vec::new()), "{report}");
    }
    assert_eq!(report["ok"], true);
}

#[test]
fn pure_steps_survive_a_death_at_every_boundary() {
    let small = example("small.yaml");
    let report = tested(&[&small, "--input", "text=hello"]);
    clean(&report);
    assert_eq!((&report["commits"], &report["deaths"]), (&4.into(), &8.into()), "{report}");
    assert_eq!(report["kills"], 4);
    assert!(report["unknown_steps"].as_u64() >= Some(3), "deaths hit steps: {report}");
}

#[test]
fn a_fan_out_survives_a_sample_of_deaths() {
    let report = tested(&[&example("parallel.yaml"), "--sample", "5", "--kills", "2"]);
    clean(&report);
    let number = |name: &str| report[name].as_u64().expect("a number");
    assert_eq!(number("deaths") + number("kills") + number("not_reached"), 7, "{report}");
    assert!(number("deaths") >= 3, "{report}");
}

#[test]
fn waits_and_questions_are_lived_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("waits.yaml");
    let manifest = "
name: waits
output: '{{ nodes.end.output }}'
nodes:
  - {id: nap, sleep: 1h}
  - {id: ask, needs: [nap], approval: {role: owner, show: 'go on?'}}
  - id: fails
    needs: [ask]
    on_error: skip
    retry: {max: 2, backoff: 30s}
    tool: math.eval
    with: {expression: '1 +'}
  - {id: end, needs: [ask], tool: text.trim, with: {text: done}}
";
    std::fs::write(&file, manifest).expect("writable");
    let report = tested(&[file.to_str().expect("a path"), "--kills", "1"]);
    clean(&report);
    assert!(report["deaths"].as_u64() >= Some(8), "{report}");
}

#[test]
fn agents_need_a_model_and_bad_input_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let lesson = example("lesson.yaml");
    let nobody = ["--model-url", "http://127.0.0.1:9/v1"];
    let without = [&["crash-test", &lesson, "--input", "topic=x"], &nobody[..]].concat();
    let refused = convergio(folder.path(), &without);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("no model server answers") && said.lines().count() == 1, "{said}");
    let small = example("small.yaml");
    let wrong = convergio(folder.path(), &["crash-test", &small]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
    assert!(text(&wrong.stderr).contains("text"), "{}", text(&wrong.stderr));
}

#[test]
fn calls_of_a_real_model_are_neither_lost_nor_counted_twice() {
    let Some(model) = model_url() else {
        eprintln!("skipped: `make test` serves the model that this test needs");
        return;
    };
    let lesson = example("lesson.yaml");
    let brief = example("brief.yaml");
    let research = example("research.yaml");
    let document = repository("examples/documents/constitution.md");
    let document = format!("doc={}", document.display());
    for (arguments, sample) in [
        (vec![lesson.as_str(), "--input", "topic=rain"], "6"),
        (vec![brief.as_str(), "--input-file", &document], "3"),
        (vec![research.as_str(), "--input", "question=How many minutes are in a week?"], "3"),
    ] {
        let more = ["--sample", sample, "--kills", "2", "--model-url", &model];
        let report = tested(&[&arguments[..], &more].concat());
        clean(&report);
        assert!(report["model_calls"].as_u64() >= report["model_questions"].as_u64(), "{report}");
    }
}
