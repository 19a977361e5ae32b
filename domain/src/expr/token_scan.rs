//! Scans a template's tokens: bounds the work of parsing it, and collects the names that it uses.
//!
//! The library's own lexer cuts the text, so that a string that looks like the end of a block hides
//! nothing. Parsing and compiling recurse once for each operator or bracket; a limit on them is a
//! limit on the stack.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::error::ExprError;
use super::expr_refs::ExprRefs;
use super::filters::{FILTERS, TESTS};

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
pub(super) enum SourceForm {
    Template,
    Expression,
}

/// Properties of a text that bound the work of evaluating it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TextShape {
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
pub(super) fn scan_text(text: &str, form: SourceForm) -> Result<(ExprRefs, TextShape), ExprError> {
    let mut scan = TokenScan::default();
    for token in tokenize(text, form == SourceForm::Expression, SyntaxConfig::default()) {
        let (token, span) =
            token.map_err(|error| super::template::explain_template_error(&error))?;
        scan.line = usize::from(span.start_line).max(1);
        scan.shape.tokens += 1;
        scan.scan_token(&token).map_err(|message| ExprError { message, line: Some(scan.line) })?;
    }
    scan.finish_node_ref().map_err(|message| ExprError { message, line: Some(scan.line) })?;
    Ok((scan.refs, scan.shape))
}

/// Progress through a reference to a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum NodeRefState {
    #[default]
    Nothing,
    Nodes,
    NodesDot,
    NodesBracket,
}

/// Kind of the token before the current one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum PrecedingToken {
    #[default]
    Other,
    Start,
    Dot,
    Pipe,
    Is,
}

#[derive(Default)]
struct TokenScan {
    refs: ExprRefs,
    line: usize,
    before: PrecedingToken,
    reading: NodeRefState,
    is_loop_header: bool,
    operators: usize,
    sums: usize,
    statements: usize,
    open_statements: usize,
    loops: usize,
    /// Names in the current expression.
    names: u64,
    shape: TextShape,
}

impl TokenScan {
    fn scan_token(&mut self, token: &Token<'_>) -> Result<(), String> {
        self.track_node_ref(token)?;
        let before = std::mem::take(&mut self.before);
        match token {
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => {}
            Token::VariableStart => self.begin_expression(),
            Token::BlockStart => {
                self.begin_expression();
                self.before = PrecedingToken::Start;
                self.statements += 1;
                check_limit(self.statements, STATEMENTS_LIMIT, "statements in a template")?;
            }
            Token::Ident(name) => self.check_word(name, before)?,
            // minijinja repeats text by `*`: a short template could make a value of any size.
            Token::Mul | Token::Pow => {
                return Err("templates do not multiply: use the tool math.eval".to_owned());
            }
            Token::Plus | Token::Tilde => self.count_sum()?,
            Token::Dot => self.count_operator(PrecedingToken::Dot)?,
            Token::Pipe => {
                self.shape.has_filters = true;
                self.count_operator(PrecedingToken::Pipe)?;
            }
            Token::Comma | Token::Str(_) | Token::String(_) | Token::Int(_) => {}
            _ => self.count_operator(PrecedingToken::Other)?,
        }
        Ok(())
    }

    fn begin_expression(&mut self) {
        (self.operators, self.sums, self.is_loop_header) = (0, 0, false);
        self.names = 0;
    }

    fn count_operator(&mut self, kind: PrecedingToken) -> Result<(), String> {
        self.before = kind;
        self.operators += 1;
        check_limit(self.operators, OPERATORS_LIMIT, "operators and brackets in an expression")
    }

    fn count_sum(&mut self) -> Result<(), String> {
        if self.is_loop_header {
            return Err("a loop's list cannot be put together in its header".to_owned());
        }
        self.sums += 1;
        check_limit(
            self.sums,
            SUMS_LIMIT,
            "`~` and `+` in an expression (the filter join takes any)",
        )?;
        self.count_operator(PrecedingToken::Other)
    }

    fn check_word(&mut self, name: &str, before: PrecedingToken) -> Result<(), String> {
        match before {
            PrecedingToken::Start => return self.begin_statement(name),
            PrecedingToken::Pipe => return check_known_name("filter", name, &FILTERS),
            PrecedingToken::Is if name == "not" => self.before = PrecedingToken::Is,
            PrecedingToken::Is => return check_known_name("test", name, &TESTS),
            PrecedingToken::Dot => {}
            PrecedingToken::Other if name == "is" => self.count_operator(PrecedingToken::Is)?,
            PrecedingToken::Other if OPERATOR_WORDS.contains(&name) => {
                self.count_operator(PrecedingToken::Other)?;
            }
            PrecedingToken::Other => {
                self.names += 1;
                self.shape.names = self.shape.names.max(self.names);
                self.refs.add_variable(name, self.line);
            }
        }
        Ok(())
    }

    fn begin_statement(&mut self, name: &str) -> Result<(), String> {
        check_known_name("statement", name, &STATEMENTS)?;
        match name {
            "for" => {
                self.is_loop_header = true;
                self.loops += 1;
                self.open_statements += 1;
            }
            "if" => self.open_statements += 1,
            "endfor" => {
                self.loops = self.loops.saturating_sub(1);
                self.open_statements = self.open_statements.saturating_sub(1);
            }
            "endif" => self.open_statements = self.open_statements.saturating_sub(1),
            _ => {}
        }
        check_limit(self.loops, LOOPS_LIMIT, "loops within each other")?;
        self.shape.loops = self.shape.loops.max(u32::try_from(self.loops).unwrap_or(u32::MAX));
        check_limit(self.open_statements, NESTING_LIMIT, "statements within each other")
    }

    /// Follows `nodes.NAME` and `nodes["NAME"]`, the two ways to refer to a node.
    fn track_node_ref(&mut self, token: &Token<'_>) -> Result<(), String> {
        let reading = std::mem::take(&mut self.reading);
        match (reading, token) {
            (NodeRefState::Nothing, Token::Ident("nodes"))
                if self.before == PrecedingToken::Other =>
            {
                self.reading = NodeRefState::Nodes;
            }
            (NodeRefState::Nothing, _) => {}
            (NodeRefState::Nodes, Token::Dot) => self.reading = NodeRefState::NodesDot,
            (NodeRefState::Nodes, Token::BracketOpen) => self.reading = NodeRefState::NodesBracket,
            (NodeRefState::NodesDot, Token::Ident(name)) => self.refs.add_node(name, self.line),
            (NodeRefState::NodesBracket, Token::Str(name)) => self.refs.add_node(name, self.line),
            (NodeRefState::NodesBracket, Token::String(name)) => {
                self.refs.add_node(name, self.line);
            }
            _ => return Err(NODE_BY_NAME.to_owned()),
        }
        Ok(())
    }

    fn finish_node_ref(&self) -> Result<(), String> {
        if self.reading == NodeRefState::Nothing { Ok(()) } else { Err(NODE_BY_NAME.to_owned()) }
    }
}

/// Message for a computed node name: which nodes are waited for must be known before the run.
pub(super) const NODE_BY_NAME: &str = "name the node, as `nodes.NAME.output`";

fn check_limit(count: usize, limit: usize, what: &str) -> Result<(), String> {
    if count <= limit { Ok(()) } else { Err(format!("more than {limit} {what}")) }
}

fn check_known_name(what: &str, name: &str, names: &[&str]) -> Result<(), String> {
    if names.contains(&name) {
        return Ok(());
    }
    Err(format!("there is no {what} `{name}` (known: {})", names.join(", ")))
}
