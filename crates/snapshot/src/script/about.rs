//! Which table a statement behind the rows is about, when it is about just one: then it can run as soon as that table's
//! rows are there, beside the rows of others. Knows the statements as `pg_dump` writes them, and leaves whatever it
//! does not know to the end.

use std::collections::HashMap;

use relevo_catalog::{TableName, quote_identifier};

use super::lexer::Token;
use super::split::split;
use super::statement::Statement;

/// Whether a stored statement can run beside others of its kind on the same table: CREATE INDEX takes SHARE, which does
/// not conflict with itself (manual, *Explicit Locking*). Others need the table for themselves, or must find what came
/// before them. `SET LOCAL` statements may stand before it.
#[must_use]
pub fn shares_table(statement: &str) -> bool {
    let parsed = Statement::new(statement);
    [&["create", "index"][..], &["create", "unique", "index"]].iter().any(|head| parsed.after(head).is_some())
}

/// The index that a stored statement makes, by itself or with a constraint. `SET LOCAL` statements may stand before it.
#[must_use]
pub fn created_index(statement: &str) -> Option<TableName> {
    let pieces = split(statement);
    let statement = Statement::new(pieces.last()?.text());
    index_of(&statement).or_else(|| added_constraint(&statement)).map(|(_, index)| index)
}

/// The table of each statement, in the order of the dump; `None` when a statement is about several or none, or has to
/// wait for something else.
#[must_use]
pub fn tables<'a>(statements: impl IntoIterator<Item = &'a str>) -> Vec<Option<TableName>> {
    // The names of indexes are the keys: in PostgreSQL an index stands in the schema of its table.
    let mut indexes: HashMap<TableName, TableName> = HashMap::new();
    let mut table = |text: &'a str| {
        let statement = Statement::new(text);
        let created = index_of(&statement).or_else(|| added_constraint(&statement));
        if let Some((table, index)) = created {
            indexes.insert(index, table.clone());
            return Some(table);
        }
        set_on_table(&statement)
            .or_else(|| statistics(&statement))
            .or_else(|| indexes.get(&altered_index(&statement)?).cloned())
    };
    statements.into_iter().map(&mut table).collect()
}

/// What a statement of the schema's first part is about, when that is a schema or a type: its creation, owner, values,
/// or what it is allowed. The schema comes without a name of its own.
#[must_use]
pub fn schema_or_type(statement: &str) -> Option<(String, Option<String>)> {
    let statement = Statement::new(statement);
    let schema = [&["create", "schema"][..], &["alter", "schema"]];
    if let Some(head) = schema.into_iter().find(|head| statement.begins(head)) {
        return Some((statement.name(head.len())?, None));
    }
    let types = [&["create", "type"][..], &["alter", "type"], &["create", "domain"], &["alter", "domain"]];
    let head = types.into_iter().find(|head| statement.begins(head))?;
    let (name, _) = qualified(&statement, head.len())?;
    Some((name.schema, Some(name.name)))
}

/// What a foreign key is called and which tables it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The table that it is on.
    pub table: TableName,
    /// Its name, unquoted.
    pub name: String,
    /// The table that it points at.
    pub referenced: TableName,
}

impl ForeignKey {
    /// The name as it stands in SQL.
    #[must_use]
    pub fn quoted_name(&self) -> String {
        quote_identifier(&self.name)
    }
}

/// The foreign key that a stored statement adds; `None` for any other statement. `SET LOCAL` statements may stand before
/// it.
#[must_use]
pub fn foreign_key(statement: &str) -> Option<ForeignKey> {
    let statement = Statement::new(statement);
    let (table, next) = qualified(&statement, statement.after(&["alter", "table"])?)?;
    if !keywords(&statement, next, &["add", "constraint"])
        || !keywords(&statement, next + 3, &["foreign", "key"])
    {
        return None;
    }
    let (referenced, _) = qualified(&statement, statement.after(&["references"])?)?;
    Some(ForeignKey { table, name: statement.name(next + 2)?, referenced })
}

/// `CREATE [UNIQUE] INDEX name ON [ONLY] schema.table …`: the table and the index.
fn index_of(statement: &Statement<'_>) -> Option<(TableName, TableName)> {
    let name = match statement {
        _ if statement.begins(&["create", "index"]) => 2,
        _ if statement.begins(&["create", "unique", "index"]) => 3,
        _ => return None,
    };
    let (index, on) = (statement.name(name)?, name + 1);
    if !statement.tokens.get(on)?.is("on") {
        return None;
    }
    let (table, _) = qualified(statement, on + 1)?;
    let index = TableName::new(table.schema.clone(), index);
    Some((table, index))
}

