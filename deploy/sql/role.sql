-- The role that Relevo connects as, with what it needs and nothing more. PostgreSQL 14 to 18; where the versions differ,
-- the script does what the server's own needs. No superuser comes of it on any of them.
--
-- Run it as a superuser, connected to the database itself; again whenever you like, it adds what is missing:
--
--   psql -X -d shop -v side=source -v owners=shop_owner -f role.sql    -- the database that changes come from
--   psql -X -d shop -v side=target -v owners=shop_owner -f role.sql    -- the database that they go to
--   psql -X -d shop -v side=node   -v owners=shop_owner -f role.sql    -- each node, between which the role of the
--                                                                      -- primary moves: both, and the fence
--   psql -X -d shop -c '\password relevo'                              -- the password; no log and no file sees it
--
--   side     source, target or node
--   owners   the roles that own the tables, separated by commas. They must exist, and none may be a superuser: whoever
--            is a member of a superuser is as good as one. On a target also the roles that are to own the tables.
--   role     the role's name; relevo unless it is given
--
-- relevo check says what is missing afterwards, for this very pair of databases, with the statement that mends it.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?role}
\else
  \set role relevo
\endif
\if :{?side}
\else
  \set side ''
\endif
\if :{?owners}
\else
  \set owners ''
\endif

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = '';

-- psql puts no variables into quoted bodies; these settings take them there, until the end of the transaction.
SELECT set_config('relevo_role.role', :'role', true) AS a,
       set_config('relevo_role.side', :'side', true) AS b,
       set_config('relevo_role.owners', :'owners', true) AS c
\gset unused_

DO $$
DECLARE
    owner text;
    role text := current_setting('relevo_role.role');
BEGIN
    IF current_setting('relevo_role.side') NOT IN ('source', 'target', 'node') THEN
        RAISE EXCEPTION 'say what this database is: -v side=source, -v side=target or -v side=node';
    END IF;
    IF current_setting('relevo_role.owners') = '' THEN
        RAISE EXCEPTION 'name the roles that own the tables: -v owners=shop_owner, or several with commas between them';
    END IF;
    -- Making a superuser less than that is nobody's wish here.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = role AND rolsuper) THEN
        RAISE EXCEPTION 'role "%" is a superuser: give another name, -v role=...', role;
    END IF;
    FOREACH owner IN ARRAY string_to_array(current_setting('relevo_role.owners'), ',') LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = owner) THEN
            RAISE EXCEPTION 'there is no role "%", which is to own tables', owner;
        ELSIF EXISTS (SELECT FROM pg_roles WHERE rolname = owner AND rolsuper) THEN
            RAISE EXCEPTION 'role "%" is a superuser, and so would be its members: let another role own the tables', owner
                USING HINT = 'ALTER TABLE ... OWNER TO ...';
        END IF;
    END LOOP;
END
$$;

SELECT :'side' <> 'target' AS is_read,
       :'side' <> 'source' AS is_written,
       :'side' = 'node' AS is_node,
       current_setting('server_version_num')::int >= 150000 AS grants_parameters,
       current_setting('server_version_num')::int >= 160000 AS grants_options
\gset

-- The role. It may log in and has what its memberships give without asking for it.
SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role')
\gexec
SELECT format('ALTER ROLE %I LOGIN INHERIT', :'role')
\gexec

\if :is_read
-- To make, read and drop the slot.
SELECT format('ALTER ROLE %I REPLICATION', :'role')
\gexec
\endif

-- On a source: to publish the tables, which only their owner may; to read them and their sequences. On a target: to make,
-- write and truncate them, to make their indexes and keys, and to give them to their owner. On a node also: to put
-- triggers before them that refuse writes. To give something to an owner takes SET since version 16; on a source
-- nothing is given, so there it is left out.
SELECT format('GRANT %I TO %I', owner, :'role') || CASE
           WHEN NOT :'grants_options'::boolean THEN ''
           WHEN :'is_written'::boolean THEN ' WITH INHERIT TRUE, SET TRUE'
           WHEN pg_has_role(:'role', owner, 'MEMBER') THEN ' WITH INHERIT TRUE'
           ELSE ' WITH INHERIT TRUE, SET FALSE'
       END
  FROM unnest(string_to_array(:'owners', ',')) AS owner
 WHERE owner <> :'role'
\gexec

-- To connect, where that is not everybody's; to make schema relevo, on a source publications, and on a target the schemas
-- of the source. Who owns the database, or is a member of its owner, can do both already.
SELECT format('GRANT %s ON DATABASE %I TO %I', needed, current_database(), :'role')
  FROM unnest(ARRAY['CONNECT', 'CREATE']) AS needed
 WHERE NOT has_database_privilege(:'role', current_database(), needed)
\gexec

\if :is_written
-- To keep foreign keys and triggers from firing a second time, as they have fired on the source.
\if :grants_parameters
SELECT format('GRANT SET ON PARAMETER session_replication_role TO %I', :'role')
\gexec
\else
-- Version 14 cannot grant that. A superuser's function does it and nothing else.
CREATE SCHEMA IF NOT EXISTS relevo_rights;
CREATE OR REPLACE FUNCTION relevo_rights.replica_role(for_transaction boolean) RETURNS text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT pg_catalog.set_config('session_replication_role', 'replica', for_transaction) $$;
REVOKE ALL ON FUNCTION relevo_rights.replica_role(boolean) FROM PUBLIC;
SELECT format('GRANT USAGE ON SCHEMA relevo_rights TO %I', :'role')
UNION ALL
SELECT format('GRANT EXECUTE ON FUNCTION relevo_rights.replica_role(boolean) TO %I', :'role')
\gexec
\endif
\endif

\if :is_node
-- To make sessions read-only by default where the primary is not (ALTER DATABASE ... SET), which only the owner of the
-- database may.
DO $$
DECLARE
    owner text;
BEGIN
    SELECT pg_get_userbyid(d.datdba) INTO owner FROM pg_database d
     WHERE d.datname = current_database() AND NOT pg_has_role(current_setting('relevo_role.role'), d.datdba, 'USAGE');
    IF owner IS NOT NULL THEN
        RAISE EXCEPTION 'database "%" belongs to role "%", which is none of the owners that were named',
            current_database(), owner
            USING HINT = format('Name it among the owners, or if it is a superuser: ALTER DATABASE %I OWNER TO %I',
                current_database(), split_part(current_setting('relevo_role.owners'), ',', 1));
    END IF;
END
$$;
\endif

COMMIT;

-- Not granted, because nothing fails without them:
--   pg_monitor         relevo check then names transactions of others that would delay the slot
--   TEMPORARY          (everybody has it, unless it was revoked) many updates in one transaction are then faster
--   BYPASSRLS          only where row level security is FORCEd on the owner of tables; relevo check asks for it there
