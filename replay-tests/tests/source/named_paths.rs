//! The paths that a file's production code names, in imports and anywhere else.

use std::collections::BTreeSet;

use crate::tokens::{Token, production_tokens};

/// Segments joined by `::`, at least two where it is no import.
pub(crate) struct NamedPath<'a> {
    pub(crate) segments: Vec<&'a str>,
    /// Its place in the file, counted from one.
    pub(crate) line: usize,
}

/// One name that a `use` brings into the file.
pub(crate) struct Import<'a> {
    pub(crate) path: NamedPath<'a>,
    /// As the file calls it.
    pub(crate) name: &'a str,
    /// Others can import it from here.
    pub(crate) is_exported: bool,
}

/// All that a file names.
#[derive(Default)]
pub(crate) struct FilePaths<'a> {
    pub(crate) imports: Vec<Import<'a>>,
    /// Paths outside imports, such as `crate::run::begin` in a call.
    pub(crate) paths: Vec<NamedPath<'a>>,
    /// Modules that the file declares with `mod`.
    pub(crate) modules: BTreeSet<&'a str>,
    /// Words outside imports and module declarations.
    pub(crate) words: BTreeSet<&'a str>,
}

pub(crate) fn read_paths(text: &str) -> FilePaths<'_> {
    let tokens = production_tokens(text);
    let mut reader = PathReader { tokens: &tokens, next: 0, file: FilePaths::default() };
    while let Some(token) = reader.peek() {
        match token.text {
            "use" => reader.read_use(),
            "mod" => reader.read_module(),
            "::" => reader.next += 1 + usize::from(reader.is_word_at(reader.next + 1)),
            _ if token.is_word() => reader.read_path(),
            _ => reader.next += 1,
        }
    }
    reader.file
}

/// Goes through the tokens of a file once.
struct PathReader<'a, 't> {
    tokens: &'t [Token<'a>],
    next: usize,
    file: FilePaths<'a>,
}

impl<'a> PathReader<'a, '_> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn is_word_at(&self, index: usize) -> bool {
        self.tokens.get(index).is_some_and(Token::is_word)
    }

    /// Steps over a token if it is the next one.
    fn skip(&mut self, text: &str) -> bool {
        let is_next = self.peek().is_some_and(|token| token.text == text);
        self.next += usize::from(is_next);
        is_next
    }

    fn read_module(&mut self) {
        self.next += 1;
        self.file.modules.extend(self.peek().map(|name| name.text));
        self.next += 1;
    }

    /// A path outside imports; a word on its own is only noted.
    fn read_path(&mut self) {
        let Some(first) = self.peek() else { return };
        let mut segments = vec![first.text];
        self.next += 1;
        while self.skip("::") && self.is_word_at(self.next) {
            segments.push(self.tokens[self.next].text);
            self.next += 1;
        }
        self.file.words.insert(first.text);
        if segments.len() > 1 {
            self.file.paths.push(NamedPath { segments, line: first.line });
        }
    }

    /// An import; `use<'a>` in a type is none.
    fn read_use(&mut self) {
        let before = self.next.checked_sub(1).map(|index| self.tokens[index].text);
        let is_exported = matches!(before, Some("pub" | ")"));
        self.next += 1;
        if !self.skip("<") {
            self.read_tree(&[], is_exported);
        }
    }

    /// The part of an import behind a common prefix.
    fn read_tree(&mut self, prefix: &[&'a str], is_exported: bool) {
        let mut segments = prefix.to_vec();
        while let Some(token) = self.peek() {
            self.next += 1;
            match token.text {
                "::" => {}
                "{" => return self.read_branches(&segments, is_exported),
                _ => segments.push(token.text),
            }
            if token.text != "::" && self.peek().is_none_or(|next| next.text != "::") {
                return self.add_import(segments, token, is_exported);
            }
        }
    }

    fn read_branches(&mut self, prefix: &[&'a str], is_exported: bool) {
        while self.peek().is_some() && !self.skip("}") {
            if !self.skip(",") {
                self.read_tree(prefix, is_exported);
            }
        }
    }

    fn add_import(&mut self, mut segments: Vec<&'a str>, last: Token<'a>, is_exported: bool) {
        if last.text == "self" {
            segments.pop();
        }
        let mut name = segments.last().copied().unwrap_or_default();
        if self.skip("as") {
            name = self.peek().map_or(name, |alias| alias.text);
            self.next += 1;
        }
        let path = NamedPath { segments, line: last.line };
        self.file.imports.push(Import { path, name, is_exported });
    }
}

#[cfg(test)]
fn describe_imports(code: &str) -> Vec<String> {
    let imports = read_paths(code).imports.into_iter();
    let describe = |import: Import<'_>| {
        let mark = if import.is_exported { "pub " } else { "" };
        format!("{mark}{} = {}", import.name, import.path.segments.join("::"))
    };
    imports.map(describe).collect()
}

#[test]
fn imports_are_read_with_their_braces() {
    let code =
        "use crate::a::{b::{C, D as E}, f, self};\npub(crate) use super::g;\nuse std::fmt;\n";
    let expected = [
        "C = crate::a::b::C",
        "E = crate::a::b::D",
        "f = crate::a::f",
        "a = crate::a",
        "pub g = super::g",
        "fmt = std::fmt",
    ];
    assert_eq!(describe_imports(code), expected);
}

#[test]
fn unusual_imports_do_not_disturb_the_next_ones() {
    let code = "use ::std::{fmt, io::{Read,},};\nfn a() -> impl B + use<'_> {}\n\
                pub use c::{*};\nuse d::E as _;\n";
    let expected = ["fmt = std::fmt", "Read = std::io::Read", "pub * = c::*", "_ = d::E"];
    assert_eq!(describe_imports(code), expected);
}

#[test]
fn paths_outside_imports_are_read() {
    let code = "mod z;\nuse a::b;\nfn f(c: crate::d::E) {\n    \
                b::g::<u8>(c.h::<i8>()) + <I as J>::k;\n}\n";
    let file = read_paths(code);
    let paths: Vec<_> =
        file.paths.iter().map(|path| (path.segments.join("::"), path.line)).collect();
    assert_eq!(paths, [("crate::d::E".to_owned(), 3), ("b::g".to_owned(), 4)]);
    assert!(file.words.contains("I") && !file.words.contains("z"), "a declaration is no use");
    assert!(file.modules.contains("z"));
}
