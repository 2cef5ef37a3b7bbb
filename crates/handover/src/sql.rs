//! The SQL of this crate that concerns user tables and the server; schema `relevo` is the business of `relevo_state`.

/// The tables that a guard has to stand before: every table of a user that outlives its session. `guard`: how its trigger
/// is enabled, NULL without one. Tables of an extension that others own are left out: their owners answer for them.
pub(crate) const TABLES: &str = "
SELECT n.nspname, c.relname, t.tgenabled::text, pg_catalog.pg_has_role(c.relowner, 'USAGE')
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid AND t.tgname = 'relevo_guard' AND NOT t.tgisinternal
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'relevo')
   AND (pg_catalog.pg_has_role(c.relowner, 'USAGE') OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.objid = c.oid AND d.deptype = 'e'))
 ORDER BY 1, 2";

/// Who holds locks that a hand-over waits for, the oldest transaction first: on tables of this database, or as one that has
/// written anywhere, for which the making of a slot waits.
pub(crate) const HOLDERS: &str = "
SELECT 'pid ' || a.pid || ', ' || coalesce(a.usename::text, '?') || ', '
       || coalesce(nullif(a.application_name, ''), 'no application name') || ', ' || coalesce(a.state, '?')
       || ' for ' || pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp()
            - CASE WHEN a.state = 'active' THEN a.query_start ELSE a.state_change END)) || ' s, transaction open for '
       || pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)) || ' s'
  FROM pg_catalog.pg_stat_activity a
 WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type = 'client backend' AND a.xact_start IS NOT NULL
   AND (a.backend_xid IS NOT NULL OR EXISTS (SELECT FROM pg_catalog.pg_locks l
        WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted
          AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
          AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
                         'ExclusiveLock', 'AccessExclusiveLock')))
 ORDER BY a.xact_start
 LIMIT 5";

/// Where the WAL ends, and what stands in the way of a fence.
pub(crate) const FACTS: &str = "
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_insert_lsn() END,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts x WHERE x.database = pg_catalog.current_database()),
       (SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') FROM pg_catalog.pg_database d
         WHERE d.datname = pg_catalog.current_database()),
       (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)";

/// Relevo's slots in this database. One that is just being made has no position yet.
pub(crate) const SLOTS: &str = "SELECT slot_name::text, confirmed_flush_lsn FROM pg_catalog.pg_replication_slots \
     WHERE confirmed_flush_lsn IS NOT NULL AND plugin = 'pgoutput' AND database = pg_catalog.current_database()";

/// Whether somebody applies: holds the advisory lock `$1`.
pub(crate) const APPLIES: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND ((l.classid::bigint << 32) | l.objid::bigint) = $1)";

/// The same, and it is in the middle of something.
pub(crate) const APPLIES_NOW: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 AND a.xact_start IS NOT NULL)";

/// Ends who holds the advisory lock `$1`: the session that applies, of a Relevo that then waits for the lock.
pub(crate) const END_APPLIER: &str = "
SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks l
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_catalog.pg_backend_pid()
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND ((l.classid::bigint << 32) | l.objid::bigint) = $1";

/// Where the next record of the WAL will begin.
pub(crate) const INSERT_LSN: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()";

/// A transaction that arrives on the standbys, behind everything that was committed before it.
pub(crate) const MARK: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'relevo', 'handover')";

/// Moves every sequence ahead by `$1` of its increments, as far as it goes, and says how many moved. (`CASE`: the server may
/// ask for the privilege before it knows that it is a sequence.)
pub(crate) const ADVANCE_SEQUENCES: &str = "
SELECT pg_catalog.count(pg_catalog.setval(c.oid,
       CASE WHEN s.seqincrement > 0
            THEN least(coalesce(v.last_value, s.seqstart)::numeric + s.seqincrement::numeric * $1::bigint, s.seqmax)
            ELSE greatest(coalesce(v.last_value, s.seqstart)::numeric + s.seqincrement::numeric * $1::bigint, s.seqmin)
       END::bigint))
  FROM pg_catalog.pg_sequence s
  JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_sequences v ON v.schemaname = n.nspname AND v.sequencename = c.relname
 WHERE n.nspname <> 'relevo' AND n.nspname NOT LIKE 'pg\\_%' AND c.relpersistence <> 't'
   AND CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'UPDATE') END";

