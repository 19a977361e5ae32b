//! How production code is named and documented, counted for the ratchet.
//!
//! Names that a trait gives to its impls are left out: they are not chosen where they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::checkout::SourceFile;
use crate::declarations::{
    Declaration, Function, TypeDefinition, find_doc_comments, find_functions, find_types,
};
use crate::ratchet::{Measure, divide_rounded};

pub(crate) const ONE_WORD: &str = "functions named by one word, per mille";
pub(crate) const PARTICIPLE: &str = "functions named by a participle, per mille";
pub(crate) const NAME_LENGTH: &str = "mean length of function names, tenths of a letter";
pub(crate) const SHARED_TYPE_NAMES: &str = "type names that several types have, per mille";
pub(crate) const REPEATED_IN_CRATE: &str = "types whose name their crate has already";
pub(crate) const SHORT_DOCS: &str = "doc comments of three words or fewer, per mille";
pub(crate) const QUESTION_DOCS: &str = "doc comments that open with a question word, per mille";
pub(crate) const LONG_FUNCTIONS: &str = "functions of 66 lines and more";
pub(crate) const LONG_FILES: &str = "files of more than 570 lines";

/// One word says enough where Rust or every library has long used it for the same thing.
const PLAIN_WORDS: &[&str] = &[
    "new", "main", "from", "default", "fmt", "drop", "clone", "len", "next", "poll", "eq", "hash",
    "run", "open", "close", "get", "insert", "remove", "push", "pop", "iter", "load", "save",
    "read", "write", "parse", "start", "stop", "append", "decide", "evolve", "apply", "id", "name",
    "kind", "seq", "key", "zero",
];

/// Participles tell that something happened and leave open what.
const PARTICIPLES: &[&str] = &[
    "told", "held", "made", "kept", "said", "asked", "known", "found", "given", "taken", "written",
    "wanted", "judged", "stood", "left", "spent", "gone", "begun", "done", "heard", "seen", "put",
    "set", "set_", "chosen", "drawn", "shown",
];

const QUESTION_WORDS: [&str; 9] =
    ["What", "Who", "Whom", "Whether", "Which", "How", "Why", "Where", "When"];

/// Most words of a doc comment that says nothing which its item does not say.
const FEW_WORDS: usize = 3;

/// A function of this length can hardly grow: its cap is 70 lines.
const LONG_FUNCTION: usize = 66;

/// A file that is longer can hardly grow: its cap is 600 lines.
const LONG_FILE: usize = 570;

/// Something declared, with the file that declares it.
pub(crate) struct SourceItem<'a, T> {
    file: &'a SourceFile,
    pub(crate) declaration: T,
}

impl<T: Declaration> SourceItem<'_, T> {
    /// As a message shows it: `file:line name`.
    pub(crate) fn describe(&self) -> String {
        let (line, label) = (self.declaration.line(), self.declaration.label());
        format!("{}:{line} {label}", self.file.path.display())
    }
}

/// Everything of one sort that the files declare in production.
fn collect_items<'a, T>(
    files: &'a [SourceFile],
    find: fn(&'a str) -> Vec<T>,
) -> Vec<SourceItem<'a, T>> {
    let items = files.iter().flat_map(|file| {
        find(file.production_text())
            .into_iter()
            .map(move |declaration| SourceItem { file, declaration })
    });
    items.collect()
}

/// Functions whose names were chosen where they stand.
pub(crate) fn collect_functions(files: &[SourceFile]) -> Vec<SourceItem<'_, Function<'_>>> {
    let mut functions = collect_items(files, find_functions);
    functions.retain(|function| !function.declaration.is_of_trait_impl);
    functions
}

pub(crate) fn collect_types(files: &[SourceFile]) -> Vec<SourceItem<'_, TypeDefinition<'_>>> {
    collect_items(files, find_types)
}

