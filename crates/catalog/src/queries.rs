//! Every query of a system catalog that this crate makes.
//!
//! All work on PostgreSQL 14 to 18 and with an empty `search_path`: every name is qualified (operators and the
//! types' names in casts are found in `pg_catalog`, which is always searched). What only some versions have is
//! read through `to_jsonb(row)`, where a missing column is simply NULL.

/// Tables. `$1`: every user table (true) or those named by the arrays `$2` (schemas) and `$3` (names).
///
/// `pg_table_size` waits for a table that somebody holds under ACCESS EXCLUSIVE; so would the copy.
pub(crate) const TABLES: &str = "
SELECT c.oid,
       n.nspname::text AS schema,
       c.relname::text AS name,
       c.relkind::text AS kind,
       c.relreplident::text AS replica_identity,
       c.relispartition AS is_partition,
       rn.nspname::text AS root_schema,
       rc.relname::text AS root_name,
       CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_key,
       CASE WHEN c.relispartition THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END AS partition_bound,
       EXISTS (SELECT 1
                 FROM pg_catalog.pg_trigger t
                WHERE t.tgrelid = c.oid AND t.tgenabled IN ('R', 'A'))
       OR EXISTS (SELECT 1
                    FROM pg_catalog.pg_rewrite r
                   WHERE r.ev_class = c.oid AND r.ev_enabled IN ('R', 'A') AND r.ev_type <> '1')
       OR CASE WHEN c.relkind = 'p'
               THEN EXISTS (SELECT 1
                              FROM pg_catalog.pg_partition_tree(c.oid) leaf
                              JOIN pg_catalog.pg_trigger t ON t.tgrelid = leaf.relid
                             WHERE t.tgenabled IN ('R', 'A'))
               ELSE false END AS fires_in_replica,
       coalesce(pg_catalog.pg_table_size(c.oid), 0) AS bytes,
       c.reltuples::bigint AS rows_estimate,
       e.extname::text AS extension
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class rc
         ON c.relispartition AND rc.oid = pg_catalog.pg_partition_root(c.oid)
  LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
  LEFT JOIN pg_catalog.pg_depend d
         ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
        AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
 WHERE c.relkind IN ('r', 'p')
   AND CASE WHEN $1::boolean
            THEN c.relpersistence = 'p'
             AND n.nspname NOT LIKE 'pg\\_%'
             AND n.nspname NOT IN ('information_schema', 'relevo')
             AND (e.oid IS NULL OR c.oid = ANY (e.extconfig))
            ELSE (n.nspname::text, c.relname::text)
                 IN (SELECT wanted.s, wanted.t FROM unnest($2::text[], $3::text[]) AS wanted(s, t)) END
 ORDER BY n.nspname::text COLLATE \"C\", c.relname::text COLLATE \"C\"";

/// Tables with rows, whether the publications `$1` and `$2` reach them (themselves, or by a table above them), and
/// how many rows were updated and deleted in them. The same tables as [`TABLES`] with `true`.
pub(crate) const PUBLISHED: &str = "
WITH listed AS MATERIALIZED (
    SELECT p.pubname::text AS publication, c.oid
      FROM pg_catalog.pg_publication_tables p
      JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
      JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
     WHERE p.pubname IN ($1, $2)),
up AS (
    SELECT c.oid AS leaf, c.oid AS above FROM pg_catalog.pg_class c WHERE c.relkind = 'r'
    UNION ALL
    SELECT c.oid, a.relid
      FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(c.oid) a
     WHERE c.relkind = 'r' AND c.relispartition),
reach AS (
    SELECT up.leaf,
           pg_catalog.bool_or(l.publication = $1) AS whole,
           pg_catalog.bool_or(l.publication = $2) AS inserts
      FROM up JOIN listed l ON l.oid = up.above
     GROUP BY up.leaf)
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       rn.nspname::text AS root_schema,
       rc.relname::text AS root_name,
       coalesce(reach.whole, false) AS whole,
       coalesce(reach.inserts, false) AS inserts,
       coalesce(pg_catalog.pg_stat_get_tuples_updated(c.oid) + pg_catalog.pg_stat_get_tuples_deleted(c.oid), 0)
           AS changes
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class rc
         ON c.relispartition AND rc.oid = pg_catalog.pg_partition_root(c.oid)
  LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
  LEFT JOIN pg_catalog.pg_depend d
         ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
        AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
  LEFT JOIN reach ON reach.leaf = c.oid
 WHERE c.relkind = 'r' AND c.relpersistence = 'p'
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'relevo')
   AND (e.oid IS NULL OR c.oid = ANY (e.extconfig))
 ORDER BY n.nspname::text COLLATE \"C\", c.relname::text COLLATE \"C\"";

