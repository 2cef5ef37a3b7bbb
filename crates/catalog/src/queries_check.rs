//! The queries that only `relevo check` makes. The rules of `queries.rs` hold here too.

/// What the connected role may do with the tables `$1` (OIDs).
pub(crate) const ACCESS: &str = "
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       coalesce((SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.oid = c.relowner), false) AS owner_superuser,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owns,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS schema_usage,
       ARRAY(SELECT p.name
               FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS p(name)
              WHERE pg_catalog.has_table_privilege(c.oid, p.name)) AS privileges,
       pg_catalog.row_security_active(c.oid) AS row_security
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY ($1::oid[])
 ORDER BY n.nspname::text COLLATE \"C\", c.relname::text COLLATE \"C\"";

/// The slot named `$1`. What only newer versions have: `invalidation_reason` (17), `conflicting` (16, where it is
/// also set for a slot that is merely lost).
pub(crate) const SLOT: &str = "
SELECT j.row ->> 'plugin' AS plugin,
       j.row ->> 'database' AS database,
       j.row ->> 'wal_status' AS wal_status,
       CASE WHEN j.row ->> 'wal_status' = 'lost' THEN j.row ->> 'invalidation_reason'
            ELSE coalesce(j.row ->> 'invalidation_reason',
                          CASE WHEN (j.row ->> 'conflicting')::boolean THEN 'conflict with recovery' END)
       END AS invalidation,
       s.active_pid
  FROM pg_catalog.pg_replication_slots s
  CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(s) AS row) j
 WHERE s.slot_name = $1";

/// Transactions that are older than `$1` seconds and hold a transaction id, here or prepared: the creation of a
/// slot waits for them, and an existing one keeps the WAL since they began. A role that may not see other
/// roles' sessions gets no start of their transactions, and so not these rows.
pub(crate) const LONG_TRANSACTIONS: &str = "
SELECT 'process ' || a.pid || coalesce(' (' || nullif(a.application_name, '') || ')', '') AS holder,
       coalesce(a.datname::text, '') AS database,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::double precision AS age_seconds,
       'SELECT pg_catalog.pg_terminate_backend(' || a.pid || ');' AS remedy
  FROM pg_catalog.pg_stat_activity a
 WHERE a.backend_xid IS NOT NULL
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND pg_catalog.clock_timestamp() - a.xact_start > pg_catalog.make_interval(secs => $1)
UNION ALL
SELECT 'prepared transaction ' || pg_catalog.quote_literal(p.gid),
       p.database::text,
       extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::double precision,
       'ROLLBACK PREPARED ' || pg_catalog.quote_literal(p.gid) || '; -- or COMMIT PREPARED'
  FROM pg_catalog.pg_prepared_xacts p
 WHERE pg_catalog.clock_timestamp() - p.prepared > pg_catalog.make_interval(secs => $1)
 ORDER BY 3 DESC";

/// Relations with rows of their own that logical replication does not carry.
pub(crate) const LEFT_OUT: &str = "
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       CASE WHEN c.relkind = 'f' THEN 'foreign_tables'
            WHEN c.relkind = 'm' THEN 'materialized_views'
            ELSE 'unlogged_tables' END AS kind
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE (c.relkind IN ('f', 'm') OR (c.relkind IN ('r', 'p') AND c.relpersistence = 'u'))
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'relevo')
   AND NOT EXISTS (SELECT 1
                     FROM pg_catalog.pg_depend e
                    WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid
                      AND e.deptype = 'e')
 ORDER BY kind, n.nspname::text COLLATE \"C\", c.relname::text COLLATE \"C\"";

/// How many large objects the database has.
pub(crate) const LARGE_OBJECTS: &str = "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata";

/// The roles that own something in this database or are named in its privileges and policies. The bootstrap
/// superuser is nowhere recorded as such, only as an owner.
pub(crate) const ROLES_IN_USE: &str = "
SELECT r.rolname::text
  FROM pg_catalog.pg_shdepend d
  JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
 WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.deptype IN ('o', 'a', 'r')
   AND d.dbid = (SELECT b.oid FROM pg_catalog.pg_database b
                  WHERE b.datname = pg_catalog.current_database())
   AND r.rolname NOT LIKE 'pg\\_%'
UNION
SELECT pg_catalog.pg_get_userbyid(c.relowner)::text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'relevo')
 ORDER BY 1";

