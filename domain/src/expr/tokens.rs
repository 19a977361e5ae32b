//! Scans a template's tokens: bounds the work of parsing it, and collects the names that it uses.
//!
//! The library's own lexer cuts the text, so that a string that looks like the end of a block hides
//! nothing. Parsing and compiling recurse once for each operator or bracket; a limit on them is a
//! limit on the stack.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::filters::{FILTERS, TESTS};
use super::{ExprError, Refs};

/// Most operators, brackets and dots of one expression.
const OPERATORS_LIMIT: usize = 256;
/// Most texts or numbers that one expression joins by `~` or `+`.
const SUMS_LIMIT: usize = 32;
/// Most statements of one template.
const STATEMENTS_LIMIT: usize = 512;
/// Most levels of nested statements.
const NESTING_LIMIT: usize = 16;
/// Most levels of nested loops.
const LOOPS_LIMIT: usize = 3;
/// Statements that templates may use. `set` is not one: a value that grows with each statement
/// would have no bound.
const STATEMENTS: [&str; 8] = ["if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"];
const OPERATOR_WORDS: [&str; 7] = ["not", "and", "or", "in", "is", "if", "else"];

/// A template, or an expression by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Template,
    Expression,
}

/// Properties of a text that bound the work of evaluating it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Number of tokens, each of which compiles to an instruction or two.
    pub(super) tokens: u64,
    /// Most names in one expression; each may stand for all values there are.
    pub(super) names: u64,
    /// Deepest nesting of loops.
    pub(super) loops: u32,
    /// True if the text applies filters.
    pub(super) has_filters: bool,
}

/// Scans a text's tokens, and refuses what could exhaust its parser or its evaluation.
///
/// # Errors
/// The first token that is not allowed, with its line.
pub(super) fn scan(text: &str, form: Form) -> Result<(Refs, Shape), ExprError> {
    let mut scan = Scan::default();
    for token in tokenize(text, form == Form::Expression, SyntaxConfig::default()) {
        let (token, span) = token.map_err(|error| super::template::explain(&error))?;
        scan.line = usize::from(span.start_line).max(1);
        scan.shape.tokens += 1;
        scan.take(&token).map_err(|message| ExprError { message, line: Some(scan.line) })?;
    }
    scan.end_of_nodes().map_err(|message| ExprError { message, line: Some(scan.line) })?;
    Ok((scan.refs, scan.shape))
}

/// Progress through a reference to a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Nothing,
    Nodes,
    NodesDot,
    NodesBracket,
}

/// Kind of the token before the current one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Other,
    Start,
    Dot,
    Pipe,
    Is,
}

#[derive(Default)]
struct Scan {
    refs: Refs,
    line: usize,
    before: Before,
    reading: Reading,
    is_loop_header: bool,
    operators: usize,
    sums: usize,
    statements: usize,
    open: usize,
    loops: usize,
    /// Names in the current expression.
    names: u64,
    shape: Shape,
}

impl Scan {
    fn take(&mut self, token: &Token<'_>) -> Result<(), String> {
        self.reference(token)?;
        let before = std::mem::take(&mut self.before);
        match token {
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => {}
            Token::VariableStart => self.begin_expression(),
            Token::BlockStart => {
                self.begin_expression();
                self.before = Before::Start;
                self.statements += 1;
                at_most(self.statements, STATEMENTS_LIMIT, "statements in a template")?;
            }
            Token::Ident(name) => self.word(name, before)?,
            // minijinja repeats text by `*`: a short template could make a value of any size.
            Token::Mul | Token::Pow => {
                return Err("templates do not multiply: use the tool math.eval".to_owned());
            }
            Token::Plus | Token::Tilde => self.sum()?,
            Token::Dot => self.operator(Before::Dot)?,
            Token::Pipe => {
                self.shape.has_filters = true;
                self.operator(Before::Pipe)?;
            }
            Token::Comma | Token::Str(_) | Token::String(_) | Token::Int(_) => {}
            _ => self.operator(Before::Other)?,
        }
        Ok(())
    }

