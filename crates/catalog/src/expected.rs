//! What each check expects: the state in which its verdict is `ok`.

/// What is expected, in a few words; `None` of a check that is not known here.
pub(crate) fn expected(check: &str) -> Option<&'static str> {
    Some(match check {
        "connect" => "a session on either side",
        "catalog" | "unanswered" => "system catalogs that can be read",
        "version" => "PostgreSQL 14 to 18",
        "same_database" => "two databases",
        "in_recovery" => "a primary",
        "read_only" => "a server that takes writes",
        "wal_level" => "wal_level = logical",
        "replication_slots" => "a free replication slot, or the flow's own",
        "wal_senders" => "a free WAL sender, or the flow's own",
        "slot" => "no slot of this name, or the flow's own in good order",
        "output_plugin" => "a slot with pgoutput within 5 s",
        "slot_retention" => "a limit to the WAL that a slot may keep, and none to how long it may wait",
        "long_transactions" => {
            "no transaction that writes and is older than a minute, and the right to see them"
        }
        "durability" => "fsync and synchronous_commit on",
        "clock" => "clocks within a second of each other",
        "encoding" => "the source's encoding, or UTF8",
        "collation" => "the same collation on both sides",
        "extensions" => "the source's extensions on the target, of the same version",
        "roles" => "the source's roles on the target",
        "tablespaces" => "the source's tablespaces on the target",
        "replication_right" => "the attribute REPLICATION",
        "schema_rights" => "USAGE on every schema",
        "table_rights" => "SELECT on the source; SELECT, INSERT, UPDATE, DELETE and TRUNCATE on the target",
        "sequence_rights" => "SELECT on every sequence",
        "publication_right" => "membership in the owner of every table",
        "schema_create_right" => "CREATE on the schemas in which tables are to be made",
        "owner_right" => "membership in the owners of the source's tables",
        "database_owner" => "a node's database of its own, or of a role that it is a member of",
        "guard_right" => "membership in the owner of every table of a node",
        "create_right" => "CREATE on the database, and a schema relevo of its own",
        "replica_role" => "the right to set session_replication_role",
        "row_security" => "no row level security for this role",
        "selection" | "unmatched_pattern" => "tables that the patterns choose",
        "partition_selection" => "all partitions of a table, or none",
        "unlogged_tables" | "foreign_tables" | "materialized_views" | "large_objects" => "none",
        "replica_identity" | "partition_identity" => "a primary key, or another replica identity",
        "tables_match" => "tables that fit on both sides",
        "missing_table" | "missing_column" => "what the source has",
        "extra_column" => "NULL allowed, or a default",
        "generated_column" => "generated on both sides, or on none",
        "column_type" => "a type that takes every value of the source's",
        "column_not_null" => "NULL allowed, as on the source",
        "target_key" => "a unique key over the columns by which the source names rows",
        "extra_key" => "no unique key that the source lacks",
        "partitions" => "the same partitions on both sides",
        "replica_triggers" => "no trigger or rule that fires for replicated changes",
        "pg_dump" => "a pg_dump of the source's major version or newer",
        "publication_missing" | "publication_settings" | "publication_table" | "publication_identity" => {
            "publications as Relevo makes them"
        }
        "table_exists" => "no such table on the target",
        "table_not_empty" => "an empty table",
        "table_of_other_flow" => "a table of no other flow",
        _ => return None,
    })
}
