//! Circles of files and imports that run up, counted for the ratchet.
//!
//! Files are in a circle when each takes something from each other, directly or through others. An
//! arrow of a circle runs up when it leads to a file with fewer modules around it: the inner one
//! takes from the outer one that takes from it. Arrows up that close no circle are fine: a child
//! may use the values of its parent.

use std::collections::BTreeSet;

use crate::checkout::SourceFile;
use crate::module_graph::{ModuleGraph, build_graphs};
use crate::ratchet::Measure;

pub(crate) const FILES_IN_CIRCLES: &str = "files in circles of more than three files";
pub(crate) const IMPORTS_UPWARD: &str = "imports that run up within a circle of files";

/// Files that may need each other: a module with its two halves.
const SMALL_CIRCLE: usize = 3;

/// Both numbers about imports.
pub(crate) fn measure_imports(files: &[SourceFile]) -> Vec<Measure> {
    let graphs = build_graphs(files);
    let mut in_circles = Measure { name: FILES_IN_CIRCLES, value: 0, offenders: Vec::new() };
    let mut upward = Vec::new();
    for graph in &graphs {
        let circles = find_circles(graph);
        for circle in circles.iter().filter(|circle| circle.len() > SMALL_CIRCLE) {
            in_circles.value += u32::try_from(circle.len()).expect("a crate's files fit");
            in_circles.offenders.push(describe_circle(graph, circle));
        }
        upward.extend(find_upward_arrows(graph, &circles));
    }
    vec![in_circles, Measure::count(IMPORTS_UPWARD, upward)]
}

/// Files that reach each other, in sets of two and more.
fn find_circles(graph: &ModuleGraph<'_>) -> Vec<BTreeSet<usize>> {
    let reached: Vec<_> = (0..graph.files.len()).map(|file| find_reached(graph, file)).collect();
    let mut circles = BTreeSet::new();
    for (file, targets) in reached.iter().enumerate() {
        let circle = targets.iter().copied().filter(|target| reached[*target].contains(&file));
        circles.insert(circle.collect::<BTreeSet<_>>());
    }
    circles.into_iter().filter(|circle| circle.len() > 1).collect()
}

/// Files to which arrows lead from a file, in one step or many.
fn find_reached(graph: &ModuleGraph<'_>, start: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![start];
    while let Some(file) = pending.pop() {
        let arrows = graph.arrows.range((file, 0)..(file + 1, 0));
        pending.extend(
            arrows.map(|((_, target), _)| *target).filter(|target| reached.insert(*target)),
        );
    }
    reached
}

fn describe_circle(graph: &ModuleGraph<'_>, circle: &BTreeSet<usize>) -> String {
    let names = circle.iter().map(|file| {
        let file = graph.files[*file];
        file.path.strip_prefix(&file.crate_folder).unwrap_or(&file.path).display().to_string()
    });
    let names: Vec<String> = names.collect();
    let folder = circle.first().map(|file| graph.files[*file].crate_folder.display());
    let folder = folder.map(|folder| folder.to_string()).unwrap_or_default();
    format!("{folder}: {} files: {}", circle.len(), names.join(" "))
}

/// Arrows within circles that lead to a file with fewer modules around it.
fn find_upward_arrows(graph: &ModuleGraph<'_>, circles: &[BTreeSet<usize>]) -> Vec<String> {
    let mut upward = Vec::new();
    for ((from, to), line) in &graph.arrows {
        let is_in = |circle: &BTreeSet<usize>| circle.contains(from) && circle.contains(to);
        if graph.depths[*to] < graph.depths[*from] && circles.iter().any(is_in) {
            let [from, to] = [from, to].map(|file| graph.files[*file].path.display());
            upward.push(format!("{from}:{line} takes from {to}"));
        }
    }
    upward
}

#[cfg(test)]
fn measure_texts(texts: &[(&str, &str)]) -> [Measure; 2] {
    let files = texts.iter().map(|(path, text)| SourceFile::new(path, "", *text));
    let measures = measure_imports(&files.collect::<Vec<_>>());
    measures.try_into().unwrap_or_else(|_| panic!("two measures"))
}

#[test]
fn a_circle_of_four_files_is_found() {
    let mut texts = [
        ("a.rs", "use crate::b::B;\nstruct A;\n"),
        ("b.rs", "use crate::c::C;\nstruct B;\n"),
        ("c.rs", "use crate::d::D;\nstruct C;\n"),
        ("d.rs", "use crate::a::A;\nstruct D;\n"),
        ("top.rs", "use crate::a::A;\n"),
    ];
    let [in_circles, upward] = measure_texts(&texts);
    assert_eq!((in_circles.value, upward.value), (4, 0));
    assert_eq!(in_circles.offenders, [": 4 files: a.rs b.rs c.rs d.rs"]);
    texts[3].1 = "struct D;\n";
    assert_eq!(measure_texts(&texts)[0].value, 0);
}

#[test]
fn a_circle_of_three_files_is_let_pass() {
    let texts = [
        ("a.rs", "use crate::b::B;\nstruct A;\n"),
        ("b.rs", "use crate::c::C;\nstruct B;\n"),
        ("c.rs", "use crate::a::A;\nstruct C;\n"),
    ];
    assert_eq!(measure_texts(&texts)[0].value, 0);
}

#[test]
fn imports_that_run_up_a_circle_are_found() {
    let mut texts = [
        ("router.rs", "use crate::http::runs;\nfn routes() { runs::list() }\nstruct State;\n"),
        ("http/runs.rs", "\nuse crate::router::State;\nfn list() {}\n"),
    ];
    let [_, upward] = measure_texts(&texts);
    assert_eq!(upward.offenders, ["http/runs.rs:2 takes from router.rs"]);
    texts[0].1 = "struct State;\n";
    assert_eq!(measure_texts(&texts)[1].value, 0, "an arrow up without a circle is fine");
}

#[test]
fn a_module_that_uses_its_child_and_is_used_by_it_is_found() {
    let texts = [
        ("run/mod.rs", "mod state;\nuse state::State;\nstruct Run(State);\n"),
        ("run/state.rs", "use super::Run;\nstruct State;\n"),
    ];
    assert_eq!(measure_texts(&texts)[1].offenders, ["run/state.rs:1 takes from run/mod.rs"]);
}