    fn begin_expression(&mut self) {
        (self.operators, self.sums, self.is_loop_header) = (0, 0, false);
        self.names = 0;
    }

    fn operator(&mut self, kind: Before) -> Result<(), String> {
        self.before = kind;
        self.operators += 1;
        at_most(self.operators, OPERATORS_LIMIT, "operators and brackets in an expression")
    }

    fn sum(&mut self) -> Result<(), String> {
        if self.is_loop_header {
            return Err("a loop's list cannot be put together in its header".to_owned());
        }
        self.sums += 1;
        at_most(self.sums, SUMS_LIMIT, "`~` and `+` in an expression (the filter join takes any)")?;
        self.operator(Before::Other)
    }

    fn word(&mut self, name: &str, before: Before) -> Result<(), String> {
        match before {
            Before::Start => return self.statement(name),
            Before::Pipe => return known("filter", name, &FILTERS),
            Before::Is if name == "not" => self.before = Before::Is,
            Before::Is => return known("test", name, &TESTS),
            Before::Dot => {}
            Before::Other if name == "is" => self.operator(Before::Is)?,
            Before::Other if OPERATOR_WORDS.contains(&name) => self.operator(Before::Other)?,
            Before::Other => {
                self.names += 1;
                self.shape.names = self.shape.names.max(self.names);
                self.refs.variable(name, self.line);
            }
        }
        Ok(())
    }

    fn statement(&mut self, name: &str) -> Result<(), String> {
        known("statement", name, &STATEMENTS)?;
        match name {
            "for" => {
                self.is_loop_header = true;
                self.loops += 1;
                self.open += 1;
            }
            "if" => self.open += 1,
            "endfor" => {
                self.loops = self.loops.saturating_sub(1);
                self.open = self.open.saturating_sub(1);
            }
            "endif" => self.open = self.open.saturating_sub(1),
            _ => {}
        }
        at_most(self.loops, LOOPS_LIMIT, "loops within each other")?;
        self.shape.loops = self.shape.loops.max(u32::try_from(self.loops).unwrap_or(u32::MAX));
        at_most(self.open, NESTING_LIMIT, "statements within each other")
    }

    /// Follows `nodes.NAME` and `nodes["NAME"]`, the two ways to refer to a node.
    fn reference(&mut self, token: &Token<'_>) -> Result<(), String> {
        let reading = std::mem::take(&mut self.reading);
        match (reading, token) {
            (Reading::Nothing, Token::Ident("nodes")) if self.before == Before::Other => {
                self.reading = Reading::Nodes;
            }
            (Reading::Nothing, _) => {}
            (Reading::Nodes, Token::Dot) => self.reading = Reading::NodesDot,
            (Reading::Nodes, Token::BracketOpen) => self.reading = Reading::NodesBracket,
            (Reading::NodesDot, Token::Ident(name)) => self.refs.node(name, self.line),
            (Reading::NodesBracket, Token::Str(name)) => self.refs.node(name, self.line),
            (Reading::NodesBracket, Token::String(name)) => self.refs.node(name, self.line),
            _ => return Err(NODE_BY_NAME.to_owned()),
        }
        Ok(())
    }

    fn end_of_nodes(&self) -> Result<(), String> {
        if self.reading == Reading::Nothing { Ok(()) } else { Err(NODE_BY_NAME.to_owned()) }
    }
}

/// Message for a computed node name: which nodes are waited for must be known before the run.
pub(super) const NODE_BY_NAME: &str = "name the node, as `nodes.NAME.output`";

fn at_most(count: usize, limit: usize, what: &str) -> Result<(), String> {
    if count <= limit { Ok(()) } else { Err(format!("more than {limit} {what}")) }
}

fn known(what: &str, name: &str, names: &[&str]) -> Result<(), String> {
    if names.contains(&name) {
        return Ok(());
    }
    Err(format!("there is no {what} `{name}` (known: {})", names.join(", ")))
}
