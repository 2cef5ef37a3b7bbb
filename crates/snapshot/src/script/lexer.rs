//! Tokens of an SQL script: just exact enough that no semicolon, quote or keyword is taken for what it is not
//! (manual, *Lexical Structure*; `parser/scan.l` and psql's `psqlscan.l`). Knows no statements.
//!
//! The scanner assumes `standard_conforming_strings = on`, which the dump is made with.

/// What a stretch of the script is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space.
    Space,
    /// `-- …` up to the end of the line, or `/* … */` with what is nested in it.
    Comment,
    /// `'…'`, `E'…'`, or `$tag$…$tag$`.
    Text,
    /// `"…"`.
    Quoted,
    /// A keyword, an identifier without quotes, or a number.
    Word,
    /// Any other single character.
    Symbol,
}

/// A stretch of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Exactly as it stands there.
    pub(crate) text: &'a str,
    /// Where it begins, in bytes from the start of the script.
    pub(crate) start: usize,
}

impl Token<'_> {
    /// Whether it is this keyword (given in any case), without quotes.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is this character.
    pub(crate) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == Kind::Symbol && self.text.starts_with(symbol)
    }

    /// Whether it is neither white space nor a comment.
    pub(crate) fn is_significant(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Comment)
    }

    /// The name that it stands for: what is inside the quotes, or the word folded to lower case.
    pub(crate) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_ascii_lowercase()),
            Kind::Quoted => {
                let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
                Some(inner.replace("\"\"", "\""))
            }
            _ => None,
        }
    }
}

/// Cuts a script into tokens. Their texts, put together, are the script.
pub(crate) struct Lexer<'a> {
    script: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(script: &'a str) -> Self {
        Self { script, at: 0 }
    }

    /// Goes on behind the end of the present line, and says where that is.
    pub(crate) fn skip_line(&mut self) -> usize {
        let rest = &self.script[self.at..];
        self.at += rest.find('\n').map_or(rest.len(), |end| end + 1);
        self.at
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = &self.script[self.at..];
        let (kind, length) = scan(rest)?;
        let token = Token { kind, text: &rest[..length], start: self.at };
        self.at += length;
        Some(token)
    }
}

/// The kind and the length in bytes of the first token.
fn scan(rest: &str) -> Option<(Kind, usize)> {
    let first = rest.chars().next()?;
    let second = rest[first.len_utf8()..].chars().next();
    Some(match (first, second) {
        (c, _) if is_space(c) => (Kind::Space, span(rest, is_space)),
        ('-', Some('-')) => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
        ('/', Some('*')) => (Kind::Comment, block_comment(rest)),
        ('\'', _) => (Kind::Text, quoted(rest, '\'', false)),
        ('"', _) => (Kind::Quoted, quoted(rest, '"', false)),
        ('e' | 'E', Some('\'')) => (Kind::Text, escaped(rest)),
        ('$', _) => match dollar_quoted(rest) {
            Some(length) => (Kind::Text, length),
            None => (Kind::Symbol, 1),
        },
        (c, _) if is_word_start(c) || c.is_ascii_digit() => (Kind::Word, span(rest, is_word_part)),
        (c, _) => (Kind::Symbol, c.len_utf8()),
    })
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_word_part(c: char) -> bool {
    is_word_start(c) || c.is_ascii_digit() || c == '$'
}

fn span(text: &str, belongs: fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// The length of a comment that begins here; comments nest.
fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of a quoted text that begins here; a doubled quote stands for one.
fn quoted(text: &str, quote: char, backslash_escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if backslash_escapes && c == '\\' {
            characters.next();
        } else if c == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// The length of an `E'…'` with the strings that continue it: `E'a'` and, on a later line, `'b'` are one, and
/// a backslash means the same in both.
fn escaped(text: &str) -> usize {
    let mut at = 1 + quoted(&text[1..], '\'', true);
    while let Some(next) = continuation(&text[at..]) {
        at += next;
        at += quoted(&text[at..], '\'', true);
    }
    at
}

/// How far away the next quote is, when only white space with a line's end, or comments, come before it.
fn continuation(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        match scan(&text[at..])? {
            (Kind::Space, length) => at += length,
            (Kind::Comment, length) if text[at..].starts_with("--") => at += length,
            _ => break,
        }
    }
    (text[at..].starts_with('\'') && text[..at].contains(['\n', '\r'])).then_some(at)
}

/// The length of a `$tag$…$tag$`, when one begins here.
fn dollar_quoted(text: &str) -> Option<usize> {
    let inner = &text[1..];
    let tag = inner.find('$')?;
    let name = &inner[..tag];
    let valid = name.is_empty()
        || (name.starts_with(is_word_start) && name.chars().all(|c| is_word_part(c) && c != '$'));
    if !valid {
        return None;
    }
    let delimiter = &text[..tag + 2];
    let body = &text[delimiter.len()..];
    Some(body.find(delimiter).map_or(text.len(), |end| delimiter.len() + end + delimiter.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn significant(script: &str) -> Vec<&str> {
        Lexer::new(script).filter(Token::is_significant).map(|token| token.text).collect()
    }

    #[test]
    fn quotes_of_every_kind_hold_together() {
        let one = [
            "'a;b''c'",
            r"E'a\';b'",
            r"e'\\'",
            "\"a;\"\"b\"",
            "$$ ; $ ' $$",
            "$tag$ $$ ; $other$ $tag$",
            "$ß_1$;$ß_1$",
            r"'\'",
            "E'a'\n  -- more\n 'b\\';c'",
        ];
        for text in one {
            assert_eq!(significant(text), [text]);
        }
    }

    #[test]
    fn what_looks_like_a_quote_is_none() {
        assert_eq!(significant("a$b$c"), ["a$b$c"]);
        assert_eq!(significant("$1 + $2"), ["$", "1", "+", "$", "2"]);
        assert_eq!(significant("E'a' 'b'"), ["E'a'", "'b'"]);
        assert_eq!(significant("a -- 'x\n b"), ["a", "b"]);
        assert_eq!(significant("a /* ' /* \" */ ; */ b"), ["a", "b"]);
        assert_eq!(significant("a - - b / * c"), ["a", "-", "-", "b", "/", "*", "c"]);
    }

    #[test]
    fn names_are_folded_unless_quoted() {
        let names: Vec<_> = Lexer::new("Abc\"A\"\"b\"").map(|token| token.name()).collect();
        assert_eq!(names, [Some("abc".to_owned()), Some("A\"b".to_owned())]);
    }
}
