//! Which file of a crate takes something from which other one.
//!
//! A path is followed through re-exports to the file that defines what it names. A re-export is a
//! door and no arrow of its own, unless its file uses the name as well; a `mod` is none either.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkout::SourceFile;
use crate::named_paths::{FilePaths, read_paths};

/// Segments of a module's path below the crate's root.
type ModulePath<'a> = Vec<&'a str>;

/// Re-exports that a path may lead through; more can only be a loop.
const MAX_DOORS: usize = 16;

/// The files of one crate, with the arrows between them.
pub(crate) struct ModuleGraph<'a> {
    pub(crate) files: Vec<&'a SourceFile>,
    /// Modules around each file; the crate's root has none.
    pub(crate) depths: Vec<usize>,
    /// From one file to another, with the first line that names it.
    pub(crate) arrows: BTreeMap<(usize, usize), usize>,
}

/// The graph of each crate, in the order of their folders.
pub(crate) fn build_graphs(files: &[SourceFile]) -> Vec<ModuleGraph<'_>> {
    let mut crates: BTreeMap<&Path, Vec<&SourceFile>> = BTreeMap::new();
    for file in files {
        crates.entry(&file.crate_folder).or_default().push(file);
    }
    crates.into_values().map(build_graph).collect()
}

fn build_graph(files: Vec<&SourceFile>) -> ModuleGraph<'_> {
    let modules = CrateModules::read(&files);
    let depths = modules.paths.iter().map(Vec::len).collect();
    let arrows = modules.find_arrows();
    ModuleGraph { files, depths, arrows }
}

/// The files of a crate by the modules they are, and the paths that each names.
struct CrateModules<'a> {
    /// The module that each file is.
    paths: Vec<ModulePath<'a>>,
    files: BTreeMap<ModulePath<'a>, usize>,
    contents: Vec<FilePaths<'a>>,
    /// Names that each file imports from its own crate.
    bindings: Vec<BTreeMap<&'a str, ModulePath<'a>>>,
}