/// All numbers about names, docs and lengths.
pub(crate) fn measure_names(files: &[SourceFile]) -> Vec<Measure> {
    let functions = collect_functions(files);
    let types = collect_types(files);
    let docs = collect_items(files, find_doc_comments);
    vec![
        measure_share(ONE_WORD, &functions, |function| is_one_word(function.name)),
        measure_share(PARTICIPLE, &functions, |function| PARTICIPLES.contains(&function.name)),
        measure_name_length(&functions),
        measure_shared_type_names(&types),
        Measure::count(REPEATED_IN_CRATE, find_repeated_types(&types)),
        measure_share(SHORT_DOCS, &docs, |comment| comment.words.len() <= FEW_WORDS),
        measure_share(QUESTION_DOCS, &docs, |comment| opens_with_question(&comment.words)),
        Measure::count(LONG_FUNCTIONS, find_long_functions(files)),
        Measure::count(LONG_FILES, find_long_files(files)),
    ]
}

fn is_one_word(name: &str) -> bool {
    !name.trim_matches('_').contains('_') && !PLAIN_WORDS.contains(&name)
}

fn opens_with_question(words: &[&str]) -> bool {
    words.first().is_some_and(|word| QUESTION_WORDS.contains(word))
}

fn measure_share<T: Declaration>(
    name: &'static str,
    items: &[SourceItem<'_, T>],
    is_offender: fn(&T) -> bool,
) -> Measure {
    let offenders = items.iter().filter(|item| is_offender(&item.declaration));
    Measure::share(name, offenders.map(SourceItem::describe).collect(), items.len())
}

/// The mean length; the functions with the shortest names are to blame for a low one.
fn measure_name_length(functions: &[SourceItem<'_, Function<'_>>]) -> Measure {
    let letters: usize = functions.iter().map(|function| function.declaration.name.len()).sum();
    let mut shortest: Vec<_> = functions.iter().collect();
    shortest.sort_by_key(|function| function.declaration.name.len());
    Measure {
        name: NAME_LENGTH,
        value: divide_rounded(10 * letters, functions.len()),
        offenders: shortest.into_iter().map(SourceItem::describe).collect(),
    }
}

/// The share of the type names that are defined more than once in the workspace.
fn measure_shared_type_names(types: &[SourceItem<'_, TypeDefinition<'_>>]) -> Measure {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for definition in types {
        places.entry(definition.declaration.name).or_default().push(definition.describe());
    }
    let names = places.len();
    let shared: Vec<Vec<String>> = places.into_values().filter(|all| all.len() > 1).collect();
    let value = divide_rounded(1000 * shared.len(), names);
    Measure { name: SHARED_TYPE_NAMES, value, offenders: shared.concat() }
}

/// Types with a name that an earlier type of the same crate has.
fn find_repeated_types(types: &[SourceItem<'_, TypeDefinition<'_>>]) -> Vec<String> {
    let mut names: BTreeSet<(&Path, &str)> = BTreeSet::new();
    let mut repeated = Vec::new();
    for definition in types {
        if !names.insert((&definition.file.crate_folder, definition.declaration.name)) {
            repeated.push(definition.describe());
        }
    }
    repeated
}

/// Functions close to their cap, those of trait impls among them.
fn find_long_functions(files: &[SourceFile]) -> Vec<String> {
    let functions = collect_items(files, find_functions).into_iter();
    let long = functions.filter(|function| function.declaration.length >= LONG_FUNCTION);
    let describe = |function: SourceItem<'_, Function<'_>>| {
        format!("{}: {} lines", function.describe(), function.declaration.length)
    };
    long.map(describe).collect()
}

fn find_long_files(files: &[SourceFile]) -> Vec<String> {
    let lengths = files.iter().map(|file| (file, file.text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > LONG_FILE);
    long.map(|(file, lines)| format!("{}: {lines} lines", file.path.display())).collect()
}

/// The number and the offenders that a measure has in made-up files.
#[cfg(test)]
fn measure_texts(name: &str, texts: &[(&str, &str)]) -> (u32, Vec<String>) {
    let files = texts.iter().map(|(path, text)| SourceFile::new(path, "domain/src", *text));
    let files: Vec<_> = files.collect();
    let measure = measure_names(&files).into_iter().find(|measure| measure.name == name);
    let measure = measure.expect("a measure of names");
    (measure.value, measure.offenders)
}

#[test]
fn functions_of_one_word_are_found() {
    let text = "fn told() {}\nfn new() {}\nfn load_run() {}\nimpl A for B {\n    fn at() {}\n}\n";
    let (value, offenders) = measure_texts(ONE_WORD, &[("a.rs", text)]);
    assert_eq!((value, offenders), (333, vec!["a.rs:1 told".to_owned()]));
}

#[test]
fn functions_behind_the_tests_are_not_counted() {
    let text = "fn load_run() {}\n#[cfg(test)]\nmod tests {\n    fn told() {}\n}\n";
    assert_eq!(measure_texts(ONE_WORD, &[("a.rs", text)]).0, 0);
}

#[test]
fn participles_are_found() {
    let text = "fn told() {}\nfn held() {}\nfn held_run() {}\nfn tell() {}\n";
    let (value, offenders) = measure_texts(PARTICIPLE, &[("a.rs", text)]);
    assert_eq!(value, 500);
    assert_eq!(offenders, ["a.rs:1 told", "a.rs:2 held"]);
}

#[test]
fn short_names_are_listed_before_long_ones() {
    let text = "fn load_run() {}\nfn of() {}\n";
    let (value, offenders) = measure_texts(NAME_LENGTH, &[("a.rs", text)]);
    assert_eq!((value, offenders[0].as_str()), (50, "a.rs:2 of"));
}

#[test]
fn types_that_share_a_name_are_found() {
    let texts = [("a.rs", "struct Row;\nstruct Run;\n"), ("b.rs", "enum Row {}\n")];
    let (value, offenders) = measure_texts(SHARED_TYPE_NAMES, &texts);
    assert_eq!((value, offenders.len()), (500, 2));
    assert_eq!(measure_texts(REPEATED_IN_CRATE, &texts).1, ["b.rs:1 Row"]);
    let other_crate = SourceFile::new("c.rs", "gateway/src", "struct Row;\n");
    let files = [SourceFile::new("a.rs", "domain/src", texts[0].1), other_crate];
    assert!(find_repeated_types(&collect_types(&files)).is_empty(), "crates are apart");
}

#[test]
fn doc_comments_that_say_nothing_are_found() {
    let text = "/// The run.\nstruct A;\n/// A run as the log has it.\nstruct B;\n";
    assert_eq!(measure_texts(SHORT_DOCS, &[("a.rs", text)]), (500, vec!["a.rs:1 The run.".into()]));
    let text = "/// Who asks.\nstruct A;\n/// Whoever it may be.\nstruct B;\n";
    assert_eq!(measure_texts(QUESTION_DOCS, &[("a.rs", text)]).1, ["a.rs:1 Who asks."]);
}

#[test]
fn what_is_close_to_its_cap_is_found() {
    let body = |lines: usize| format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines));
    let long = body(LONG_FUNCTION - 2);
    let offenders = measure_texts(LONG_FUNCTIONS, &[("a.rs", long.as_str())]).1;
    assert_eq!(offenders, ["a.rs:1 long: 66 lines"]);
    let short = body(LONG_FUNCTION - 3);
    assert_eq!(measure_texts(LONG_FUNCTIONS, &[("a.rs", short.as_str())]).0, 0);
    let (fits, long) = ("\n".repeat(LONG_FILE), "\n".repeat(LONG_FILE + 1));
    let texts = [("a.rs", fits.as_str()), ("b.rs", long.as_str())];
    assert_eq!(measure_texts(LONG_FILES, &texts).1, ["b.rs: 571 lines"]);
}
