//! Every SQL text of this crate, named. `$slot` and `$pid` are replaced by literals, because the same text goes over
//! an ordinary session and over the replication connection, which knows no parameters.

/// The slot and who holds it. Columns that a version does not have come as NULL by way of `to_jsonb`.
const INSPECT_SLOT: &str = "
SELECT s.slot_type = 'logical' AS logical, s.plugin, s.database, s.temporary, s.active, s.active_pid,
       s.restart_lsn, s.confirmed_flush_lsn, s.wal_status, s.safe_wal_size, s.two_phase,
       j.s->>'invalidation_reason' AS invalidation_reason,
       j.s->>'conflicting' AS conflicting,
       j.s->>'failover' AS failover,
       j.s->>'synced' AS synced,
       pg_wal_lsn_diff(w.lsn, s.restart_lsn)::bigint AS retained_bytes,
       w.lsn AS current_lsn,
       a.application_name AS holder_application, a.client_addr AS holder_address,
       a.backend_start AS holder_since, a.usename AS holder_role
FROM pg_catalog.pg_replication_slots AS s
     CROSS JOIN LATERAL (SELECT to_jsonb(s)) AS j(s)
     CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                             ELSE pg_current_wal_lsn() END) AS w(lsn)
     LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
WHERE s.slot_name = $slot";

/// Ends the walsender that holds the slot, if it still is the one that we mean.
const TERMINATE_HOLDER: &str = "
SELECT pg_terminate_backend(s.active_pid) AS terminated
FROM pg_catalog.pg_replication_slots AS s
     JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
WHERE s.slot_name = $slot AND s.active_pid = $pid AND a.application_name = $application";

/// A limit that was set for ordinary users would end the transaction behind the exported snapshot, and those in which
/// the walsender decodes. Not known before 17, so no start-up parameter.
pub(crate) const NO_TRANSACTION_TIMEOUT: &str = "SET transaction_timeout = 0";

/// How long the server waits for an answer, in milliseconds; 0: for ever.
pub(crate) const SENDER_TIMEOUT: &str =
    "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";

/// The encoding of a database whose texts are bytes of no known encoding.
pub(crate) const NO_ENCODING: &str = "SQL_ASCII";
/// With any other setting the server would check those bytes against that encoding. The target checks them against its
/// own, and not at all when it has none either.
pub(crate) const SEND_BYTES_AS_THEY_ARE: &str = "SET client_encoding = 'SQL_ASCII'";

/// See [`INSPECT_SLOT`].
pub(crate) fn inspect_slot(slot: &str) -> String {
    INSPECT_SLOT.replace("$slot", &literal(slot))
}

/// See [`TERMINATE_HOLDER`].
pub(crate) fn terminate_holder(slot: &str, pid: i32, application: &str) -> String {
    TERMINATE_HOLDER
        .replace("$pid", &pid.to_string())
        .replace("$slot", &literal(slot))
        .replace("$application", &literal(application))
}

/// A string as an SQL literal, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// A name as an SQL identifier.
pub(crate) fn identifier(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}