/// All roles.
pub(crate) const ROLES: &str = "SELECT r.rolname::text FROM pg_catalog.pg_roles r";

/// The tablespaces that user tables and indexes of this database are put into by name, and where they are.
pub(crate) const TABLESPACES_IN_USE: &str = "
SELECT DISTINCT t.spcname::text AS name, pg_catalog.pg_tablespace_location(t.oid) AS location
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
 WHERE t.spcname <> 'pg_global' AND c.relpersistence <> 't'
 ORDER BY 1";

/// All tablespaces.
pub(crate) const TABLESPACES: &str = "SELECT t.spcname::text FROM pg_catalog.pg_tablespace t";

/// The schemas among `$1` in which the role, or an owner at the same place of `$2` that it can act for, may not create.
/// `$3`: by which privilege one role acts for another, `MEMBER` or (since version 16) `SET`. A superuser makes tables
/// anywhere, and gives them to anybody.
pub(crate) const CLOSED_SCHEMAS: &str = "
SELECT DISTINCT n.nspname::text AS schema, r.rolname::text AS role
  FROM ROWS FROM (unnest($1::text[]), unnest($2::text[])) AS w (schema, owner)
  JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
  JOIN pg_catalog.pg_roles r ON r.rolname IN (w.owner, current_user)
 WHERE NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')
   AND NOT pg_catalog.current_setting('is_superuser')::bool
   AND (r.rolname = current_user OR pg_catalog.pg_has_role(r.oid, $3))
 ORDER BY 1, 2";

/// Those of the roles `$1` that the role cannot give anything to. `$2`: as above.
pub(crate) const STRANGERS: &str = "
SELECT r.rolname::text, r.rolsuper
  FROM pg_catalog.pg_roles r
 WHERE r.rolname = ANY ($1::text[]) AND NOT pg_catalog.pg_has_role(r.oid, $2)
 ORDER BY 1";

/// Of the database: its owner, whether that is a superuser, whether the role is or is a member of it, and who should own
/// it instead of a superuser: the role that owns most tables and is none itself.
pub(crate) const DATABASE_OWNER: &str = "
SELECT o.rolname::text AS owner, o.rolsuper AS superuser, pg_catalog.pg_has_role(o.oid, 'USAGE') AS owns,
       (SELECT r.rolname::text
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_roles r ON r.oid = c.relowner AND NOT r.rolsuper
         WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%'
           AND n.nspname NOT IN ('information_schema', 'relevo')
         GROUP BY r.rolname ORDER BY count(*) DESC, r.rolname LIMIT 1) AS better
  FROM pg_catalog.pg_database d
  JOIN pg_catalog.pg_roles o ON o.oid = d.datdba
 WHERE d.datname = pg_catalog.current_database()";

/// The tables that the role could not guard, as whoever sets a fence sees them: of users, permanent or unlogged, of
/// extensions only those that the role owns.
pub(crate) const UNGUARDED: &str = "
SELECT n.nspname::text AS schema, c.relname::text AS name, o.rolname::text AS owner, o.rolsuper AS owner_superuser
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'relevo')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
 ORDER BY 1, 2";

/// Whether schema `relevo` is there, and whether the role may use it and create in it.
pub(crate) const RELEVO_SCHEMA: &str = "
SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname = 'relevo'";

/// The publications named by `$1` that exist, with their owners.
pub(crate) const PUBLICATIONS: &str = "
SELECT p.pubname::text AS name,
       pg_catalog.pg_get_userbyid(p.pubowner)::text AS owner,
       pg_catalog.pg_has_role(p.pubowner, 'USAGE') AS owns
  FROM pg_catalog.pg_publication p
 WHERE p.pubname = ANY ($1::text[])
 ORDER BY p.pubname";

/// The process that serves this session: what makes the trial slot's name its own.
pub(crate) const BACKEND_PID: &str = "SELECT pg_catalog.pg_backend_pid()";

/// Creates a temporary slot with `pgoutput` and drops it: the only way to learn whether the output plugin may be
/// used and works. One implicit transaction, so that the timeouts end with it. `name` holds only what a slot's
/// name may hold.
pub(crate) fn try_slot(name: &str, timeout_ms: u32) -> String {
    format!(
        "SET LOCAL statement_timeout = {timeout_ms};\n\
         SELECT pg_catalog.pg_create_logical_replication_slot('{name}', 'pgoutput', true);\n\
         SELECT pg_catalog.pg_drop_replication_slot('{name}')"
    )
}
