//! Tests of the splitter and of what is adapted, also over dumps that `pg_dump` wrote of `tests/sql/awkward_schema.sql`.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PRE_DATA: &str = include_str!("../../testdata/pre_data_15.sql");
const POST_DATA: &str = include_str!("../../testdata/post_data_15.sql");
const PRE_DATA_18: &str = include_str!("../../testdata/pre_data_18.sql");
const POST_DATA_18: &str = include_str!("../../testdata/post_data_18.sql");

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn facts() -> TargetFacts {
    TargetFacts {
        version_num: 150_018,
        superuser: true,
        roles: set(&["postgres", "relevo awkward; reader", "pg_database_owner"]),
        assumable_roles: set(&["postgres"]),
        tablespaces: set(&["pg_default"]),
        schemas: set(&["public", "pg_catalog"]),
        settings: set(&["default_tablespace", "default_table_access_method", "statement_timeout"]),
        compressions: set(&["pglz"]),
    }
}

fn sql(adapted: &Adapted) -> Vec<&str> {
    adapted.statements.iter().map(|statement| statement.sql.as_str()).collect()
}

fn adapt(script: &str, facts: &TargetFacts) -> (Vec<String>, Vec<String>) {
    let adapted = transform(script, facts);
    (sql(&adapted).into_iter().map(str::to_owned).collect(), adapted.warnings)
}

#[test]
fn a_real_dump_falls_into_its_statements() {
    for dump in [PRE_DATA, POST_DATA, PRE_DATA_18, POST_DATA_18] {
        let pieces = split(dump);
        assert_eq!(pieces.iter().map(Piece::text).collect::<String>(), dump);
        let heads = ["CREATE", "ALTER", "COMMENT", "GRANT", "REVOKE", "SET", "SELECT"];
        for piece in pieces {
            match piece {
                Piece::Statement(text) => {
                    let line = summary(text);
                    assert!(heads.iter().any(|head| line.starts_with(head)), "{line}");
                    assert!(text.trim_end().ends_with(';'), "{line}");
                }
                Piece::Meta(text) => assert!(text.contains("restrict"), "{text}"),
                Piece::Blank(text) => assert!(!text.contains("CREATE"), "{text}"),
            }
        }
    }
}

#[test]
fn a_real_dump_keeps_every_object_when_the_target_has_the_roles() {
    for (dump, objects) in [(PRE_DATA, "CREATE TABLE "), (POST_DATA, "ADD CONSTRAINT ")] {
        let adapted = transform(dump, &facts());
        assert!(adapted.warnings.is_empty(), "{:?}", adapted.warnings);
        let kept = sql(&adapted).iter().filter(|text| text.contains(objects)).count();
        assert_eq!(kept, dump.matches(objects).count());
    }
    let adapted = transform(PRE_DATA, &facts());
    let procedure =
        sql(&adapted).into_iter().find(|text| text.starts_with("CREATE PROCEDURE types.do_nothing"));
    assert!(procedure.is_some_and(|text| text.ends_with("END;") && text.contains("BEGIN ATOMIC")));
}

#[test]
fn of_a_real_dump_every_index_and_key_is_known_by_its_table() {
    for dump in [POST_DATA, POST_DATA_18] {
        let adapted = transform(dump, &TargetFacts { version_num: 180_004, ..facts() });
        let tables = tables_of_statements(sql(&adapted));
        for (text, table) in sql(&adapted).into_iter().zip(tables) {
            let own = [
                "INDEX ",
                "PRIMARY KEY (",
                " UNIQUE (",
                " EXCLUDE ",
                "CLUSTER ON",
                "REPLICA IDENTITY",
                "CREATE STATISTICS",
            ];
            let is_own = own.iter().any(|part| text.contains(part)) && !text.contains("ATTACH PARTITION");
            assert_eq!(table.is_some(), is_own, "{text}");
            // As it stands there, but for quotes that it needs not.
            if let Some(table) = table {
                let bare = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                assert!(text.contains(&table.name) || text.contains(&bare(&table.name)), "{text}: {table}");
            }
            assert_eq!(foreign_key(text).is_some(), text.contains(" FOREIGN KEY ("), "{text}");
        }
    }
}

