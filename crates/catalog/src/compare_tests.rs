//! Tables that differ in one thing, and what the comparison says of it.

use super::*;

pub(crate) fn column(name: &str, type_sql: &str) -> ColumnInfo {
    ColumnInfo {
        name: name.to_owned(),
        position: 1,
        type_oid: 0,
        type_sql: type_sql.to_owned(),
        not_null: false,
        has_default: false,
        identity: ColumnIdentity::None,
        generated: Generated::None,
        equality: None,
        collation_deterministic: true,
    }
}

/// `public.t (id bigint PRIMARY KEY, v text)`.
pub(crate) fn plain() -> TableInfo {
    TableInfo {
        oid: 1,
        name: TableName::new("public", "t"),
        kind: TableKind::Ordinary,
        replica_identity: ReplicaIdentity::Default,
        identity_columns: vec!["id".to_owned()],
        columns: vec![ColumnInfo { not_null: true, ..column("id", "bigint") }, column("v", "text")],
        unique_keys: vec![vec!["id".to_owned()]],
        partition_root: None,
        is_partition: false,
        partition_key: None,
        partition_bound: None,
        fires_in_replica: false,
        bytes: 0,
        rows_estimate: -1,
        extension: None,
    }
}

/// What the comparison says beyond that all is well, for a plain source and a target changed by `change`.
fn with_target(change: impl FnOnce(&mut TableInfo)) -> Vec<Finding> {
    let mut target = plain();
    change(&mut target);
    not_ok(&plain(), &target)
}

fn not_ok(source: &TableInfo, target: &TableInfo) -> Vec<Finding> {
    let mut findings = compare(std::slice::from_ref(source), std::slice::from_ref(target));
    findings.retain(|finding| finding.severity != Severity::Ok);
    findings
}

fn codes(findings: &[Finding]) -> Vec<(&'static str, Severity)> {
    findings.iter().map(|finding| (finding.check, finding.severity)).collect()
}

#[test]
fn equal_tables_are_said_to_match() {
    let findings = compare(&[plain()], &[plain()]);
    assert_eq!(codes(&findings), [("tables_match", Severity::Ok), ("replica_identity", Severity::Ok)]);
}

#[test]
fn another_column_order_and_extra_columns_with_a_value_are_fine() {
    let found = with_target(|t| {
        t.columns.reverse();
        t.columns.push(column("note", "text"));
        t.columns.push(ColumnInfo { not_null: true, has_default: true, ..column("at", "date") });
        t.columns.push(ColumnInfo {
            not_null: true,
            identity: ColumnIdentity::Always,
            ..column("n", "bigint")
        });
    });
    assert_eq!(codes(&found), []);
}