/// `ALTER TABLE [ONLY] schema.table ADD CONSTRAINT name PRIMARY KEY | UNIQUE | EXCLUDE …`: the table and the index.
fn added_constraint(statement: &Statement<'_>) -> Option<(TableName, TableName)> {
    let (table, next) = altered_table(statement)?;
    let kind = next + 3;
    let added = keywords(statement, next, &["add", "constraint"])
        && (keywords(statement, kind, &["primary", "key"])
            || keywords(statement, kind, &["unique"])
            || keywords(statement, kind, &["exclude"]));
    if !added {
        return None;
    }
    let index = TableName::new(table.schema.clone(), statement.name(next + 2)?);
    Some((table, index))
}

/// What follows the indexes of the same table: `REPLICA IDENTITY …` and `CLUSTER ON …`.
fn set_on_table(statement: &Statement<'_>) -> Option<TableName> {
    let (table, next) = altered_table(statement)?;
    let follows =
        keywords(statement, next, &["replica", "identity"]) || keywords(statement, next, &["cluster", "on"]);
    follows.then_some(table)
}

/// `CREATE STATISTICS … ON … FROM schema.table`: it has to be there when the table is analysed.
fn statistics(statement: &Statement<'_>) -> Option<TableName> {
    if !statement.begins(&["create", "statistics"]) {
        return None;
    }
    let (table, next) = qualified(statement, statement.after(&["from"])?)?;
    statement.tokens.get(next).is_none_or(|token| token.is_symbol(';')).then_some(table)
}

/// `ALTER INDEX schema.index ALTER COLUMN …`. What attaches the index of a partition is about two tables.
fn altered_index(statement: &Statement<'_>) -> Option<TableName> {
    if !statement.begins(&["alter", "index"]) {
        return None;
    }
    let (index, next) = qualified(statement, 2)?;
    keywords(statement, next, &["alter", "column"]).then_some(index)
}

/// `ALTER TABLE [ONLY] schema.table …`: the table, and the index of the token behind it.
fn altered_table(statement: &Statement<'_>) -> Option<(TableName, usize)> {
    statement.begins(&["alter", "table"]).then(|| qualified(statement, 2))?
}