#[test]
fn of_a_real_dump_plain_keys_are_built_as_an_index_first() {
    for dump in [POST_DATA, POST_DATA_18] {
        let adapted = transform(dump, &TargetFacts { version_num: 180_004, ..facts() });
        let (mut in_two, mut table_of) = (0, tables_of_statements(sql(&adapted)).into_iter());
        for text in sql(&adapted) {
            let table = table_of.next().unwrap();
            let key = text.contains("PRIMARY KEY (") || text.contains(" UNIQUE (");
            let plain = key && !text.contains("WITHOUT OVERLAPS") && !text.contains("FOREIGN KEY");
            let Some(parts) = key_parts(text) else {
                assert!(!plain, "{text}");
                continue;
            };
            assert!(plain, "{text}");
            in_two += 1;
            // Both are of the same table and index as the whole, and the index can be built beside others.
            assert_eq!(tables_of_statements([parts.index.as_str()]), std::slice::from_ref(&table), "{text}");
            assert_eq!(tables_of_statements([parts.constraint.as_str()]), [table], "{text}");
            for part in [&parts.index, &parts.constraint] {
                assert_eq!(created_index(part), created_index(text), "{text}");
            }
            assert!(shares_table(&parts.index) && !shares_table(&parts.constraint));
            assert_eq!(parts.constraint.contains("DEFERRABLE"), text.contains("DEFERRABLE"), "{text}");
            assert_eq!(parts.index.contains("INCLUDE ("), text.contains("INCLUDE ("), "{text}");
        }
        assert!(in_two > 5, "{in_two} keys");
    }
}

