//! Every verdict, on facts that were made up: good ones first, then each changed in one point.

use std::collections::BTreeMap;

use super::facts::{Access, LongTransaction, Publication, Slot, SlotTrial, SourceFacts, TargetFacts};
use super::*;
use crate::compare::tests::plain;
use crate::server::{Extension, ManagedBy};
use crate::{SequenceInfo, SequenceValue, ServerFacts, Severity, TableName};

pub(super) fn server() -> ServerFacts {
    ServerFacts {
        version_num: 150_004,
        version: "15.4".to_owned(),
        system_id: "7".to_owned(),
        timeline: 1,
        started_unix_us: 1,
        in_recovery: false,
        read_only: false,
        wal_level: "logical".to_owned(),
        max_replication_slots: 10,
        used_replication_slots: 0,
        max_wal_senders: 10,
        used_wal_senders: 0,
        wal_sender_timeout_ms: 60_000,
        max_slot_wal_keep_mib: 1024,
        idle_slot_timeout_seconds: 0,
        logical_decoding_work_mem_kib: 65_536,
        max_prepared_transactions: 0,
        fsync: true,
        synchronous_commit: "on".to_owned(),
        wal_block_bytes: 8192,
        wal_segment_bytes: 16 << 20,
        block_bytes: 8192,
        role: "re\"po".to_owned(),
        superuser: false,
        replication: true,
        bypass_rls: false,
        sees_activity: true,
        database: "shop".to_owned(),
        create_on_database: true,
        encoding: "UTF8".to_owned(),
        collate: "C".to_owned(),
        ctype: "C".to_owned(),
        collation_provider: "libc".to_owned(),
        collation_locale: None,
        collation_version: None,
        clock_offset_seconds: 0.0,
        round_trip_seconds: 0.001,
        extensions: Vec::new(),
        available_extensions: BTreeMap::new(),
        managed_by: None,
    }
}

fn access() -> Access {
    Access {
        table: plain().name,
        owner: "shop".to_owned(),
        owner_superuser: false,
        owns: true,
        schema_usage: true,
        privileges: ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"].map(str::to_owned).to_vec(),
        row_security: false,
    }
}

fn source() -> SourceFacts {
    SourceFacts {
        server: server(),
        flow: "shop".parse().unwrap(),
        tables: vec![plain()],
        all_tables: vec![plain().name],
        access: vec![access()],
        sequences: vec![SequenceInfo {
            name: TableName::new("public", "s"),
            owned_by: None,
            identity: false,
            increment: 1,
            value: Some(SequenceValue { last_value: 1, is_called: false }),
        }],
        slot: None,
        slot_trial: SlotTrial::Works,
        publications: Vec::new(),
        long_transactions: Vec::new(),
        left_out: Vec::new(),
        large_objects: 0,
        roles_in_use: vec!["shop".to_owned()],
        tablespaces_in_use: Vec::new(),
        relevo_schema: None,
    }
}

fn target() -> TargetFacts {
    TargetFacts {
        server: ServerFacts { system_id: "8".to_owned(), ..server() },
        tables: vec![plain()],
        access: vec![access()],
        replica_role_refused: None,
        closed_schemas: BTreeMap::new(),
        strangers: Vec::new(),
        roles: vec!["shop".to_owned()],
        tablespaces: Vec::new(),
        relevo_schema: None,
    }
}

