//! Which table is published how, and what a second look finds.

use relevo_catalog::Severity;

use super::*;
use crate::plan::tests::{leaf, root, table, without_identity};

fn listed(tables: &[TableInfo], via_partition_root: bool) -> (Vec<String>, Vec<String>) {
    let names = |publication: &Publication| publication.tables.iter().map(|t| t.name.clone()).collect();
    let [full, inserts] = wanted(&"f".parse().unwrap(), tables, via_partition_root);
    (names(&full), names(&inserts))
}

fn both(full: &[&str], inserts: &[&str]) -> (Vec<String>, Vec<String>) {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    (own(full), own(inserts))
}

#[test]
fn a_table_without_identity_publishes_inserts_only() {
    let tables = [table("a"), without_identity(table("b"))];
    assert_eq!(listed(&tables, false), both(&["a"], &["b"]));
    assert!(is_insert_only(&tables[1], &tables, false));
    let [full, inserts] = wanted(&"f".parse().unwrap(), &tables, false);
    assert_eq!(
        full.create(&tables),
        "CREATE PUBLICATION \"relevo_f\" FOR TABLE ONLY \"public\".\"a\" WITH (publish = 'insert, update, delete, \
         truncate', publish_via_partition_root = false);\n"
    );
    assert!(
        inserts
            .create(&[])
            .starts_with("CREATE PUBLICATION \"relevo_f_inserts\" WITH (publish = 'insert, truncate'")
    );
}

#[test]
fn partitioned_tables_are_published_by_their_root() {
    let tables = [root("p"), leaf("p1", "p"), leaf("p2", "p"), root("empty")];
    for via_partition_root in [false, true] {
        assert_eq!(listed(&tables, via_partition_root), both(&["empty", "p"], &[]));
    }
    let [full, _] = wanted(&"f".parse().unwrap(), &tables, true);
    assert!(full.create(&tables).contains("FOR TABLE \"public\".\"p\", \"public\".\"empty\" WITH"));
}

#[test]
fn an_identity_that_not_all_partitions_have_never_makes_an_update_fail() {
    // The root has none: a later partition may have none either.
    let tables = [without_identity(root("p")), leaf("p1", "p"), without_identity(leaf("p2", "p"))];
    assert_eq!(listed(&tables, false), both(&["p1"], &["p"]));
    assert!(is_insert_only(&tables[2], &tables, false) && !is_insert_only(&tables[1], &tables, false));
    assert_eq!(listed(&tables, true), both(&[], &["p"]));
    assert!(is_insert_only(&tables[0], &tables, true));
    let flow = "f".parse().unwrap();
    assert_eq!(later_partitions(&tables, &wanted(&flow, &tables, false))[0].check, "partition_identity");
    // FULL on the root is not passed on, and a partition's key is no full row.
    let full = TableInfo { replica_identity: ReplicaIdentity::Full, ..root("p") };
    let tables = [full.clone(), leaf("p1", "p")];
    assert_eq!(listed(&tables, false), both(&["p1"], &["p"]));
    assert_eq!(listed(&tables, true), both(&[], &["p"]));
    let tables = [full, TableInfo { replica_identity: ReplicaIdentity::Full, ..leaf("p1", "p") }];
    assert_eq!(listed(&tables, true), both(&["p"], &[]));
}

#[test]
fn a_second_look_names_what_differs() {
    let tables = [table("a"), table("b"), without_identity(table("c")), without_identity(table("d"))];
    let wanted = wanted(&"f".parse().unwrap(), &tables, false);
    let member =
        |publication: usize, name: &str| (wanted[publication].name.clone(), TableName::new("public", name));
    let same: BTreeSet<_> = [member(0, "a"), member(0, "b"), member(1, "c"), member(1, "d")].into();
    assert!(tables_differ(&wanted, &same).is_empty());
    // a was taken out, b had no identity at the time, c has lost its own, and e is nobody's.
    let other: BTreeSet<_> = [member(1, "b"), member(0, "c"), member(1, "d"), member(0, "e")].into();
    let found = tables_differ(&wanted, &other);
    let short: Vec<_> = found.iter().map(|f| (f.severity, f.check, f.subject.as_deref().unwrap())).collect();
    assert_eq!(
        short,
        [
            (Severity::Error, "publication_table", "public.a"),
            (Severity::Notice, "publication_identity", "public.b"),
            (Severity::Warning, "publication_identity", "public.c"),
            (Severity::Notice, "publication_table", "public.e"),
        ]
    );
    let changed = Publication { updates: false, ..wanted[0].clone() };
    assert_eq!(settings_differ(&changed, &wanted[0]).unwrap().check, "publication_settings");
    assert_eq!(settings_differ(&wanted[0], &wanted[0]), None);
}