#[test]
fn a_missing_table_is_an_error() {
    let found = compare(&[plain()], &[]);
    assert_eq!(codes(&found)[0], ("missing_table", Severity::Error));
    assert!(found[0].remedy.as_deref().unwrap().contains(r#"--table='"public"."t"'"#));
}

#[test]
fn a_missing_column_comes_with_the_sql_that_adds_it() {
    let found = with_target(|t| t.columns.truncate(1));
    assert_eq!(codes(&found), [("missing_column", Severity::Error)]);
    assert_eq!(found[0].subject.as_deref(), Some("public.t.v"));
    assert_eq!(found[0].remedy.as_deref(), Some(r#"ALTER TABLE "public"."t" ADD COLUMN "v" text;"#));
}

#[test]
fn a_type_that_may_not_fit_is_a_warning_and_a_wider_one_a_notice() {
    let found = with_target(|t| t.columns[1].type_sql = "character varying(5)".to_owned());
    assert_eq!(codes(&found), [("column_type", Severity::Warning)]);
    assert!(found[0].message.contains("is text on the source and character varying(5) on the target"));
    let found = with_target(|t| t.columns[0].type_sql = "numeric".to_owned());
    assert_eq!(codes(&found), [("column_type", Severity::Notice)]);
}

#[test]
fn generated_on_one_side_only_is_an_error() {
    let mut generated = plain();
    generated.columns[1].generated = Generated::Stored;
    assert_eq!(codes(&not_ok(&generated, &plain())), [("generated_column", Severity::Error)]);
    let found = not_ok(&plain(), &generated);
    assert_eq!(codes(&found), [("generated_column", Severity::Error)]);
    assert!(found[0].remedy.as_deref().unwrap().ends_with("DROP EXPRESSION;"));
    assert_eq!(codes(&not_ok(&generated, &generated)), []);
}

#[test]
fn not_null_where_the_source_has_none_is_told() {
    let found = with_target(|t| t.columns[1].not_null = true);
    assert_eq!(codes(&found), [("column_not_null", Severity::Warning)]);
    let found = with_target(|t| t.columns.push(ColumnInfo { not_null: true, ..column("x", "text") }));
    assert_eq!(codes(&found), [("extra_column", Severity::Error)]);
}

#[test]
fn keys_that_are_missing_or_extra_on_the_target_are_warnings() {
    let found = with_target(|t| t.unique_keys.clear());
    assert_eq!(codes(&found), [("target_key", Severity::Warning)]);
    assert_eq!(found[0].remedy.as_deref(), Some(r#"CREATE UNIQUE INDEX ON "public"."t" ("id");"#));
    let found = with_target(|t| t.unique_keys.push(vec!["v".to_owned()]));
    assert_eq!(codes(&found), [("extra_key", Severity::Warning)]);
    // Unique over (id) is unique over (id, v).
    let found = with_target(|t| t.unique_keys.push(vec!["v".to_owned(), "id".to_owned()]));
    assert_eq!(codes(&found), []);
}

#[test]
fn a_table_without_identity_is_a_warning_with_the_reason() {
    for (setting, reason) in [
        (ReplicaIdentity::Default, "no primary key"),
        (ReplicaIdentity::Nothing, "NOTHING"),
        (ReplicaIdentity::Index, "gone"),
        (ReplicaIdentity::Full, "generated"),
    ] {
        let table = TableInfo { replica_identity: setting, identity_columns: Vec::new(), ..plain() };
        let found = identities(std::slice::from_ref(&table));
        assert_eq!(codes(&found), [("replica_identity", Severity::Warning)]);
        assert!(found[0].message.contains(reason), "{setting:?}: {}", found[0].message);
        assert!(found[0].remedy.is_some());
        let root = TableInfo { kind: TableKind::Partitioned, ..table };
        assert_eq!(codes(&identities(&[root])), [("replica_identity", Severity::Ok)]);
    }
}

#[test]
fn partitions_that_are_laid_out_differently_are_told() {
    let leaf = |bound: &str| TableInfo {
        is_partition: true,
        partition_root: Some(TableName::new("public", "root")),
        partition_bound: Some(bound.to_owned()),
        ..plain()
    };
    let found = not_ok(&leaf("FOR VALUES IN (1)"), &leaf("FOR VALUES IN (2)"));
    assert_eq!(codes(&found), [("partitions", Severity::Warning)]);
    assert_eq!(codes(&not_ok(&leaf("DEFAULT"), &leaf("DEFAULT"))), []);
    assert_eq!(codes(&not_ok(&leaf("DEFAULT"), &plain())), []);
    assert_eq!(codes(&not_ok(&plain(), &leaf("DEFAULT"))), [("partitions", Severity::Warning)]);

    let root = TableInfo { name: TableName::new("public", "root"), kind: TableKind::Partitioned, ..plain() };
    let found = compare(&[leaf("DEFAULT")], &[root]);
    assert!(found[0].message.contains("public.root has no such partition"), "{}", found[0].message);

    let by = |key: Option<&str>| TableInfo {
        kind: if key.is_some() { TableKind::Partitioned } else { TableKind::Ordinary },
        partition_key: key.map(str::to_owned),
        ..plain()
    };
    assert_eq!(
        codes(&not_ok(&by(Some("LIST (a)")), &by(Some("HASH (a)")))),
        [("partitions", Severity::Warning)]
    );
    assert_eq!(codes(&not_ok(&by(Some("LIST (a)")), &by(None))), [("partitions", Severity::Warning)]);
    assert_eq!(codes(&not_ok(&by(None), &by(Some("LIST (a)")))), [("partitions", Severity::Notice)]);
}

#[test]
fn triggers_that_fire_in_replica_sessions_are_noticed() {
    assert_eq!(codes(&with_target(|t| t.fires_in_replica = true)), [("replica_triggers", Severity::Notice)]);
}