/// The slots `relevo_armed_…` of this database.
pub(crate) const ARMED_SLOTS: &str = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots \
     WHERE slot_name LIKE 'relevo\\_armed\\_%' AND plugin = 'pgoutput' AND database = pg_catalog.current_database() \
     ORDER BY 1";
/// The same, each with the WAL that it keeps, in bytes.
pub(crate) const ARMED_RETAINED: &str = "SELECT slot_name::text, \
     pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint \
     FROM pg_catalog.pg_replication_slots WHERE slot_name LIKE 'relevo\\_armed\\_%' AND plugin = 'pgoutput' \
     AND database = pg_catalog.current_database() AND restart_lsn IS NOT NULL";
/// How far the reader of slot `$1` is, and whether somebody reads it.
pub(crate) const READER: &str = "SELECT active, confirmed_flush_lsn FROM pg_catalog.pg_replication_slots \
     WHERE slot_name = $1 AND confirmed_flush_lsn IS NOT NULL";
pub(crate) const ADVANCE_SLOT: &str = "SELECT 1 FROM pg_catalog.pg_replication_slot_advance($1, $2)";
/// The copy begins where slot `$1` begins, and keeps the WAL and the catalogs that it keeps.
pub(crate) const COPY_SLOT: &str = "SELECT 1 FROM pg_catalog.pg_copy_logical_replication_slot($1, $2, false)";
/// Who waits here keeps nobody waiting: what is armed can be armed a moment later.
pub(crate) const IMPATIENT: &str = "SET lock_timeout = '1s'";

pub(crate) const CREATE_SLOT: &str =
    "SELECT 1 FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')";
/// Ends whoever reads the slot, then drops it: only a slot that nobody reads can be dropped.
pub(crate) const END_READER: &str = "SELECT pg_catalog.pg_terminate_backend(s.active_pid) \
     FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1 AND s.active";
pub(crate) const DROP_SLOT: &str = "SELECT pg_catalog.pg_drop_replication_slot(s.slot_name) \
     FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1";

/// The database, and whether the role may make event triggers.
pub(crate) const DATABASE: &str = "SELECT pg_catalog.current_database()::text, r.rolsuper \
     FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

/// Sequences that belong to a column by which an index begins, so that its greatest value is found at once: sequence, table
/// and column as SQL, and whether it goes upwards.
pub(crate) const OWNED_SEQUENCES: &str = "
SELECT pg_catalog.format('%I.%I', sn.nspname, s.relname), pg_catalog.format('%I.%I', tn.nspname, t.relname),
       pg_catalog.quote_ident(a.attname), q.seqincrement > 0
  FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
  JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
  JOIN pg_catalog.pg_class t ON t.oid = d.refobjid AND t.relkind IN ('r', 'p') AND t.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND tn.nspname <> 'relevo'
   AND a.atttypid IN (20, 21, 23)
   AND CASE WHEN s.relkind = 'S' THEN pg_catalog.has_sequence_privilege(s.oid, 'UPDATE') END
   AND pg_catalog.has_table_privilege(t.oid, 'SELECT')
   AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = t.oid AND i.indisvalid AND i.indpred IS NULL
                  AND i.indkey[0] = a.attnum)";

/// Moves a sequence to the outermost value of its column, if it lies behind that.
pub(crate) fn catch_up(sequence: &str, table: &str, column: &str, upwards: bool) -> String {
    let (outermost, behind) = if upwards { ("max", "<") } else { ("min", ">") };
    format!(
        "SELECT pg_catalog.setval('{}', v.value) FROM {sequence} AS s, \
         (SELECT pg_catalog.{outermost}({column})::bigint AS value FROM {table}) AS v \
         WHERE v.value IS NOT NULL AND s.last_value {behind} v.value",
        sequence.replace('\'', "''")
    )
}
