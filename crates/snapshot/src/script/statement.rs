//! One statement of a dump, taken apart far enough to know what it is about.

use super::lexer::{Kind, Lexer, Token};
use super::split::{Piece, split};

/// How much of a statement a message shows, in characters.
const SUMMARY_CHARACTERS: usize = 140;

/// The significant tokens of a statement.
pub(super) struct Statement<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    text: &'a str,
}

impl<'a> Statement<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { tokens: Lexer::new(text).filter(Token::is_significant).collect(), text }
    }

    /// The statement from its first to its last significant character.
    pub(super) fn body(&self) -> &'a str {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => &self.text[first.start..last.start + last.text.len()],
            _ => "",
        }
    }

    /// Where the body begins in the script's piece, in bytes: subtract it from a token's start.
    pub(super) fn start(&self) -> usize {
        self.tokens.first().map_or(0, |token| token.start)
    }

    /// Whether it begins with these keywords.
    pub(super) fn begins(&self, keywords: &[&str]) -> bool {
        self.tokens.len() >= keywords.len()
            && keywords.iter().zip(&self.tokens).all(|(keyword, token)| token.is(keyword))
    }

    /// Where these keywords stand next to each other, outside of parentheses: the index of the token behind them.
    pub(super) fn after(&self, keywords: &[&str]) -> Option<usize> {
        let mut depth = 0_usize;
        for (at, token) in self.tokens.iter().enumerate() {
            if token.is_symbol('(') {
                depth += 1;
            } else if token.is_symbol(')') {
                depth = depth.saturating_sub(1);
            }
            let rest = &self.tokens[at..];
            let here = rest.len() >= keywords.len() && keywords.iter().zip(rest).all(|(k, t)| t.is(k));
            if depth == 0 && here {
                return Some(at + keywords.len());
            }
        }
        None
    }

    /// The name that the token at this index stands for.
    pub(super) fn name(&self, index: usize) -> Option<String> {
        self.tokens.get(index)?.name()
    }

    /// The last name outside of parentheses that follows these keywords, up to the end: `… OWNER TO name;`.
    pub(super) fn last_after(&self, keywords: &[&str]) -> Option<String> {
        let width = keywords.len();
        let at = (width..self.tokens.len())
            .rev()
            .find(|at| keywords.iter().zip(&self.tokens[at - width..*at]).all(|(k, t)| t.is(k)))?;
        self.name(at)
    }
}

/// The beginning of a statement on one line, to name it in a message: without comments, and cut where options
/// begin, because those of a user mapping hold passwords.
#[must_use]
pub fn summary(statement: &str) -> String {
    // What it is about comes behind the SET statements that go with it.
    let pieces = split(statement);
    let is_setting = |piece: &&Piece<'_>| Statement::new(piece.text()).begins(&["set"]);
    let statement = pieces.iter().find(|piece| !is_setting(piece)).map_or(statement, Piece::text);
    let mut line = String::new();
    let mut space = false;
    for token in Lexer::new(statement) {
        match token.kind {
            Kind::Space | Kind::Comment => space = true,
            _ if token.is_symbol(';') => break,
            _ if token.is("options") || token.is("connection") => {
                line.push_str(" …");
                break;
            }
            _ => {
                if std::mem::take(&mut space) && !line.is_empty() {
                    line.push(' ');
                }
                line.extend(token.text.chars().map(|c| if c.is_control() { ' ' } else { c }));
            }
        }
    }
    match line.char_indices().nth(SUMMARY_CHARACTERS) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line,
    }
}

/// A statement that adds a foreign key, put so that the rows there are need not satisfy it; `None` for any other.
#[must_use]
pub fn not_valid(statement: &str) -> Option<String> {
    let parsed = Statement::new(statement);
    // Behind SET LOCAL statements, perhaps.
    let foreign_key =
        parsed.after(&["foreign", "key"]).is_some() && parsed.after(&["add", "constraint"]).is_some();
    let checked = parsed.after(&["not", "valid"]).is_none();
    let body = parsed.body().trim_end_matches(';');
    (foreign_key && checked).then(|| format!("{body} NOT VALID;"))
}
