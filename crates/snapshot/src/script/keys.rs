//! Primary keys and unique constraints in two statements: the index, which takes long and can be built beside other
//! indexes of the same table, and the constraint that takes it over, which takes a moment. Knows the statements as
//! `pg_dump` writes them; what it is not sure of stays one statement.

use super::statement::Statement;

/// A constraint and its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyParts {
    /// `CREATE UNIQUE INDEX …`.
    pub index: String,
    /// `ALTER TABLE … ADD CONSTRAINT … USING INDEX …`.
    pub constraint: String,
}

/// `ALTER TABLE ONLY schema.table ADD CONSTRAINT name PRIMARY KEY | UNIQUE (columns) [INCLUDE (columns)] [WITH (…)]
/// [DEFERRABLE [INITIALLY DEFERRED]];` as an index and a constraint; `None` for anything else, also for NULLS NOT DISTINCT
/// and WITHOUT OVERLAPS. Together they make what the statement makes, unless the table is partitioned: then
/// a constraint cannot take an index over (manual, *ALTER TABLE*).
#[must_use]
pub fn key_parts(statement: &str) -> Option<KeyParts> {
    let statement = Statement::new(statement);
    let mut at = Cursor { statement: &statement, at: 0 };
    at.keywords(&["alter", "table"])?;
    let _ = at.keywords(&["only"]);
    let table = at.text(3).filter(|_| statement.tokens.get(at.at - 2).is_some_and(|t| t.is_symbol('.')))?;
    at.keywords(&["add", "constraint"])?;
    let name = at.text(1)?;
    let kind = match at.keywords(&["primary", "key"]) {
        Some(()) => "PRIMARY KEY",
        None => at.keywords(&["unique"]).map(|()| "UNIQUE")?,
    };
    let columns = at.parentheses()?;
    let mut more = String::new();
    for keyword in ["INCLUDE", "WITH"] {
        if at.keywords(&[&keyword.to_ascii_lowercase()]).is_some() {
            more.push_str(&format!(" {keyword} {}", at.parentheses()?));
        }
    }
    let mut deferrable = String::new();
    if at.keywords(&["deferrable"]).is_some() {
        deferrable.push_str(" DEFERRABLE");
        if at.keywords(&["initially", "deferred"]).is_some() {
            deferrable.push_str(" INITIALLY DEFERRED");
        }
    }
    let ends = statement.tokens.get(at.at).is_some_and(|token| token.is_symbol(';'));
    (ends && at.at + 1 == statement.tokens.len()).then(|| KeyParts {
        index: format!("CREATE UNIQUE INDEX {name} ON {table} USING btree {columns}{more};"),
        constraint: format!(
            "ALTER TABLE ONLY {table}\n    ADD CONSTRAINT {name} {kind} USING INDEX {name}{deferrable};"
        ),
    })
}

/// A place among the tokens of a statement.
struct Cursor<'s, 'a> {
    statement: &'s Statement<'a>,
    at: usize,
}

impl<'a> Cursor<'_, 'a> {
    /// Goes past these keywords, if they come next.
    fn keywords(&mut self, expected: &[&str]) -> Option<()> {
        let next = self.statement.tokens.get(self.at..self.at + expected.len())?;
        let found = expected.iter().zip(next).all(|(keyword, token)| token.is(keyword));
        found.then(|| self.at += expected.len())
    }

    /// The text of so many tokens that come next.
    fn text(&mut self, count: usize) -> Option<&'a str> {
        let (first, last) =
            (self.statement.tokens.get(self.at)?, self.statement.tokens.get(self.at + count - 1)?);
        self.at += count;
        let offset = self.statement.start();
        Some(&self.statement.body()[first.start - offset..last.start + last.text.len() - offset])
    }

    /// What stands in parentheses next, with these. Column names and options: none holds parentheses of its own.
    fn parentheses(&mut self) -> Option<&'a str> {
        let next = self.statement.tokens.get(self.at..)?;
        if !next.first()?.is_symbol('(') {
            return None;
        }
        let end = next.iter().position(|token| token.is_symbol(')'))?;
        let inner = &next[1..end];
        let simple = !inner.iter().any(|token| token.is_symbol('(') || token.is("without"));
        if simple { self.text(end + 1) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(statement: &str) -> Option<(String, String)> {
        key_parts(statement).map(|parts| (parts.index, parts.constraint))
    }

    #[test]
    fn a_key_is_an_index_and_a_constraint_that_takes_it_over() {
        let statement = "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a, \"B c\");";
        let (index, constraint) = parts(statement).unwrap();
        assert_eq!(index, "CREATE UNIQUE INDEX t_pkey ON public.t USING btree (a, \"B c\");");
        assert_eq!(
            constraint,
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY USING INDEX t_pkey;"
        );
        let statement = "ALTER TABLE ONLY \"S.\".\"t;(\"\n    ADD CONSTRAINT \"u)\" UNIQUE (a) INCLUDE (b, c) \
                         WITH (fillfactor='70', deduplicate_items='off') DEFERRABLE INITIALLY DEFERRED;";
        let (index, constraint) = parts(statement).unwrap();
        assert_eq!(
            index,
            "CREATE UNIQUE INDEX \"u)\" ON \"S.\".\"t;(\" USING btree (a) INCLUDE (b, c) \
             WITH (fillfactor='70', deduplicate_items='off');"
        );
        assert_eq!(
            constraint,
            "ALTER TABLE ONLY \"S.\".\"t;(\"\n    ADD CONSTRAINT \"u)\" UNIQUE USING INDEX \"u)\" \
             DEFERRABLE INITIALLY DEFERRED;"
        );
    }

    #[test]
    fn whatever_is_not_plain_stays_as_it_is() {
        for text in [
            "ALTER TABLE ONLY public.t ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (a);",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT p PRIMARY KEY (id, valid_at WITHOUT OVERLAPS);",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT e EXCLUDE USING gist (during WITH &&);",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES public.b(id);",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT c CHECK ((a > 0));",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT u UNIQUE USING INDEX u;",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT u UNIQUE (a) NOT DEFERRABLE;",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT u UNIQUE (lower(a));",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT u UNIQUE (a); SELECT 1;",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT u UNIQUE (a)",
            "ALTER TABLE ONLY t ADD CONSTRAINT u UNIQUE (a);",
            "ALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX u;",
            "CREATE UNIQUE INDEX u ON public.t USING btree (a);",
            "",
        ] {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