/// The live columns of the tables `$1` (OIDs).
pub(crate) const COLUMNS: &str = "
SELECT a.attrelid AS table_oid,
       a.attname::text AS name,
       a.attnum AS position,
       a.atttypid AS type_oid,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_sql,
       a.attnotnull AS not_null,
       (a.atthasdef AND a.attgenerated = '') OR (t.typtype = 'd' AND t.typdefault IS NOT NULL) AS has_default,
       a.attidentity::text AS identity,
       a.attgenerated::text AS generated,
       coalesce(l.collisdeterministic, true) AS collation_deterministic
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum";

/// The indexes of the tables `$1` (OIDs) that identify rows: unique, valid, checked at once (not deferrable),
/// over plain columns, without a predicate. The same conditions as `RelationGetIndexList` in
/// `utils/cache/relcache.c` puts to a replica identity.
pub(crate) const UNIQUE_KEYS: &str = "
SELECT i.indrelid AS table_oid,
       i.indisprimary AS is_primary,
       i.indisreplident AS is_replica_identity,
       ARRAY(SELECT a.attname::text
               FROM generate_series(0, i.indnkeyatts - 1) AS k(n)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n]
              ORDER BY k.n) AS columns
  FROM pg_catalog.pg_index i
 WHERE i.indrelid = ANY ($1::oid[])
   AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate
   AND i.indpred IS NULL AND i.indexprs IS NULL
 ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid";

/// The equality operator of each of the types `$1` (OIDs): that of the default btree or else hash operator
/// class of the type under any domains, found as `GetDefaultOpClass` in `commands/indexcmds.c` finds it:
/// exactly, else through an implicit binary-coercible cast (the preferred type first), else as an enum.
pub(crate) const EQUALITY: &str = "
WITH RECURSIVE base(wanted, oid) AS (
    SELECT t.oid, t.oid FROM pg_catalog.pg_type t WHERE t.oid = ANY ($1::oid[])
    UNION ALL
    SELECT b.wanted, t.typbasetype
      FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid
     WHERE t.typtype = 'd'),
scalar AS (
    SELECT b.wanted, t.oid, t.typtype
      FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid
     WHERE t.typtype IN ('b', 'e') AND t.typcategory <> 'A'),
candidate AS (
    SELECT s.wanted, s.oid AS input, 0 AS distance FROM scalar s
    UNION ALL
    SELECT s.wanted, c.casttarget, CASE WHEN t.typispreferred THEN 1 ELSE 2 END
      FROM scalar s
      JOIN pg_catalog.pg_cast c ON c.castsource = s.oid AND c.castmethod = 'b' AND c.castcontext = 'i'
      JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
    UNION ALL
    SELECT s.wanted, 'pg_catalog.anyenum'::regtype, 3 FROM scalar s WHERE s.typtype = 'e')
SELECT DISTINCT ON (c.wanted)
       c.wanted AS type_oid,
       'OPERATOR(' || pg_catalog.quote_ident(n.nspname) || '.' || o.oprname || ')' AS equality
  FROM candidate c
  JOIN pg_catalog.pg_opclass oc ON oc.opcintype = c.input AND oc.opcdefault
  JOIN pg_catalog.pg_am am ON am.oid = oc.opcmethod AND am.amname IN ('btree', 'hash')
  JOIN pg_catalog.pg_amop ao
    ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
   AND ao.amopstrategy = CASE am.amname WHEN 'btree' THEN 3 ELSE 1 END
  JOIN pg_catalog.pg_operator o ON o.oid = ao.amopopr
  JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
 ORDER BY c.wanted, c.distance, am.amname";

/// The server's version, as in `server_version_num`.
pub(crate) const VERSION: &str = "SELECT pg_catalog.current_setting('server_version_num')::integer";