impl<'a> CrateModules<'a> {
    fn read(files: &[&'a SourceFile]) -> Self {
        let paths: Vec<_> = files.iter().map(|file| module_path(file)).collect();
        let mut modules = Self {
            files: paths.iter().cloned().zip(0..).collect(),
            paths,
            contents: files.iter().map(|file| read_paths(&file.text)).collect(),
            bindings: Vec::new(),
        };
        modules.bindings = (0..files.len()).map(|file| modules.bind_imports(file)).collect();
        modules
    }

    fn bind_imports(&self, file: usize) -> BTreeMap<&'a str, ModulePath<'a>> {
        let imports = self.contents[file].imports.iter();
        let bindings = imports.filter_map(|import| {
            let path = self.absolute_path(file, &import.path.segments)?;
            Some((import.name, path))
        });
        bindings.collect()
    }

    /// The path below the crate's root; none for a path into another crate.
    fn absolute_path(&self, file: usize, segments: &[&'a str]) -> Option<ModulePath<'a>> {
        let here = &self.paths[file];
        match segments {
            ["crate", rest @ ..] => Some(rest.to_vec()),
            ["self", "super", ..] => self.absolute_path(file, &segments[1..]),
            ["self", rest @ ..] => Some([here, rest].concat()),
            ["super", ..] => {
                let ups = segments.iter().take_while(|segment| **segment == "super").count();
                let above = here.len().checked_sub(ups)?;
                Some([&here[..above], &segments[ups..]].concat())
            }
            [child, ..] => {
                let is_child = self.files.contains_key(&[&here[..], &[child]].concat());
                is_child.then(|| [here, segments].concat())
            }
            [] => None,
        }
    }

    /// The path of an expression or a type, whose first segment may be an imported name.
    fn used_path(&self, file: usize, segments: &[&'a str]) -> Option<ModulePath<'a>> {
        let binding = self.bindings[file].get(segments[0]);
        let bound = binding.map(|binding| [binding, &segments[1..]].concat());
        bound.or_else(|| self.absolute_path(file, segments))
    }

    /// The file that defines what a path names; none where it names a whole module, or something
    /// in a module whose file is not looked at.
    fn defining_file(&self, mut path: ModulePath<'a>) -> Option<usize> {
        for _ in 0..MAX_DOORS {
            let (file, depth) = self.innermost_file(&path)?;
            let name = path.get(depth)?;
            let Some(binding) = self.bindings[file].get(name) else {
                return (!self.contents[file].modules.contains(name)).then_some(file);
            };
            path = [binding, &path[depth + 1..]].concat();
        }
        None
    }

    /// The file of the longest module path at the front of a path, with that length.
    fn innermost_file(&self, path: &[&'a str]) -> Option<(usize, usize)> {
        let depths = (0..=path.len()).rev();
        let mut files = depths.filter_map(|depth| Some((*self.files.get(&path[..depth])?, depth)));
        files.next()
    }

    fn find_arrows(&self) -> BTreeMap<(usize, usize), usize> {
        let mut arrows = BTreeMap::new();
        for file in 0..self.paths.len() {
            for (path, line) in self.needed_paths(file) {
                let target = self.defining_file(path).filter(|target| *target != file);
                if let Some(target) = target {
                    let first = arrows.entry((file, target)).or_insert(line);
                    *first = line.min(*first);
                }
            }
        }
        arrows
    }

    /// Paths that a file's own code depends on, each with its line.
    fn needed_paths(&self, file: usize) -> Vec<(ModulePath<'a>, usize)> {
        let contents = &self.contents[file];
        let mut needed = Vec::new();
        for import in &contents.imports {
            if !import.is_exported || contents.words.contains(import.name) {
                let path = self.absolute_path(file, &import.path.segments);
                needed.extend(path.map(|path| (path, import.path.line)));
            }
        }
        for path in &contents.paths {
            let used = self.used_path(file, &path.segments);
            needed.extend(used.map(|used| (used, path.line)));
        }
        needed
    }
}

/// The module that a file is: `run/mod.rs` is `run`, and so is `run.rs`.
fn module_path(file: &SourceFile) -> ModulePath<'_> {
    let path = file.path.strip_prefix(&file.crate_folder).unwrap_or(&file.path);
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let folders = path.parent().into_iter().flat_map(Path::iter);
    let mut segments: ModulePath<'_> = folders.filter_map(|folder| folder.to_str()).collect();
    segments.extend(stem.filter(|stem| !["mod", "lib", "main"].contains(stem)));
    segments
}

/// Arrows of a made-up crate as `from -> to`.
#[cfg(test)]
fn describe_arrows(texts: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = texts.iter().map(|(path, text)| SourceFile::new(path, "", *text)).collect();
    let graph = &build_graphs(&files)[0];
    let name = |file: usize| graph.files[file].path.display();
    graph.arrows.keys().map(|(from, to)| format!("{} -> {}", name(*from), name(*to))).collect()
}

#[test]
fn imports_are_arrows_to_the_file_that_defines_the_name() {
    let texts = [
        ("lib.rs", "pub mod run;\nmod bindings;\nmod id;\n"),
        ("id.rs", "pub struct Id;\n"),
        ("run/mod.rs", "pub mod state;\npub use state::State;\n"),
        ("run/state.rs", "use crate::id::Id;\npub struct State;\n"),
        ("view.rs", "use crate::run::{State, Id};\n"),
        ("tool.rs", "use serde::{id::Id, run};\nuse std::io;\nuse crate::bindings::Tool;\n"),
    ];
    let expected = ["run/state.rs -> id.rs", "view.rs -> run/mod.rs", "view.rs -> run/state.rs"];
    assert_eq!(describe_arrows(&texts), expected);
}

#[test]
fn paths_in_code_are_arrows_too() {
    let texts = [
        ("main.rs", "mod a;\nmod b;\nfn main() { a::begin() }\n"),
        ("a.rs", "use crate::b;\nfn begin() { b::c::end(); }\n"),
        ("b/mod.rs", "pub mod c;\n"),
        ("b/c.rs", "fn end(kind: super::Kind) {}\n"),
    ];
    let expected = ["main.rs -> a.rs", "a.rs -> b/c.rs", "b/c.rs -> b/mod.rs"];
    assert_eq!(describe_arrows(&texts), expected);
}

#[test]
fn a_reexport_is_an_arrow_where_its_file_uses_the_name() {
    let door = [("lib.rs", "mod a;\npub use a::A;\n"), ("a.rs", "struct A;\n")];
    assert!(describe_arrows(&door).is_empty());
    let user = [("lib.rs", "mod a;\npub use a::A;\nstruct B(A);\n"), ("a.rs", "struct A;\n")];
    assert_eq!(describe_arrows(&user), ["lib.rs -> a.rs"]);
}

#[test]
fn tests_and_doc_links_are_no_arrows() {
    let text =
        "/// See [`crate::b::B`].\nfn a() {}\n#[cfg(test)]\nmod tests { use crate::b::B; }\n";
    assert!(describe_arrows(&[("a.rs", text), ("b.rs", "struct B;\n")]).is_empty());
}

#[test]
fn circular_reexports_end() {
    let texts =
        [("a.rs", "pub use crate::b::X;\n"), ("b.rs", "pub use crate::a::X;\nfn f(x: X) {}\n")];
    assert!(describe_arrows(&texts).is_empty());
}