type Found = (&'static str, Severity, Option<Side>, String);

/// What is not well, with good facts changed by `change`.
fn found(change: impl FnOnce(&mut SourceFacts, &mut TargetFacts)) -> Vec<Found> {
    let (mut source, mut target) = (source(), target());
    change(&mut source, &mut target);
    verdicts(&source, &target, &source.tables, &Selection::default())
        .into_iter()
        .filter(|finding| finding.severity != Severity::Ok)
        .map(|f| (f.check, f.severity, f.side, f.remedy.unwrap_or_default()))
        .collect()
}

/// Expects exactly one finding that is not well, and gives its remedy.
fn one(
    check: &str,
    severity: Severity,
    side: impl Into<Option<Side>>,
    change: impl FnOnce(&mut SourceFacts, &mut TargetFacts),
) -> String {
    let mut found = found(change);
    assert_eq!(found.len(), 1, "{found:?}");
    let (got, how_bad, where_, remedy) = found.remove(0);
    assert_eq!((got, how_bad, where_), (check, severity, side.into()));
    remedy
}

use Severity::{Error, Notice, Warning};
use Side::{Source, Target};

#[test]
fn good_facts_give_only_good_verdicts_and_one_for_every_check() {
    assert_eq!(found(|_, _| {}), []);
    let findings = verdicts(&source(), &target(), &source().tables, &Selection::default());
    for check in [
        "wal_level",
        "replication_slots",
        "wal_senders",
        "replication_right",
        "output_plugin",
        "table_rights",
        "publication_right",
        "create_right",
        "sequence_rights",
        "replica_role",
        "read_only",
        "row_security",
        "clock",
        "encoding",
        "collation",
        "extensions",
        "roles",
        "tablespaces",
        "durability",
        "long_transactions",
        "slot_retention",
        "large_objects",
        "unlogged_tables",
        "selection",
        "tables_match",
        "replica_identity",
        "same_database",
    ] {
        assert!(findings.iter().any(|finding| finding.check == check), "{check}");
    }
}

#[test]
fn versions_that_are_too_old_or_new() {
    let at = |version_num| ServerFacts { version_num, ..server() };
    let of = |version_num| servers::versions(&at(version_num), &server())[0].severity;
    assert_eq!([130_010, 140_000, 180_004, 190_000].map(of), [Error, Severity::Ok, Severity::Ok, Warning]);
}

#[test]
fn a_flow_into_itself_is_refused_but_a_clone_is_not() {
    one("same_database", Error, None, |_, t| t.server.system_id = "7".to_owned());
    assert_eq!(
        found(|_, t| {
            t.server.system_id = "7".to_owned();
            t.server.started_unix_us = 2;
        }),
        []
    );
}

#[test]
fn settings_of_the_source() {
    let remedy = one("wal_level", Error, Source, |s, _| s.server.wal_level = "replica".to_owned());
    assert!(remedy.contains("ALTER SYSTEM SET wal_level = 'logical'; -- then restart"), "{remedy}");
    let remedy = one("wal_level", Error, Source, |s, _| {
        s.server.wal_level = "replica".to_owned();
        s.server.managed_by = Some(ManagedBy::Rds);
    });
    assert!(remedy.contains("rds.logical_replication"), "{remedy}");
    let remedy = one("replication_slots", Error, Source, |s, _| s.server.used_replication_slots = 10);
    assert!(remedy.contains("max_replication_slots = 14"), "{remedy}");
    one("wal_senders", Error, Source, |s, _| s.server.used_wal_senders = 10);
    one("slot_retention", Notice, Source, |s, _| s.server.max_slot_wal_keep_mib = -1);
    one("slot_retention", Warning, Source, |s, _| s.server.idle_slot_timeout_seconds = 60);
    one("in_recovery", Error, Source, |s, _| s.server.in_recovery = true);
    one("read_only", Notice, Source, |s, _| s.server.read_only = true);
}

#[test]
fn a_slot_that_is_there_needs_no_other_but_must_be_this_flows_own() {
    let slot = || Slot {
        plugin: Some("pgoutput".to_owned()),
        database: Some("shop".to_owned()),
        wal_status: Some("reserved".to_owned()),
        ..Slot::default()
    };
    let with = |slot: Slot| move |s: &mut SourceFacts, _: &mut TargetFacts| s.slot = Some(slot);
    assert_eq!(found(with(slot())), []);
    assert_eq!(
        found(|s, _| {
            s.slot = Some(Slot { active_pid: Some(1), ..slot() });
            s.server.used_replication_slots = 10;
            s.server.used_wal_senders = 10;
        }),
        []
    );
    let lost = Slot { wal_status: Some("lost".to_owned()), ..slot() };
    assert!(one("slot", Error, Source, with(lost)).contains("relevo reset"));
    one("slot", Error, Source, with(Slot { invalidation: Some("idle_timeout".to_owned()), ..slot() }));
    one("slot", Error, Source, with(Slot { plugin: Some("wal2json".to_owned()), ..slot() }));
    one("slot", Error, Source, with(Slot { plugin: None, ..slot() }));
    one("slot", Error, Source, with(Slot { database: Some("other".to_owned()), ..slot() }));
    one("slot", Warning, Source, with(Slot { wal_status: Some("unreserved".to_owned()), ..slot() }));
}

#[test]
fn the_trial_of_the_output_plugin() {
    one("output_plugin", Error, Source, |s, _| s.slot_trial = SlotTrial::Refused("no".to_owned()));
    one("output_plugin", Warning, Source, |s, _| s.slot_trial = SlotTrial::TimedOut);
    assert_eq!(found(|s, _| s.slot_trial = SlotTrial::NotTried), []);
}

#[test]
fn long_transactions_are_named_and_blindness_is_told() {
    let remedy = one("long_transactions", Warning, Source, |s, _| {
        s.long_transactions.push(LongTransaction {
            holder: "process 7".to_owned(),
            database: "shop".to_owned(),
            age_seconds: 90.0,
            remedy: "end it".to_owned(),
        });
    });
    assert_eq!(remedy, "end it");
    let remedy = one("long_transactions", Notice, Source, |s, _| s.server.sees_activity = false);
    assert_eq!(remedy, "GRANT pg_monitor TO \"re\"\"po\";");
}

#[test]
fn rights_that_are_missing_come_with_the_grant() {
    let remedy = one("replication_right", Error, Source, |s, _| s.server.replication = false);
    assert_eq!(remedy, "ALTER ROLE \"re\"\"po\" REPLICATION;");
    let remedy = one("table_rights", Error, Source, |s, _| s.access[0].privileges.clear());
    assert_eq!(remedy, "GRANT SELECT ON \"public\".\"t\" TO \"re\"\"po\";");
    let remedy = one("table_rights", Error, Target, |_, t| t.access[0].privileges.truncate(2));
    assert_eq!(remedy, "GRANT UPDATE, DELETE, TRUNCATE ON \"public\".\"t\" TO \"re\"\"po\";");
    one("schema_rights", Error, Source, |s, _| s.access[0].schema_usage = false);
    let remedy = one("publication_right", Error, Source, |s, _| s.access[0].owns = false);
    assert_eq!(remedy, "GRANT \"shop\" TO \"re\"\"po\";");
    let remedy = one("publication_right", Error, Source, |s, _| {
        s.access[0].owns = false;
        s.access[0].owner_superuser = true;
    });
    assert!(remedy.contains("no superuser"), "{remedy}");
    one("publication_right", Error, Source, |s, _| {
        s.publications.push(Publication { name: "relevo_shop".into(), owner: "x".into(), owns: false });
    });
    one("create_right", Error, Source, |s, _| s.server.create_on_database = false);
    one("create_right", Error, Target, |_, t| t.server.create_on_database = false);
    one("create_right", Error, Target, |_, t| t.relevo_schema = Some(false));
    assert_eq!(
        found(|_, t| {
            t.relevo_schema = Some(true);
            t.server.create_on_database = false;
        }),
        []
    );
    one("sequence_rights", Error, Source, |s, _| s.sequences[0].value = None);
}

#[test]
fn many_tables_that_lack_the_same_are_told_in_one_line() {
    let remedy = one("table_rights", Error, Source, |s, _| {
        s.access = (0..50)
            .map(|n| Access {
                table: TableName::new("public", n.to_string()),
                privileges: Vec::new(),
                ..access()
            })
            .collect();
    });
    assert!(remedy.contains("\"49\""));
}

#[test]
fn row_level_security_hides_rows_on_either_side() {
    one("row_security", Error, Source, |s, _| s.access[0].row_security = true);
    let remedy = one("row_security", Error, Target, |_, t| t.access[0].row_security = true);
    assert!(remedy.ends_with("BYPASSRLS;"));
}

#[test]
fn the_replica_role_can_be_granted_since_version_15() {
    let refused = |t: &mut TargetFacts| t.replica_role_refused = Some("permission denied".to_owned());
    let remedy = one("replica_role", Error, Target, |_, t| refused(t));
    assert_eq!(remedy, "GRANT SET ON PARAMETER session_replication_role TO \"re\"\"po\";");
    let remedy = one("replica_role", Error, Target, |_, t| {
        refused(t);
        t.server.version_num = 140_000;
    });
    assert!(remedy.contains("relevo_rights.replica_role(boolean) TO \"re\"\"po\";"), "{remedy}");
    // A service's customers have no superuser, but a role that may set it.
    let remedy = one("replica_role", Error, Target, |_, t| {
        refused(t);
        t.server.version_num = 140_000;
        t.server.managed_by = Some(ManagedBy::Azure);
    });
    assert_eq!(remedy, "GRANT azure_pg_admin TO \"re\"\"po\";");
}

#[test]
fn tables_are_made_only_where_whoever_makes_and_owns_them_may_create() {
    let remedy = one("schema_create_right", Error, Target, |_, t| {
        t.closed_schemas.insert("public".to_owned(), vec!["re\"po".to_owned(), "shop".to_owned()]);
    });
    assert_eq!(remedy, "GRANT CREATE ON SCHEMA \"public\" TO \"re\"\"po\", \"shop\";");
    let remedy = one("owner_right", Warning, Target, |_, t| t.strangers.push(("shop".to_owned(), false)));
    assert_eq!(remedy, "GRANT \"shop\" TO \"re\"\"po\";");
    let remedy = one("owner_right", Warning, Target, |_, t| {
        t.server.version_num = 160_000;
        t.strangers.push(("shop".to_owned(), false));
    });
    assert_eq!(remedy, "GRANT \"shop\" TO \"re\"\"po\" WITH SET TRUE;");
    // Nobody should be a superuser's member.
    one("owner_right", Notice, Target, |_, t| t.strangers.push(("postgres".to_owned(), true)));
}

#[test]
fn settings_of_the_target() {
    one("in_recovery", Error, Target, |_, t| t.server.in_recovery = true);
    one("read_only", Notice, Target, |_, t| t.server.read_only = true);
    one("durability", Warning, Target, |_, t| t.server.fsync = false);
    one("durability", Notice, Target, |_, t| t.server.synchronous_commit = "off".to_owned());
}

#[test]
fn clocks_that_differ() {
    let found = found(|s, _| s.server.clock_offset_seconds = -3.0);
    let (checks, sides): (Vec<_>, Vec<_>) = found.iter().map(|(check, _, side, _)| (*check, *side)).unzip();
    assert_eq!((checks, sides), (vec!["clock"; 2], vec![Some(Source), None]));
    // Over so slow a link nothing can be said.
    assert_eq!(
        self::found(|s, _| {
            s.server.clock_offset_seconds = 1.5;
            s.server.round_trip_seconds = 2.0;
        }),
        []
    );
}

#[test]
fn encodings_and_collations() {
    let encodings = |from: &str, to: &str| {
        let with = |encoding: &str| ServerFacts { encoding: encoding.to_owned(), ..server() };
        both::encodings(&with(from), &with(to)).severity
    };
    assert_eq!(encodings("SQL_ASCII", "UTF8"), Warning);
    assert_eq!(encodings("UTF8", "SQL_ASCII"), Warning);
    assert_eq!(encodings("UTF8", "LATIN1"), Warning);
    assert_eq!(encodings("LATIN1", "UTF8"), Severity::Ok);
    assert_eq!(encodings("SQL_ASCII", "SQL_ASCII"), Severity::Ok);
    one("collation", Notice, None, |_, t| t.server.collation_version = Some("2.36".to_owned()));
}

#[test]
fn extensions_are_needed_most_when_the_schema_is_still_to_be_copied() {
    let uses = |s: &mut SourceFacts| {
        s.server.extensions =
            vec![Extension { name: "hstore".into(), version: "1.8".into(), schema: "public".into() }];
    };
    let can = |t: &mut TargetFacts, may: bool| {
        t.server.available_extensions.insert("hstore".to_owned(), may);
    };
    let empty = |t: &mut TargetFacts| {
        t.tables.clear();
        t.access.clear();
    };
    one("extensions", Warning, Target, |s, _| uses(s));
    one("extensions", Error, Target, |s, t| {
        uses(s);
        empty(t);
    });
    one("extensions", Notice, Target, |s, t| {
        uses(s);
        empty(t);
        can(t, true);
    });
    let remedy = one("extensions", Error, Target, |s, t| {
        uses(s);
        empty(t);
        can(t, false);
    });
    assert_eq!(remedy, "CREATE EXTENSION \"hstore\" SCHEMA \"public\"; -- as superuser");
    one("extensions", Warning, Target, |s, t| {
        uses(s);
        can(t, true);
    });
    one("extensions", Notice, None, |s, t| {
        uses(s);
        t.server.extensions =
            vec![Extension { name: "hstore".into(), version: "1.4".into(), schema: "public".into() }];
    });
}

#[test]
fn roles_and_tablespaces_that_only_the_source_has() {
    let remedy = one("roles", Warning, Target, |s, _| s.roles_in_use.push("App".to_owned()));
    assert_eq!(remedy, "CREATE ROLE \"App\";");
    let remedy = one("tablespaces", Warning, Target, |s, _| {
        s.tablespaces_in_use.push(("fast".to_owned(), "/ssd".to_owned()));
    });
    assert!(remedy.starts_with("CREATE TABLESPACE \"fast\" LOCATION '/ssd'; -- "), "{remedy}");
}

#[test]
fn what_is_not_replicated_is_noticed() {
    one("unlogged_tables", Notice, Source, |s, _| {
        s.left_out.push(("unlogged_tables".to_owned(), TableName::new("public", "u")));
    });
    one("large_objects", Warning, Source, |s, _| s.large_objects = 3);
    one("selection", Warning, Source, |s, _| {
        s.tables.clear();
        s.all_tables.clear();
    });
    one("selection", Error, Source, |s, _| s.tables.clear());
}

#[test]
fn a_pattern_that_matches_nothing_is_told() {
    let selection = Selection::parse(["public.*", "pubic.*"], [""; 0]).unwrap();
    let findings = content::source(&source(), &selection);
    let bad: Vec<&Finding> = findings.iter().filter(|finding| finding.severity == Warning).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].subject.as_deref(), Some("pubic.*"));
}

#[test]
fn an_empty_target_is_not_compared() {
    assert_eq!(
        found(|_, t| {
            t.tables.clear();
            t.access.clear();
        }),
        []
    );
}

#[test]
fn a_target_that_lacks_one_of_two_tables_is_told_so() {
    one("missing_table", Error, Target, |s, _| {
        s.tables.push(crate::TableInfo { name: TableName::new("public", "u"), ..plain() });
    });
}

#[test]
fn by_their_root_partitions_are_not_needed_on_the_target() {
    let leaf = TableInfo { is_partition: true, ..plain() };
    let tables = [plain(), leaf];
    assert_eq!(needed(&tables, false).len(), 2);
    assert_eq!(needed(&tables, true), [plain()]);
}
