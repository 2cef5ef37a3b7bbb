//! A script as statements: where each of them ends. Knows the few places where a semicolon does not end one.

use super::lexer::{Kind, Lexer, Token};

/// A piece of a script. The texts of all pieces, put together, are the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A statement, with the white space and comments before it and the semicolon that ends it.
    Statement(&'a str),
    /// A line for psql (`\restrict …`), with the white space and comments before it.
    Meta(&'a str),
    /// White space and comments behind the last statement.
    Blank(&'a str),
}

impl<'a> Piece<'a> {
    /// Exactly what stands in the script.
    pub fn text(&self) -> &'a str {
        match self {
            Self::Statement(text) | Self::Meta(text) | Self::Blank(text) => text,
        }
    }
}

/// Splits a script, as psql does, into statements and lines for psql.
///
/// A semicolon ends a statement unless it stands in quotes, in a comment, in parentheses (`CREATE RULE … DO
/// (…; …)`), or in the `BEGIN ATOMIC … END` body of a function. Never fails: what is not closed extends to the
/// end.
pub fn split(script: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut lexer = Lexer::new(script);
    let mut start = 0;
    let mut statement = Open::default();
    while let Some(token) = lexer.next() {
        if statement.is_empty() && token.is_symbol('\\') {
            let end = lexer.skip_line();
            pieces.push(Piece::Meta(&script[start..end]));
            start = end;
        } else if statement.ends_with(&token) {
            let end = token.start + token.text.len();
            pieces.push(Piece::Statement(&script[start..end]));
            start = end;
            statement = Open::default();
        }
    }
    let rest = &script[start..];
    if !statement.is_empty() {
        pieces.push(Piece::Statement(rest));
    } else if !rest.is_empty() {
        pieces.push(Piece::Blank(rest));
    }
    pieces
}

/// What is known of the statement that has not ended yet.
#[derive(Default)]
struct Open {
    head: Head,
    parentheses: usize,
    /// `BEGIN` was the last token: `ATOMIC` may follow.
    begin: bool,
    /// In how many of `BEGIN ATOMIC … END` and `CASE … END` we are.
    blocks: usize,
}

/// What the first words say of a statement.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Nothing yet.
    #[default]
    Nothing,
    /// `CREATE`, or `CREATE OR REPLACE`.
    Create,
    /// That, and `FUNCTION` or `PROCEDURE`: only these have a body that is SQL.
    Routine,
    /// Anything else.
    Other,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.head == Head::Nothing
    }

    /// Takes the next token, and says whether it ends the statement.
    fn ends_with(&mut self, token: &Token<'_>) -> bool {
        if !token.is_significant() {
            return false;
        }
        let after_begin = std::mem::replace(&mut self.begin, token.is("begin"));
        match token.kind {
            Kind::Symbol if token.is_symbol('(') => self.parentheses += 1,
            Kind::Symbol if token.is_symbol(')') => self.parentheses = self.parentheses.saturating_sub(1),
            Kind::Symbol if token.is_symbol(';') && self.parentheses == 0 && self.blocks == 0 => return true,
            Kind::Word if self.head == Head::Routine => self.word(token, after_begin),
            _ => {}
        }
        self.head = match self.head {
            Head::Nothing if token.is("create") => Head::Create,
            Head::Create if token.is("or") || token.is("replace") => Head::Create,
            Head::Create if token.is("function") || token.is("procedure") => Head::Routine,
            Head::Routine => Head::Routine,
            Head::Nothing | Head::Create | Head::Other => Head::Other,
        };
        false
    }

    fn word(&mut self, token: &Token<'_>, after_begin: bool) {
        let opens_body = self.blocks == 0 && after_begin && token.is("atomic");
        let opens_case = self.blocks > 0 && token.is("case");
        if opens_body || opens_case {
            self.blocks += 1;
        } else if self.blocks > 0 && token.is("end") {
            self.blocks -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(script: &str) -> Vec<&str> {
        let pieces = split(script);
        assert_eq!(pieces.iter().map(Piece::text).collect::<String>(), script);
        pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Statement(text) => Some(text.trim()),
                Piece::Meta(_) | Piece::Blank(_) => None,
            })
            .collect()
    }

    #[test]
    fn semicolons_end_statements_only_outside_of_everything() {
        assert_eq!(statements("a; b ; c"), ["a;", "b ;", "c"]);
        assert_eq!(statements("select ';'; select \";\"; select $$;$$; -- ;\n/* ; */ x;").len(), 4);
        assert_eq!(statements("create rule r as on insert to t do (select 1; select 2); y;").len(), 2);
        assert_eq!(statements(" -- nothing; \n /* ; */ "), [""; 0]);
    }

    #[test]
    fn sql_bodies_keep_their_semicolons() {
        let body = "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql\n BEGIN ATOMIC\n SELECT CASE a WHEN 1 THEN (CASE \
                    WHEN true THEN 2 END) END; SELECT 1;\n END;";
        for head in ["CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", "create or replace procedure"] {
            let text = body.replace("CREATE FUNCTION", head);
            assert_eq!(statements(&format!("{text}\n\nALTER TABLE x;")), [&text, "ALTER TABLE x;"]);
        }
        // Names that happen to be keywords of a body.
        assert_eq!(statements("CREATE FUNCTION begin(atomic int) RETURNS int AS 'x'; a;").len(), 2);
        assert_eq!(statements("BEGIN ATOMIC; a;").len(), 2);
        assert_eq!(statements("CREATE TABLE function (begin int, atomic int); a;").len(), 2);
    }

    #[test]
    fn lines_for_psql_are_told_from_statements() {
        let script = "-- x\n\\restrict a'b\nSELECT 1 \\ 2;\n  \\unrestrict a'b";
        let kinds = split(script);
        assert!(matches!(kinds[..], [Piece::Meta(_), Piece::Statement(_), Piece::Meta(_)]), "{kinds:?}");
    }
}
