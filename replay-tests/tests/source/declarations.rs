//! What a Rust file declares: functions, types and doc comments, read line by line.
//!
//! The source is formatted by rustfmt, so a declaration opens its line and a block closes at the
//! indentation of the line that opened it; no syntax tree is needed.

/// Words of a comment that tell which one is meant.
const LABEL_WORDS: usize = 8;

/// A function, with or without a body.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// Its place in the file, counted from one.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) length: usize,
    /// The name was chosen by the trait, not here.
    pub(crate) is_of_trait_impl: bool,
}

/// A struct, an enum or a trait.
pub(crate) struct TypeDefinition<'a> {
    pub(crate) name: &'a str,
    /// Its place in the file, counted from one.
    pub(crate) line: usize,
}

/// Neighbouring lines that open with `///`.
pub(crate) struct DocComment<'a> {
    /// The first of its lines, counted from one.
    pub(crate) line: usize,
    pub(crate) words: Vec<&'a str>,
}

/// Something that a message about the source can point at.
pub(crate) trait Declaration {
    /// Its first line, counted from one.
    fn line(&self) -> usize;

    /// Its name; of a comment how it begins.
    fn label(&self) -> String;
}

impl Declaration for Function<'_> {
    fn line(&self) -> usize {
        self.line
    }

    fn label(&self) -> String {
        self.name.to_owned()
    }
}

impl Declaration for TypeDefinition<'_> {
    fn line(&self) -> usize {
        self.line
    }

    fn label(&self) -> String {
        self.name.to_owned()
    }
}

impl Declaration for DocComment<'_> {
    fn line(&self) -> usize {
        self.line
    }

    fn label(&self) -> String {
        let shown = self.words.len().min(LABEL_WORDS);
        self.words[..shown].join(" ")
    }
}

pub(crate) fn find_functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    let mut trait_impl = None;
    for (index, line) in lines.iter().enumerate() {
        trait_impl = trait_impl_indent(line, trait_impl);
        if let Some(name) = function_name(line) {
            functions.push(Function {
                name,
                line: index + 1,
                length: function_length(&lines[index..]),
                is_of_trait_impl: trait_impl.is_some(),
            });
        }
    }
    functions
}

/// Indentation of the trait impl that is open after a line, given the one before it.
fn trait_impl_indent(line: &str, before: Option<usize>) -> Option<usize> {
    let code = line.trim_start();
    let indent = line.len() - code.len();
    let is_impl = code.strip_prefix("unsafe ").unwrap_or(code).starts_with("impl");
    if is_impl && code.split_whitespace().any(|word| word == "for") {
        return (!code.ends_with('}')).then_some(indent);
    }
    before.filter(|open| indent != *open || !code.starts_with('}'))
}

fn function_name(line: &str) -> Option<&str> {
    let mut code = after_visibility(line.trim_start());
    loop {
        let (word, rest) = code.split_once(' ')?;
        code = rest.trim_start();
        match word {
            "fn" => return leading_name(code, |letter| !letter.is_ascii_uppercase()),
            "const" | "async" | "unsafe" | "extern" | "\"C\"" => {}
            _ => return None,
        }
    }
}

/// Code behind `pub`, `pub(crate)` and the like.
fn after_visibility(code: &str) -> &str {
    let Some(rest) = code.strip_prefix("pub") else {
        return code;
    };
    let scope = rest.strip_prefix('(').and_then(|scope| scope.split_once(')'));
    scope.map_or(rest, |(_, rest)| rest).trim_start()
}

/// The name that code opens with, as far as its letters are such letters.
fn leading_name(code: &str, is_letter: fn(char) -> bool) -> Option<&str> {
    let is_in_name =
        |letter: char| (letter.is_ascii_alphanumeric() || letter == '_') && is_letter(letter);
    let length = code.find(|letter| !is_in_name(letter)).unwrap_or(code.len());
    (length > 0).then(|| &code[..length])
}

/// Lines of the function that the first line opens.
fn function_length(lines: &[&str]) -> usize {
    let Some(head) = lines.iter().position(|line| line.ends_with(';') || line.contains('{')) else {
        return lines.len();
    };
    if lines[head].ends_with([';', '}']) {
        return head + 1;
    }
    let indent = lines[0].len() - lines[0].trim_start().len();
    let closing = format!("{}}}", " ".repeat(indent));
    let body = lines[head..].iter().position(|line| *line == closing);
    head + 1 + body.unwrap_or(0)
}