/// `[ONLY] schema.name` at this token: the name, and the index of the token behind it. A dump qualifies every name.
fn qualified(statement: &Statement<'_>, at: usize) -> Option<(TableName, usize)> {
    let at = at + usize::from(statement.tokens.get(at)?.is("only"));
    let dot = statement.tokens.get(at + 1).is_some_and(|token: &Token<'_>| token.is_symbol('.'));
    let name = TableName::new(statement.name(at)?, statement.name(at + 2)?);
    dot.then_some((name, at + 3))
}

fn keywords(statement: &Statement<'_>, at: usize, expected: &[&str]) -> bool {
    expected
        .iter()
        .enumerate()
        .all(|(offset, keyword)| statement.tokens.get(at + offset).is_some_and(|token| token.is(keyword)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(texts: &[&str]) -> Vec<Option<String>> {
        let found = tables(texts.iter().copied());
        found.into_iter().map(|table| table.map(|table| table.quoted())).collect()
    }

    fn one(text: &str) -> Option<String> {
        about(&[text]).remove(0)
    }

    #[test]
    fn indexes_and_keys_belong_to_their_table_whatever_it_is_called() {
        let of_t = [
            "CREATE INDEX i ON public.t USING btree (a);",
            "CREATE UNIQUE INDEX \"I\" ON ONLY public.t USING btree (lower(a), ((b + 1))) WHERE (c <> ';'::text);",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);",
            "ALTER TABLE public.t\n    ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (a) DEFERRABLE;",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT e EXCLUDE USING gist (during WITH &&) DEFERRABLE;",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT p PRIMARY KEY (id, valid_at WITHOUT OVERLAPS);",
            "ALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX i;",
            "ALTER TABLE public.t CLUSTER ON t_pkey;",
            "CREATE STATISTICS public.s (ndistinct) ON a, b FROM public.t;",
            "CREATE STATISTICS public.s ON EXTRACT(year FROM a), b FROM public.t;",
        ];
        for text in of_t {
            assert_eq!(one(text).as_deref(), Some("\"public\".\"t\""), "{text}");
        }
        let quoted = "ALTER TABLE ONLY \"select\".\"a \"\" b.c\\d $1 %s 'e'; --\"\n    ADD CONSTRAINT \"x; --_pkey\" PRIMARY KEY (\" \");";
        assert_eq!(one(quoted).as_deref(), Some("\"select\".\"a \"\" b.c\\d $1 %s 'e'; --\""));
        assert_eq!(one("CREATE INDEX i ON \"x.y\".z USING btree (a);").as_deref(), Some("\"x.y\".\"z\""));
    }

    #[test]
    fn what_is_about_several_tables_or_waits_for_others_is_left_to_the_end() {
        for text in [
            "ALTER TABLE ONLY public.a ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES public.b(id);",
            "ALTER INDEX public.hashed_pkey ATTACH PARTITION public.hashed_0_pkey;",
            "CREATE TRIGGER t AFTER INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.f();",
            "CREATE RULE r AS ON INSERT TO public.a DO INSERT INTO public.b (name) VALUES (new.name);",
            "CREATE POLICY p ON public.a USING (true);",
            "ALTER TABLE public.a ENABLE ROW LEVEL SECURITY;",
            "ALTER TABLE public.a ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID;",
            "ALTER STATISTICS public.s OWNER TO postgres;",
            "CREATE MATERIALIZED VIEW public.m AS SELECT 1 WITH NO DATA;",
            "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION public.f();",
            "ALTER TABLE public.a DISABLE TRIGGER t;",
            "CREATE INDEX i ON unqualified USING btree (a);",
        ] {
            assert_eq!(one(text), None, "{text}");
        }
    }

    #[test]
    fn what_alters_an_index_goes_with_its_table() {
        let found = about(&[
            "ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id);",
            "CREATE INDEX i ON other.u USING btree (lower(a));",
            "ALTER INDEX other.i ALTER COLUMN 1 SET STATISTICS 400;",
            "ALTER INDEX public.i ALTER COLUMN 1 SET STATISTICS 400;",
        ]);
        assert_eq!(found[2].as_deref(), Some("\"other\".\"u\""));
        assert_eq!(found[3], None);
    }

    #[test]
    fn schemas_and_types_are_told_from_everything_else() {
        let found = |text: &str| {
            schema_or_type(text).map(|(schema, name)| format!("{schema}.{}", name.unwrap_or_default()))
        };
        assert_eq!(found("CREATE SCHEMA \"My shop\";").as_deref(), Some("My shop."));
        assert_eq!(found("ALTER SCHEMA shop OWNER TO me;").as_deref(), Some("shop."));
        for text in [
            "CREATE TYPE shop.mood AS ENUM (\n    'sad; or',\n    'ok'\n);",
            "ALTER TYPE shop.mood OWNER TO me;",
            "CREATE DOMAIN shop.mood AS integer\n\tCONSTRAINT c CHECK ((VALUE > 0));",
        ] {
            assert_eq!(found(text).as_deref(), Some("shop.mood"), "{text}");
        }
        for text in [
            "CREATE TABLE shop.mood (a int);",
            "CREATE TYPE unqualified;",
            "GRANT ALL ON TYPE shop.mood TO me;",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn a_foreign_key_is_told_with_both_of_its_tables() {
        let text = "SET LOCAL default_tablespace = x;\nALTER TABLE ONLY public.\"Lines\"\n    ADD CONSTRAINT \"f\"\"k\" FOREIGN KEY \
                    (\"order\") REFERENCES shop.orders(id) ON DELETE CASCADE;";
        let key = foreign_key(text).unwrap();
        assert_eq!(
            (key.table.quoted().as_str(), key.quoted_name().as_str()),
            ("\"public\".\"Lines\"", "\"f\"\"k\"")
        );
        assert_eq!(key.referenced, TableName::new("shop", "orders"));
        assert_eq!(foreign_key("ALTER TABLE ONLY public.t ADD CONSTRAINT p PRIMARY KEY (id);"), None);
    }

    #[test]
    fn the_index_that_is_made_is_known_by_its_name() {
        let index = |text: &str| created_index(text).map(|index| index.quoted());
        let settings =
            "SET LOCAL default_tablespace = fast;\nCREATE UNIQUE INDEX \"I i\" ON shop.t USING btree (a);";
        assert_eq!(index(settings).as_deref(), Some("\"shop\".\"I i\""));
        let key = "ALTER TABLE ONLY public.t ADD CONSTRAINT p PRIMARY KEY (id);";
        assert_eq!(index(key).as_deref(), Some("\"public\".\"p\""));
        assert_eq!(index("ALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX i;"), None);
        assert_eq!(index(""), None);
    }

    #[test]
    fn only_plain_indexes_can_be_built_side_by_side() {
        assert!(shares_table("CREATE INDEX i ON public.t USING btree (a);"));
        let settings =
            "SET LOCAL default_tablespace = fast;\nCREATE UNIQUE INDEX i ON public.t USING btree (a);";
        assert!(shares_table(settings));
        assert!(!shares_table("ALTER TABLE ONLY public.t ADD CONSTRAINT p PRIMARY KEY (id);"));
        assert!(!shares_table("CREATE STATISTICS public.s ON a, b FROM public.t;"));
    }
}
