//! What is planned for which tables, and what is refused.

use relevo_catalog::{ColumnIdentity, ColumnInfo};
use relevo_model::ReplicaIdentity;

use super::*;

pub(crate) fn table(name: &str) -> TableInfo {
    TableInfo {
        oid: 1,
        name: TableName::new("public", name),
        kind: TableKind::Ordinary,
        replica_identity: ReplicaIdentity::Default,
        identity_columns: vec!["id".to_owned()],
        columns: vec![
            column("id", Generated::None),
            column("sum", Generated::Stored),
            column("v", Generated::None),
        ],
        unique_keys: vec![vec!["id".to_owned()]],
        partition_root: None,
        is_partition: false,
        partition_key: None,
        partition_bound: None,
        fires_in_replica: false,
        bytes: 100,
        rows_estimate: 10,
        extension: None,
    }
}

fn column(name: &str, generated: Generated) -> ColumnInfo {
    ColumnInfo {
        name: name.to_owned(),
        position: 1,
        type_oid: 23,
        type_sql: "integer".to_owned(),
        not_null: false,
        has_default: false,
        identity: ColumnIdentity::None,
        generated,
        equality: None,
        collation_deterministic: true,
    }
}

pub(crate) fn root(name: &str) -> TableInfo {
    TableInfo { kind: TableKind::Partitioned, bytes: 0, rows_estimate: -1, ..table(name) }
}

pub(crate) fn leaf(name: &str, root: &str) -> TableInfo {
    TableInfo { is_partition: true, partition_root: Some(TableName::new("public", root)), ..table(name) }
}

pub(crate) fn without_identity(table: TableInfo) -> TableInfo {
    TableInfo { identity_columns: Vec::new(), unique_keys: Vec::new(), ..table }
}

fn names(jobs: &[TableJob]) -> Vec<&str> {
    jobs.iter().map(|job| job.table.name.as_str()).collect()
}

#[test]
fn leaves_are_jobs_of_their_own_or_parts_of_their_root() {
    let large = TableInfo { bytes: 5000, ..leaf("p2", "p") };
    let tables = [table("a"), root("p"), leaf("p1", "p"), large, root("empty")];
    let by_leaf = jobs(&tables, false);
    assert_eq!(names(&by_leaf), ["p2", "a", "p1"]);
    assert_eq!(by_leaf[0].columns, ["id", "v"]);
    assert!(!by_leaf[0].partitioned);
    let by_root = jobs(&tables, true);
    assert_eq!(names(&by_root), ["p", "a", "empty"]);
    assert!(by_root[0].partitioned);
    assert_eq!((by_root[0].estimated_bytes, by_root[0].estimated_rows), (5100, Some(20)));
    let unknown =
        [root("p"), leaf("p1", "p"), TableInfo { rows_estimate: -1, ..leaf("p2", "p") }, leaf("p3", "p")];
    assert_eq!(jobs(&unknown, true)[0].estimated_rows, None);
}

#[test]
fn a_partition_goes_where_its_root_goes() {
    let selection = Selection::parse(["public.p"], [] as [&str; 0]).unwrap();
    let chosen = selected_tables(vec![table("a"), root("p"), leaf("p1", "p")], &selection);
    assert_eq!(chosen.iter().map(|t| t.name.name.as_str()).collect::<Vec<_>>(), ["p", "p1"]);
    let selection = Selection::parse([] as [&str; 0], ["public.p1"]).unwrap();
    assert_eq!(selected_tables(vec![root("p"), leaf("p1", "p")], &selection).len(), 2);
}

#[test]
fn the_mode_decides_what_may_exist() {
    let needed: Vec<TableName> = ["a", "b"].map(|name| TableName::new("public", name)).to_vec();
    let (none, some, all) = (vec![], vec![table("a")], vec![table("a"), table("b")]);
    let of = |mode, existing: &[TableInfo]| {
        action(false, mode, &needed, existing)
            .map_err(|found| found.into_iter().map(|f| (f.check, f.subject.unwrap())).collect::<Vec<_>>())
    };
    let missing =
        |names: &[&str]| Err(names.iter().map(|n| ("missing_table", format!("public.{n}"))).collect());
    assert_eq!(of(SchemaMode::Auto, &none), Ok(Action::Copy));
    assert_eq!(of(SchemaMode::Auto, &all), Ok(Action::Existing));
    assert_eq!(of(SchemaMode::Auto, &some), missing(&["b"]));
    assert_eq!(of(SchemaMode::Copy, &none), Ok(Action::Copy));
    assert_eq!(of(SchemaMode::Copy, &some), Err(vec![("table_exists", "public.a".to_owned())]));
    assert_eq!(of(SchemaMode::Existing, &all), Ok(Action::Existing));
    assert_eq!(of(SchemaMode::Existing, &none), missing(&["a", "b"]));
    assert_eq!(action(true, SchemaMode::Copy, &needed, &all), Ok(Action::Ready));
}