#[test]
fn statements_for_a_role_that_is_missing_are_left_out_and_counted() {
    let facts = TargetFacts { roles: set(&["postgres"]), ..facts() };
    let adapted = transform(PRE_DATA, &facts);
    let left: Vec<_> =
        sql(&adapted).into_iter().filter(|text| text.contains("relevo awkward; reader")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(adapted.warnings.len(), 1, "{:?}", adapted.warnings);
    assert!(
        adapted.warnings[0]
            .contains("\"relevo awkward; reader\" does not exist on the target (7 statements)")
    );
    let post = transform(POST_DATA, &facts);
    assert!(!sql(&post).iter().any(|text| text.contains("see; all")));
    assert!(sql(&post).iter().any(|text| text.contains("POLICY everyone")));
}

#[test]
fn who_is_no_superuser_gives_objects_only_to_roles_that_it_can_act_for() {
    let facts = TargetFacts { superuser: false, ..facts() };
    let script = "ALTER TABLE a OWNER TO postgres; ALTER TABLE b OWNER TO \"relevo awkward; reader\"; \
                  CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f(); GRANT SELECT ON a TO PUBLIC;";
    let (kept, warnings) = adapt(script, &facts);
    assert_eq!(kept, ["ALTER TABLE a OWNER TO postgres;", "GRANT SELECT ON a TO PUBLIC;"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn the_guard_of_a_node_stays_with_the_node() {
    let script = "CREATE TRIGGER relevo_guard BEFORE INSERT OR UPDATE ON public.a FOR EACH STATEMENT EXECUTE FUNCTION \
                  relevo.guard(); ALTER TABLE public.a DISABLE TRIGGER relevo_guard; ALTER TABLE public.a ENABLE TRIGGER \
                  relevo_guard; CREATE EVENT TRIGGER relevo_guard_ddl ON ddl_command_end EXECUTE FUNCTION relevo.guard_ddl(); \
                  CREATE TRIGGER own AFTER INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.f(); \
                  ALTER TABLE public.a DISABLE TRIGGER own;";
    let (kept, warnings) = adapt(script, &facts());
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|text| text.contains("own")) && warnings.is_empty(), "{kept:?} {warnings:?}");
}

#[test]
fn settings_of_the_session_go_and_changing_ones_stay_with_their_statements() {
    let script = "SET statement_timeout = 0;\nSET transaction_timeout = 0;\nSET something_new = 1;\n\
                  SELECT pg_catalog.set_config('search_path', '', false);\nSET default_tablespace = '';\n\
                  SET default_table_access_method = heap;\nCREATE TABLE a ();\nSET default_tablespace = fast;\n\
                  CREATE INDEX i ON a (b);";
    let known = TargetFacts { tablespaces: set(&["fast"]), ..facts() };
    let adapted = transform(script, &known);
    assert_eq!(sql(&adapted), ["CREATE TABLE a ();", "CREATE INDEX i ON a (b);"]);
    assert_eq!(
        adapted.statements[1].alone(),
        "SET LOCAL default_table_access_method = heap;\nSET LOCAL default_tablespace = fast;\nCREATE INDEX i ON a (b);"
    );
    let adapted = transform(script, &facts());
    assert!(adapted.statements[1].settings.contains("default_tablespace = '';"));
    assert!(adapted.warnings[0].contains("\"fast\""), "{:?}", adapted.warnings);
}

#[test]
fn grants_of_another_grantor_stay_together() {
    let script = "SET SESSION AUTHORIZATION postgres;\nGRANT SELECT ON TABLE a TO PUBLIC;\nRESET SESSION AUTHORIZATION;";
    assert_eq!(adapt(script, &facts()).0, [script]);
    let nobody = script.replace("AUTHORIZATION postgres", "AUTHORIZATION nobody");
    let (kept, warnings) = adapt(&format!("{nobody}\nGRANT SELECT ON TABLE b TO PUBLIC;"), &facts());
    assert_eq!(kept, ["GRANT SELECT ON TABLE b TO PUBLIC;"]);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn a_policy_keeps_the_roles_that_are_there() {
    let script = "CREATE POLICY p ON t FOR SELECT TO nobody, postgres, \"No; body\" USING ((a > 1));";
    let (kept, warnings) = adapt(script, &facts());
    assert_eq!(kept, ["CREATE POLICY p ON t FOR SELECT TO postgres USING ((a > 1));"]);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn what_the_target_has_or_cannot_do_is_left_out() {
    let script = "CREATE SCHEMA public; CREATE SCHEMA shop; ALTER TABLE ONLY a ALTER COLUMN b SET COMPRESSION lz4; \
                  ALTER TABLE ONLY a ALTER COLUMN b SET COMPRESSION pglz;";
    let (kept, warnings) = adapt(script, &facts());
    assert_eq!(kept, ["CREATE SCHEMA shop;", "ALTER TABLE ONLY a ALTER COLUMN b SET COMPRESSION pglz;"]);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn what_18_writes_is_put_so_that_15_reads_it() {
    let script = "CREATE TABLE s.\"b c\" (\n    NOT NULL id,\n    d integer NOT NULL NO INHERIT,\n    v integer GENERATED ALWAYS AS \
                  ((d * 2)),\n    w numeric(10,2) GENERATED ALWAYS AS ((d + 1)) STORED,\n    CONSTRAINT n NOT NULL \"E\"\n)\nINHERITS (s.a); \
                  CREATE TABLE x (\n    NOT NULL id\n); CREATE TABLE y (NOT NULL a, NOT NULL b); \
                  ALTER TABLE ONLY t ADD CONSTRAINT c NOT NULL f; ALTER TABLE t ADD CONSTRAINT c CHECK (a) NOT ENFORCED; \
                  ALTER TABLE t ADD CONSTRAINT c NOT NULL f NOT VALID; CREATE TABLE plain (a integer NOT NULL, b text);";
    let (kept, warnings) = adapt(script, &facts());
    assert_eq!(
        kept,
        [
            "CREATE TABLE s.\"b c\" (\n    \n    d integer NOT NULL ,\n    v integer GENERATED ALWAYS AS ((d * 2)) STORED,\n    \
             w numeric(10,2) GENERATED ALWAYS AS ((d + 1)) STORED\n)\nINHERITS (s.a);\n\
             ALTER TABLE ONLY s.\"b c\" ALTER COLUMN id SET NOT NULL;\n\
             ALTER TABLE ONLY s.\"b c\" ALTER COLUMN \"E\" SET NOT NULL;",
            "CREATE TABLE x (\n    \n);\nALTER TABLE ONLY x ALTER COLUMN id SET NOT NULL;",
            "CREATE TABLE y ( );\nALTER TABLE ONLY y ALTER COLUMN a SET NOT NULL;\nALTER TABLE ONLY y ALTER COLUMN b SET NOT NULL;",
            "ALTER TABLE ONLY t\n    ALTER COLUMN f SET NOT NULL;",
            "CREATE TABLE plain (a integer NOT NULL, b text);",
        ]
    );
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    let (kept, _) = adapt("CREATE TABLE z (NOT NULL a, b text, NOT NULL c, NOT NULL d);", &facts());
    assert!(kept[0].starts_with("CREATE TABLE z ( b text);"), "{kept:?}");
    let newer = TargetFacts { version_num: 180_004, ..facts() };
    assert_eq!(transform(script, &newer).statements.len(), 7);
}

#[test]
fn a_summary_shows_no_password() {
    let mapping = "-- Name: x\nCREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (password 'secret');";
    assert_eq!(summary(mapping), "CREATE USER MAPPING FOR PUBLIC SERVER s …");
    assert!(transform(mapping, &TargetFacts::default()).warnings.is_empty());
    let gone = mapping.replace("PUBLIC", "nobody");
    let warnings = transform(&gone, &facts()).warnings;
    assert!(!warnings[0].contains("secret"), "{warnings:?}");
    assert!(summary(&"x ".repeat(1000)).len() < 200);
    assert_eq!(
        summary("SET LOCAL a = '';\nSET LOCAL b = c;\nCREATE INDEX i ON t (x);"),
        "CREATE INDEX i ON t (x)"
    );
    assert_eq!(summary("SET x = 1;"), "SET x = 1");
}

#[test]
fn only_foreign_keys_can_be_left_unchecked() {
    let key = "SET LOCAL x = '';\nALTER TABLE ONLY a\n    ADD CONSTRAINT b FOREIGN KEY (c) REFERENCES d(e) DEFERRABLE;";
    assert_eq!(not_valid(key).as_deref(), Some(format!("{} NOT VALID;", key.trim_end_matches(';')).as_str()));
    assert_eq!(not_valid(&not_valid(key).unwrap()), None);
    assert_eq!(not_valid("ALTER TABLE ONLY a ADD CONSTRAINT b PRIMARY KEY (foreign_key);"), None);
}

/// Scraps that make a lexer stumble.
fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop_oneof![
        prop::sample::select(vec![
            ";",
            "'",
            "\"",
            "$",
            "$$",
            "$a$",
            "$ä$",
            "E'",
            "\\",
            "\n",
            " ",
            "--",
            "/*",
            "*/",
            "(",
            ")",
            "''",
            "BEGIN ATOMIC ",
            "CASE ",
            "END",
            "CREATE FUNCTION ",
            "CREATE OR REPLACE PROCEDURE ",
            "\\restrict x\n",
            "SET ",
            "=",
            "GRANT ",
            "TO ",
            ",",
            "RESET SESSION AUTHORIZATION;",
            "SET SESSION AUTHORIZATION ",
            "CREATE POLICY ",
            "OWNER TO ",
            "ALTER ",
            "default_tablespace",
            "é",
            "🐘",
            "U&'",
            "1",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
}

/// Statements that are whole, whatever is inside their quotes.
fn whole_statement() -> impl Strategy<Value = String> {
    let quoted = scraps().prop_map(|text| format!("'{}'", text.replace('\'', "''")));
    let identifier = scraps().prop_map(|text| format!("\"{}\"", text.replace('"', "\"\"")));
    let dollar = scraps().prop_map(|text| format!("$q_1${}$q_1$", text.replace("$q_1$", "")));
    let escape = scraps().prop_map(|text| format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")));
    let comment = scraps()
        .prop_map(|text| format!("/*{}*/", text.replace("/*", "").replace("*/", "").replace(['*', '/'], "")));
    let line = scraps().prop_map(|text| format!("--{}\n", text.replace('\n', "")));
    let part = prop_oneof![quoted, identifier, dollar, escape, comment, line, Just("word".to_owned())];
    let body = "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN x THEN 1 END; ";
    let shape = prop::sample::select(vec![("SELECT ", ";"), (body, "; END;"), ("DO (", "; x);")]);
    (shape, prop::collection::vec(part, 1..6))
        .prop_map(|((head, tail), parts)| format!("{head}{}{tail}", parts.join(" , ")))
}

proptest! {
    #[test]
    fn splitting_never_loses_a_character(script in scraps()) {
        let pieces = split(&script);
        prop_assert_eq!(pieces.iter().map(Piece::text).collect::<String>(), script);
    }

    #[test]
    fn whole_statements_come_back_whole(statements in prop::collection::vec(whole_statement(), 0..6)) {
        let script = statements.join("\n");
        let pieces = split(&script);
        let found: Vec<&str> = pieces.iter().map(|piece| piece.text().trim_start_matches('\n')).collect();
        prop_assert_eq!(found, statements);
    }

    #[test]
    fn adapting_never_panics(script in scraps(), superuser in any::<bool>(), version_num in 140_000..190_000) {
        let facts = TargetFacts { superuser, version_num, ..facts() };
        for statement in transform(&script, &facts).statements {
            prop_assert!(summary(&statement.alone()).chars().count() < 200);
        }
    }

    #[test]
    fn adapting_is_stable(statements in prop::collection::vec(whole_statement(), 0..4)) {
        let once = transform(&statements.join("\n"), &facts());
        let again = transform(&sql(&once).join("\n"), &facts());
        prop_assert_eq!(sql(&once), sql(&again));
    }
}