/// The sequences that users made, with their owners.
pub(crate) const SEQUENCES: &str = "
SELECT c.oid,
       n.nspname::text AS schema,
       c.relname::text AS name,
       s.seqincrement AS increment,
       coalesce(d.deptype = 'i', false) AS identity,
       own.nspname::text AS owner_schema,
       o.relname::text AS owner_table,
       a.attname::text AS owner_column,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT') AS readable
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
  LEFT JOIN pg_catalog.pg_depend d
         ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
  LEFT JOIN pg_catalog.pg_class o ON o.oid = d.refobjid
  LEFT JOIN pg_catalog.pg_namespace own ON own.oid = o.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE c.relkind = 'S' AND c.relpersistence = 'p'
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'relevo')
   AND NOT EXISTS (SELECT 1
                     FROM pg_catalog.pg_depend e
                    WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid
                      AND e.deptype = 'e')
 ORDER BY n.nspname::text COLLATE \"C\", c.relname::text COLLATE \"C\"";

/// Where the given sequences (OID and quoted name) stand. Each is a relation with one row; `pg_sequences` does
/// not tell a fresh one from one that `setval(…, false)` put somewhere else.
pub(crate) fn sequence_values(sequences: &[(u32, String)]) -> String {
    let one =
        |(oid, name): &(u32, String)| format!("SELECT {oid}::oid AS oid, last_value, is_called FROM {name}");
    sequences.iter().map(one).collect::<Vec<_>>().join("\nUNION ALL ")
}

/// The settings that matter to a flow, in the units of `pg_settings`. Relevo's own sessions switch
/// `default_transaction_read_only` off; what it is for others is its value after RESET.
pub(crate) const SETTINGS: &str = "
SELECT s.name, CASE WHEN s.name = 'default_transaction_read_only' THEN s.reset_val ELSE s.setting END AS setting
  FROM pg_catalog.pg_settings s
 WHERE s.name IN ('server_version', 'default_transaction_read_only', 'wal_level',
                  'max_replication_slots', 'max_wal_senders', 'wal_sender_timeout', 'max_slot_wal_keep_size',
                  'idle_replication_slot_timeout', 'logical_decoding_work_mem', 'max_prepared_transactions',
                  'fsync', 'synchronous_commit', 'wal_block_size', 'wal_segment_size', 'block_size')";

/// The server, the database and the role. `pg_walfile_name` begins with the present timeline but may not be
/// called during recovery.
pub(crate) const SERVER: &str = "
SELECT pg_catalog.current_setting('server_version_num')::integer AS version_num,
       (pg_catalog.pg_control_system()).system_identifier AS system_id,
       CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN (pg_catalog.pg_control_checkpoint()).timeline_id::bigint
            ELSE ('x' || pg_catalog.substr(
                     pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint
       END AS timeline,
       (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS started_unix_us,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS used_replication_slots,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS used_wal_senders,
       current_user::text AS role,
       r.rolsuper AS superuser,
       r.rolsuper OR r.rolreplication
       OR EXISTS (SELECT 1
                    FROM pg_catalog.pg_roles m
                   WHERE m.rolname = 'rds_replication' AND pg_catalog.pg_has_role(m.oid, 'MEMBER'))
           AS replication,
       r.rolsuper OR r.rolbypassrls AS bypass_rls,
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_activity,
       d.datname::text AS database,
       pg_catalog.has_database_privilege(d.oid, 'CREATE') AS create_on_database,
       pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
       d.datcollate::text AS collate,
       d.datctype::text AS ctype,
       j.row ->> 'datlocprovider' AS provider,
       coalesce(j.row ->> 'datlocale', j.row ->> 'daticulocale') AS locale,
       j.row ->> 'datcollversion' AS collation_version,
       (SELECT min(a.rolname::text)
          FROM pg_catalog.pg_roles a
         WHERE a.rolname IN ('rdsadmin', 'cloudsqladmin', 'alloydbadmin', 'azuresu')) AS managed_by
  FROM pg_catalog.pg_database d
  CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(d) AS row) j
  JOIN pg_catalog.pg_roles r ON r.rolname = current_user
 WHERE d.datname = pg_catalog.current_database()";

/// The server's clock in seconds since 1970.
pub(crate) const CLOCK: &str = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::double precision";

/// The installed extensions.
pub(crate) const EXTENSIONS: &str = "
SELECT e.extname::text AS name, e.extversion AS version, n.nspname::text AS schema
  FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 ORDER BY e.extname::text COLLATE \"C\"";

/// The extensions whose files are there, and whether a role with CREATE on the database may install them.
pub(crate) const AVAILABLE_EXTENSIONS: &str = "
SELECT v.name::text AS name, pg_catalog.bool_or(v.trusted OR NOT v.superuser) AS anybody
  FROM pg_catalog.pg_available_extension_versions v
 GROUP BY v.name";
