-- Version 1 of schema relevo: what Relevo remembers in a database. Applied once, in one transaction.
CREATE SCHEMA relevo;
COMMENT ON SCHEMA relevo IS 'State of Relevo, the logical-replication standby keeper. Never replicated, never dumped to the standby.';

CREATE TABLE relevo.version (
    version      integer     NOT NULL PRIMARY KEY,
    installed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE relevo.version IS 'Which versions of this schema were installed, and when.';
INSERT INTO relevo.version (version) VALUES (1);

CREATE TABLE relevo.flow (
    name         text        NOT NULL PRIMARY KEY,
    state        text        NOT NULL CHECK (state IN ('preparing', 'copying', 'streaming', 'paused', 'stopped', 'failed')),
    detail       text,
    state_at     timestamptz NOT NULL DEFAULT now(),
    schema_ready boolean     NOT NULL DEFAULT false,
    copy_attempt integer     NOT NULL DEFAULT 0,
    copied_at    timestamptz,
    completed    boolean     NOT NULL DEFAULT false,
    spool        text,
    copy_bytes_per_second  bigint,
    copy_remaining_seconds bigint,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE relevo.flow IS 'One row for each flow into this database.';
COMMENT ON COLUMN relevo.flow.name IS 'The flow. Its slot and publication on the source are named relevo_<name>.';
COMMENT ON COLUMN relevo.flow.state IS 'What the flow last said of itself. A process that was killed could not say so: see whether the slot is active.';
COMMENT ON COLUMN relevo.flow.detail IS 'Why it is in that state, when there is something to say: the last error.';
COMMENT ON COLUMN relevo.flow.schema_ready IS 'The tables exist here: copied from the source, or found and compared.';
COMMENT ON COLUMN relevo.flow.copy_attempt IS 'How many times the initial copy was begun.';
COMMENT ON COLUMN relevo.flow.copied_at IS 'When the copy was complete: every table follows the stream, and all indexes and constraints are there. NULL: this database is not consistent yet, or tables were added that are not there yet.';
COMMENT ON COLUMN relevo.flow.completed IS 'The initial copy was complete once. What is copied since are tables that were added.';
COMMENT ON COLUMN relevo.flow.copy_bytes_per_second IS 'While rows are copied: how fast, in bytes as COPY writes them. NULL: not known. Written every few seconds.';
COMMENT ON COLUMN relevo.flow.copy_remaining_seconds IS 'While rows are copied: how long they will take at this rate; indexes come on top. NULL: not known. Written every few seconds.';
COMMENT ON COLUMN relevo.flow.spool IS 'The spool directory that holds what copied tables have missed, by the id that it was given. Without it they are copied again.';

CREATE TABLE relevo.progress (
    flow             text        NOT NULL PRIMARY KEY REFERENCES relevo.flow ON DELETE CASCADE,
    source_system_id text        NOT NULL,
    source_timeline  bigint      NOT NULL,
    source_database  text        NOT NULL,
    applied_lsn      pg_lsn      NOT NULL,
    commit_lsn       pg_lsn,
    commit_time      timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE relevo.progress IS 'How far each flow is. Written in the transaction that carries the data, so the two can never disagree.';
COMMENT ON COLUMN relevo.progress.applied_lsn IS 'Everything on the source that ends at or before this LSN is in this database.';
COMMENT ON COLUMN relevo.progress.commit_lsn IS 'Commit LSN of the last source transaction that changed something here.';
COMMENT ON COLUMN relevo.progress.commit_time IS 'When the source committed that transaction, by its own clock.';

CREATE TABLE relevo.table_state (
    flow        text        NOT NULL REFERENCES relevo.flow ON DELETE CASCADE,
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('pending', 'copying', 'copied', 'streaming')),
    insert_only boolean     NOT NULL DEFAULT false,
    copied_lsn  pg_lsn,
    copied_rows bigint,
    copied_bytes bigint,
    total_bytes bigint,
    source_changes bigint,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (flow, schema_name, table_name)
);
COMMENT ON TABLE relevo.table_state IS 'The tables of each flow. Only a table that is recorded here is ever truncated by Relevo.';
COMMENT ON COLUMN relevo.table_state.insert_only IS 'The source table has no replica identity: its updates and deletes are not replicated.';
COMMENT ON COLUMN relevo.table_state.copied_lsn IS 'The copied rows are those of the source at this LSN; the stream continues from there.';
COMMENT ON COLUMN relevo.table_state.copied_rows IS 'Rows that were copied; while the table is being copied so many as were sent, written every few seconds.';
COMMENT ON COLUMN relevo.table_state.copied_bytes IS 'The same in bytes, as COPY wrote them: text or binary.';
COMMENT ON COLUMN relevo.table_state.total_bytes IS 'What the table''s rows occupied on the source when their copy was begun: of the same order as copied_bytes at the end, no more.';
COMMENT ON COLUMN relevo.table_state.source_changes IS 'Of an insert-only table: how many updates and deletes the source''s statistics had counted when they were last looked at.';

CREATE TABLE relevo.table_range (
    flow        text        NOT NULL REFERENCES relevo.flow ON DELETE CASCADE,
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    first_block bigint      NOT NULL,
    rows        bigint,
    bytes       bigint,
    copied_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (flow, schema_name, table_name, first_block)
);
COMMENT ON TABLE relevo.table_range IS 'The parts of a large table that have been copied, each noted in the transaction that brought its rows. They count together with the state ''copying'' of the table.';
COMMENT ON COLUMN relevo.table_range.first_block IS 'The part begins at this block of the source''s table and ends where the next one begins.';

CREATE TABLE relevo.schema_statement (
    flow        text    NOT NULL REFERENCES relevo.flow ON DELETE CASCADE,
    ordinal     integer NOT NULL,
    schema_name text,
    table_name  text,
    statement   text    NOT NULL,
    done        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (flow, ordinal)
);
COMMENT ON TABLE relevo.schema_statement IS 'Indexes, constraints and triggers of the source that are created once the rows have arrived.';
COMMENT ON COLUMN relevo.schema_statement.table_name IS 'The one table that the statement is about, such as that of an index: it is run as soon as that table''s rows are there. NULL: it is run after all rows.';

CREATE TABLE relevo.error (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow       text        NOT NULL REFERENCES relevo.flow ON DELETE CASCADE,
    at         timestamptz NOT NULL DEFAULT now(),
    kind       text        NOT NULL,
    schema_name text,
    table_name text,
    commit_lsn pg_lsn,
    message    text        NOT NULL
);
CREATE INDEX error_flow_at ON relevo.error (flow, at);
COMMENT ON TABLE relevo.error IS 'What went wrong without stopping the flow, such as rows that an update did not find. Of each flow the newest 10000 are kept; relevo errors --clear removes them.';
