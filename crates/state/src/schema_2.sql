-- Version 2 of schema relevo: nodes, epochs and the hand-over; and holding a flow at a position.
ALTER TABLE relevo.progress
    ADD COLUMN hold_lsn   pg_lsn,
    ADD COLUMN hold_until timestamptz;
COMMENT ON COLUMN relevo.progress.hold_lsn IS 'Nothing behind this LSN is applied before hold_until: somebody compares both sides at this very position.';
COMMENT ON COLUMN relevo.progress.hold_until IS 'When the hold ends by itself, by this database''s clock: whoever asked for it may have been killed.';

CREATE TABLE relevo.verification (
    flow        text        NOT NULL REFERENCES relevo.flow ON DELETE CASCADE,
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    verified_at timestamptz NOT NULL DEFAULT now(),
    lsn         pg_lsn      NOT NULL,
    rows        bigint      NOT NULL,
    differences bigint      NOT NULL,
    PRIMARY KEY (flow, schema_name, table_name)
);
COMMENT ON TABLE relevo.verification IS 'What relevo verify last said of each table.';
COMMENT ON COLUMN relevo.verification.lsn IS 'The position of the source at which both sides were compared.';
COMMENT ON COLUMN relevo.verification.rows IS 'How many rows the source had.';
COMMENT ON COLUMN relevo.verification.differences IS 'Rows that were missing on the target, too many or different, less those that relevo repair has mended since.';

CREATE TABLE relevo.node (
    only_row     boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster      text        NOT NULL,
    name         text        NOT NULL,
    epoch        bigint      NOT NULL CHECK (epoch > 0),
    primary_node text        NOT NULL,
    fenced       boolean     NOT NULL,
    fence_lsn    pg_lsn,
    promised_to  text,
    heartbeat_at timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE relevo.node IS 'What this database is: one row. Which node is the primary is what the highest epoch of all nodes says.';
COMMENT ON COLUMN relevo.node.cluster IS 'The name in the configuration file that all nodes share.';
COMMENT ON COLUMN relevo.node.name IS 'The node that this database is.';
COMMENT ON COLUMN relevo.node.epoch IS 'How many times the role of the primary was given, as far as this database knows.';
COMMENT ON COLUMN relevo.node.primary_node IS 'Who has the role in that epoch.';
COMMENT ON COLUMN relevo.node.fenced IS 'Ordinary sessions cannot write here: the triggers relevo_guard are enabled, and sessions are read-only by default.';
COMMENT ON COLUMN relevo.node.fence_lsn IS 'Of a fenced primary: where its WAL ended behind the last write that an ordinary session could commit.';
COMMENT ON COLUMN relevo.node.promised_to IS 'Of a primary that is fenced for a switchover: to which node.';
COMMENT ON COLUMN relevo.node.heartbeat_at IS 'When the Relevo beside this database last said that it lives.';

CREATE TABLE relevo.handover (
    id           text        NOT NULL PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('init', 'switchover', 'failover', 'rejoin', 'fence')),
    state        text        NOT NULL CHECK (state IN ('running', 'done', 'rolled back')),
    epoch        bigint      NOT NULL,
    from_node    text,
    to_node      text        NOT NULL,
    step         text,
    requested_by text        NOT NULL,
    started_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    old_system_id text,
    old_lsn      pg_lsn,
    old_commit_time timestamptz,
    new_lsn      pg_lsn,
    pause_ms     bigint,
    loss         text,
    on_fence     text        CHECK (on_fence IN ('due', 'failed', 'done')),
    on_promote   text        CHECK (on_promote IN ('due', 'failed', 'done'))
);
COMMENT ON TABLE relevo.handover IS 'The history of roles, as far as this database took part in it.';
COMMENT ON COLUMN relevo.handover.id IS 'The same on every node that took part.';
COMMENT ON COLUMN relevo.handover.epoch IS 'The epoch that it led to, or was to lead to.';
COMMENT ON COLUMN relevo.handover.step IS 'The last step that was begun.';
COMMENT ON COLUMN relevo.handover.requested_by IS 'Who asked: user and host of the command.';
COMMENT ON COLUMN relevo.handover.old_system_id IS 'System identifier of the old primary''s server.';
COMMENT ON COLUMN relevo.handover.old_lsn IS 'Everything that ends at or before this LSN of the old primary was on the new one when it took the role.';
COMMENT ON COLUMN relevo.handover.old_commit_time IS 'When the old primary committed the last of it, by its own clock.';
COMMENT ON COLUMN relevo.handover.new_lsn IS 'LSN of the new primary: behind everything that it had from the old one, before the first write of its own.';
COMMENT ON COLUMN relevo.handover.pause_ms IS 'For how many milliseconds nobody could write.';
COMMENT ON COLUMN relevo.handover.loss IS 'What may be missing, in words, when the old primary could not be asked.';
COMMENT ON COLUMN relevo.handover.on_fence IS 'What has become of the hook that is told that the old primary accepts no writes. NULL: there is none.';
COMMENT ON COLUMN relevo.handover.on_promote IS 'What has become of the hook that is told that the new primary accepts writes. NULL: there is none. It is due from the transaction on that gives the role.';

-- Not SECURITY INVOKER: whoever is refused may not read schema relevo.
CREATE FUNCTION relevo.guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $guard$
DECLARE
    this relevo.node;
BEGIN
    SELECT * INTO this FROM relevo.node;
    RAISE EXCEPTION 'this database (node %) is not the primary: node % is, since epoch %',
        this.name, this.primary_node, this.epoch
        USING ERRCODE = 'read_only_sql_transaction',
              HINT = 'Connect to the primary. A connection string that names all nodes and has target_session_attrs=read-write finds it.';
END
$guard$;
COMMENT ON FUNCTION relevo.guard() IS 'Refuses ordinary writes on a node that is not the primary. Sessions with session_replication_role = replica, as Relevo''s own, are not asked.';

CREATE FUNCTION relevo.guard_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $guard$
DECLARE
    this relevo.node;
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() AS c
                WHERE c.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
                  AND c.schema_name IS DISTINCT FROM 'pg_temp') THEN
        SELECT * INTO this FROM relevo.node;
        RAISE EXCEPTION 'no tables can be created in this database (node %), which is not the primary: node % is, since epoch %',
            this.name, this.primary_node, this.epoch
            USING ERRCODE = 'read_only_sql_transaction', HINT = 'Create it on the primary.';
    END IF;
END
$guard$;
COMMENT ON FUNCTION relevo.guard_ddl() IS 'Refuses new tables, which would have no guard yet, on a node that is not the primary. Used where Relevo may create event triggers.';

INSERT INTO relevo.version (version) VALUES (2);