pub(crate) fn find_types(text: &str) -> Vec<TypeDefinition<'_>> {
    let lines = text.lines().enumerate();
    let types = lines.filter_map(|(index, line)| {
        type_name(line).map(|name| TypeDefinition { name, line: index + 1 })
    });
    types.collect()
}

fn type_name(line: &str) -> Option<&str> {
    let (word, rest) = after_visibility(line.trim_start()).split_once(' ')?;
    let is_type = ["struct", "enum", "trait"].contains(&word);
    let name = leading_name(rest, |_| true).filter(|_| is_type)?;
    name.starts_with(|letter: char| letter.is_ascii_uppercase()).then_some(name)
}

pub(crate) fn find_doc_comments(text: &str) -> Vec<DocComment<'_>> {
    let mut comments: Vec<DocComment<'_>> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        let comment = line.trim_start().strip_prefix("///");
        if comment.is_some() && !is_open {
            comments.push(DocComment { line: index + 1, words: Vec::new() });
        }
        is_open = comment.is_some();
        if let (Some(comment), Some(last)) = (comment, comments.last_mut()) {
            last.words.extend(comment.split_whitespace());
        }
    }
    comments
}

#[test]
fn functions_are_named_under_any_qualifier() {
    assert_eq!(function_name("fn load() {"), Some("load"));
    assert_eq!(function_name("    pub(crate) const fn zero() -> Self {"), Some("zero"));
    // In two parts: the words stand in no file but the kernel's.
    let unsafe_function = ["pub async unsafe", " fn ask_2(&self) {"].concat();
    assert_eq!(function_name(&unsafe_function), Some("ask_2"));
    assert_eq!(function_name("extern \"C\" fn release(block: *mut u8) {"), Some("release"));
    assert_eq!(function_name("    let call: fn (u8) = f;"), None);
    assert_eq!(function_name("// fn gone() {"), None);
}

#[test]
fn lengths_count_from_the_signature_to_its_brace() {
    let lengths = |text: &str| find_functions(text).iter().map(|f| f.length).collect::<Vec<_>>();
    assert_eq!(lengths("fn a() {\n    b();\n}\n\nfn c() {}\n"), [3, 1]);
    assert_eq!(lengths("trait T {\n    fn a();\n    fn b() {\n        c();\n    }\n}\n"), [1, 3]);
    assert_eq!(lengths("fn a(\n    b: u8,\n) -> u8 {\n    b\n}\n"), [5]);
    assert_eq!(lengths("fn a<T>(t: T)\nwhere\n    T: Copy,\n{\n    t;\n}\n"), [6]);
}

#[test]
fn functions_of_trait_impls_are_known_as_such() {
    let text = "impl Drop for A {\n    fn drop(&mut self) {}\n}\nimpl A {\n    fn own() {}\n}\n\
                impl Copy for A {}\nfn free() {}\n";
    let names = |of_trait: bool| {
        let functions = find_functions(text).into_iter();
        let functions = functions.filter(move |function| function.is_of_trait_impl == of_trait);
        functions.map(|function| function.name).collect::<Vec<_>>()
    };
    assert_eq!(names(true), ["drop"]);
    assert_eq!(names(false), ["own", "free"]);
}

#[test]
fn types_are_structs_enums_and_traits() {
    let text = "pub struct A;\n    enum B<T> {}\npub(crate) trait C: Copy {}\ntype D = A;\n";
    let types = find_types(text);
    let types: Vec<_> = types.iter().map(|definition| (definition.name, definition.line)).collect();
    assert_eq!(types, [("A", 1), ("B", 2), ("C", 3)]);
}

#[test]
fn doc_comments_are_read_as_blocks() {
    let comments =
        find_doc_comments("/// One\n/// two.\nstruct A {\n    /// Three.\n    b: u8,\n}\n");
    let comments: Vec<_> =
        comments.iter().map(|comment| (comment.line, &comment.words[..])).collect();
    assert_eq!(comments, [(1, &["One", "two."][..]), (4, &["Three."][..])]);
}
