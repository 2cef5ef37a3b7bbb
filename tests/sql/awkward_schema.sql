-- What PostgreSQL users have in their schemas, in one database: every built-in type, every kind of table, and the
-- names, defaults, triggers and identities that replication tools get wrong. PostgreSQL 14 and later, as superuser.
--
-- Runs in psql and as one simple query (no meta commands, no COPY FROM stdin). What a server may lack (xml, hstore,
-- citext) is created only where it is available. awkward_changes.sql changes the rows.
-- Tables whose name begins with insert_only_ have no usable replica identity: only inserts and truncates reach a
-- standby, so the changes do nothing else to them.

SET client_min_messages = warning;

CREATE SCHEMA types;
CREATE SCHEMA "select";
CREATE SCHEMA "Ünïcödé Schéma 名";
COMMENT ON SCHEMA "select" IS 'a reserved word; with a semicolon, a ''quote'' and a \backslash';

DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'relevo awkward; reader') THEN
        CREATE ROLE "relevo awkward; reader";
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this cluster was faster
END
$do$;

-- Types of the user ---------------------------------------------------------------------------------------------

CREATE TYPE types.mood AS ENUM ('sad', 'it''s; "ok"', 'häppy', '', 'with, comma', 'back\slash');
CREATE TYPE types.point3 AS (x double precision, y numeric, "Z z" text);
CREATE TYPE types.nested AS (id integer, place types.point3, tags text[]);
CREATE DOMAIN types.positive AS integer DEFAULT 7 CHECK (VALUE > 0);
CREATE DOMAIN types.label AS text COLLATE "C" NOT NULL CHECK (VALUE <> 'forbidden;');
CREATE DOMAIN types.numbers AS integer[] CHECK (array_length(VALUE, 1) < 10);
CREATE TYPE types.floatrange AS RANGE (subtype = double precision, subtype_diff = float8mi);
CREATE COLLATION types.plain (provider = libc, locale = 'C');
CREATE TEXT SEARCH CONFIGURATION types.words (COPY = simple);

-- Functions whose bodies have semicolons, quotes and dollar tags -------------------------------------------------

CREATE FUNCTION types.twice(n integer) RETURNS integer
    LANGUAGE sql IMMUTABLE
    BEGIN ATOMIC
        SELECT CASE WHEN n IS NULL THEN 0 ELSE n + n END;
    END;

CREATE PROCEDURE types.do_nothing(INOUT n integer)
    LANGUAGE sql
    BEGIN ATOMIC
        SELECT n + 1;
        SELECT CASE n WHEN 1 THEN 2 ELSE (CASE WHEN n > 2 THEN 3 END) END;
    END;

CREATE FUNCTION types."odd; name"(text DEFAULT 'a;''b') RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', '"; drop'
    AS $body$
DECLARE
    inner_text text := $q$ ; $body $ $q$; -- a comment; with 'an open quote
BEGIN
    /* nested /* comment; */ ' */
    RETURN inner_text || $1 || E'\';' || U&'d\0061t\+000061';
END;
$body$;

CREATE AGGREGATE types.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
CREATE OPERATOR types.<=># (LEFTARG = integer, RIGHTARG = integer, FUNCTION = btint4cmp);

-- Every built-in type that a column can have ---------------------------------------------------------------------

CREATE TABLE types.scalars (
    id integer PRIMARY KEY,
    c_bool boolean, c_int2 smallint, c_int4 integer, c_int8 bigint,
    c_float4 real, c_float8 double precision, c_numeric numeric, c_numeric_10_2 numeric(10, 2), c_money money,
    c_text text, c_varchar varchar(40), c_char char(7), c_char_internal "char", c_name name, c_bytea bytea,
    c_date date, c_time time, c_time_3 time(3), c_timetz timetz, c_timestamp timestamp, c_timestamptz timestamptz,
    c_timestamptz_0 timestamptz(0), c_interval interval, c_interval_dts interval day to second,
    c_uuid uuid, c_json json, c_jsonb jsonb, c_jsonpath jsonpath,
    c_inet inet, c_cidr cidr, c_macaddr macaddr, c_macaddr8 macaddr8,
    c_bit bit(5), c_varbit varbit, c_tsvector tsvector, c_tsquery tsquery,
    c_point point, c_line line, c_lseg lseg, c_box box, c_path path, c_polygon polygon, c_circle circle,
    c_pg_lsn pg_lsn, c_pg_snapshot pg_snapshot, c_txid_snapshot txid_snapshot,
    c_oid oid, c_xid xid, c_xid8 xid8, c_cid cid, c_tid tid, c_aclitem aclitem, c_refcursor refcursor,
    c_int2vector int2vector, c_oidvector oidvector,
    c_regclass regclass, c_regtype regtype, c_regproc regproc, c_regprocedure regprocedure, c_regoper regoper,
    c_regoperator regoperator, c_regconfig regconfig, c_regdictionary regdictionary, c_regnamespace regnamespace,
    c_regrole regrole, c_regcollation regcollation
);

INSERT INTO types.scalars VALUES
(1, true, 32767, 2147483647, 9223372036854775807,
    'Infinity', 'NaN', 'NaN', 99999999.99, '92233720368547758.07'::numeric::money,
    E'tab\there, newline\nhere, return\rhere, backslash \\ and \\N, quote '' "', 'größe 名 🐘', 'pad', 'x', 'a name',
    '\x00ff5c0a0d09275c4e',
    'infinity', '24:00:00', '23:59:59.999', '23:59:59.999999+15:59', 'infinity', '-infinity',
    '2026-03-29 01:30:00+00', '178000000 years', '3 days 04:05:06.789012',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"b" : 1, "a":  2, "b": 3}', '{"b": 1.50, "a": [null, "\u00e9\n"]}',
    '$."a"[*] ? (@ > 1)',
    '192.168.1.5/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
    B'10110', B'', '''it''''s'':1A quick:2B,3 brown', '''fat'':AB & !(rat | cat:*)',
    '(1.1,-2.2)', '{1,-2,3}', '[(0,0),(1,1)]', '(3,4),(1,2)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))',
    '<(1,2),3>',
    'FFFFFFFF/FFFFFFFF', '10:20:10,14,15', '10:20:10,14,15',
    4294967295, '4294967295', '18446744073709551615', '4294967295', '(4294967295,65535)',
    'pg_monitor=r/pg_monitor', 'a cursor',
    '1 -2 3', '1 2 4294967295',
    'pg_catalog.pg_class', 'types.mood', 'pg_catalog.now', 'pg_catalog.abs(integer)', 'pg_catalog.|/',
    'pg_catalog.+(integer,integer)', 'english', 'simple', 'pg_catalog', 'pg_monitor', '"C"'),
(2, false, -32768, -2147483648, -9223372036854775808,
    '-Infinity', '-Infinity', 'Infinity', -0.01, '-92233720368547758.08'::numeric::money,
    '', '', '', '', '', '',
    '-infinity', '00:00:00', '00:00:00.001', '00:00:00-15:59', '-infinity', 'infinity',
    '4713-01-01 00:00:00+00 BC', '-178000000 years', '-3 days -04:05:06.789012',
    '00000000-0000-0000-0000-000000000000', 'null', 'null', '$',
    '::1', '2001:db8::/32', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00',
    B'00000', B'1', '', '',
    '(Infinity,NaN)', '{0,1,0}', '[(1e300,1e-300),(0,0)]', '(0,0),(0,0)', '((0,0),(1,1))', '((0,0))', '<(0,0),0>',
    '0/0', '1:1:', '1:1:',
    0, '0', '0', '0', '(0,0)', '=/pg_monitor', '',
    '', '',
    '-', '-', '-', '-', '0', '0', 'german', 'german_stem', '"select"', 'pg_read_all_stats', '"POSIX"'),
(3, NULL, 0, 0, 0, '-0', '-0', '-Infinity', 0, 0,
    '\N', '\.', 'NULL', E'\\', 'NULL', '\x',
    '4713-01-01 BC', '12:00', '12:00', '12:00+00', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00',
    'epoch', '1 mon -1 days +00:00:01', '0',
    'ffffffff-ffff-ffff-ffff-ffffffffffff', '"\u0000 is text in json"', '"\\u0000"', 'strict $.a',
    '0.0.0.0/0', '0.0.0.0/0', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff',
    B'11111', repeat('10', 500)::varbit, 'a:16383', '''a'' <16384> ''b''',
    '(1e-300,-0)', '{1,0,0}', '[(0,0),(0,0)]', '(-1,-1),(-2,-2)', '[(1,1)]', '((1,1),(1,1))', '<(-1,-1),1e10>',
    '16/B374D848', '1:10:1,9', '1:10:1,9',
    1, '3', '3', '1', '(1,1)', 'pg_monitor=r*w*/pg_monitor', 'x', '0', '0',
    'types.scalars', 'integer[]', 'pg_catalog.int4pl', 'types.twice(integer)', 'types.<=>#', 'types.<=>#(integer,integer)',
    'types.words', 'simple', '"Ünïcödé Schéma 名"', 'pg_monitor', 'types.plain');
INSERT INTO types.scalars (id) VALUES (4);
INSERT INTO types.scalars (id, c_numeric, c_float8, c_float4, c_timestamptz, c_date) VALUES
(5, repeat('9', 1000)::numeric, 1.7976931348623157e308, 3.4028235e38, '0001-01-01 00:00:00+00', '5874897-12-31'),
(6, ('0.' || repeat('0', 900) || '1')::numeric, 4.9e-324, 1e-45, '1582-10-15 00:00:00+00', '0001-12-31 BC'),
(7, 1.10, 0.1, 0.1, '1883-11-18 12:03:57+00', '2000-02-29'),
(8, 1.1, 0.30000000000000004, 16777216, now(), current_date);

CREATE TABLE types.compounds (
    id bigint PRIMARY KEY,
    c_int4range int4range, c_int8range int8range, c_numrange numrange, c_tsrange tsrange, c_tstzrange tstzrange,
    c_daterange daterange, c_floatrange types.floatrange,
    c_int4multirange int4multirange, c_int8multirange int8multirange, c_nummultirange nummultirange,
    c_tsmultirange tsmultirange, c_tstzmultirange tstzmultirange, c_datemultirange datemultirange,
    c_floatmultirange types.floatmultirange,
    c_int4_array integer[], c_text_array text[][], c_numeric_array numeric[], c_timestamptz_array timestamptz[],
    c_bytea_array bytea[], c_jsonb_array jsonb[], c_range_array int4range[], c_bool_array boolean[],
    c_enum types.mood, c_enum_array types.mood[], c_domain types.positive, c_domain_array types.positive[],
    c_domain_of_array types.numbers, c_composite types.point3, c_composite_array types.point3[],
    c_nested types.nested, c_row types.scalars, c_multirange_array int4multirange[]
);

INSERT INTO types.compounds VALUES
(1, '[1,10)', 'empty', '(,1.50]', '["2026-01-01 00:00:00",infinity)', '(,)', '[2026-01-01,2026-02-01)', '[0.1,NaN]',
    '{[1,3),[5,7)}', '{}', '{(,1.0),[2.00,)}', '{}', '{(,)}', '{[2026-01-01,2026-02-01),[2026-03-01,)}', '{[0.1,0.2]}',
    '{1,NULL,-3}', '{{"a,b","c\"d"},{"",NULL}}', '{NaN,1.10,Infinity,-Infinity}', '{infinity,"2026-01-01 00:00:00+00"}',
    ARRAY['\x00'::bytea, '\x5c', NULL], ARRAY['{"a": 1}'::jsonb, 'null', NULL], '{"[1,2)",empty,NULL}', '{t,f,NULL}',
    'it''s; "ok"', '{"it''s; \"ok\"","",häppy,"with, comma","back\\slash",NULL}', 1, '{1,2,NULL}', '{1,2,3}',
    ROW(1.5, 'NaN', 'a "quoted", (text) \ '), ARRAY[ROW(NULL, NULL, NULL)::types.point3, ROW(0, 1, '')::types.point3],
    ROW(1, ROW(2, 3.30, 'x'), ARRAY['p', 'q;', NULL]), (SELECT s FROM types.scalars s WHERE id = 7), '{"{[1,2)}","{}"}'),
(2, 'empty', '(,)', 'empty', 'empty', '(-infinity,infinity)', '(,infinity)', '(,)',
    '{}', '{(,)}', '{}', '{(,)}', '{}', '{}', '{}',
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
    '', '{}', 2147483647, '{}', '{}',
    ROW(NULL, NULL, NULL), '{}', ROW(NULL, NULL, NULL), NULL, '{}'),
(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    '[0:1]={1,2}', '[-1:0][2:3]={{a,b},{c,d}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL);

CREATE TABLE types.labels (code types.label PRIMARY KEY, amount types.positive NOT NULL, feeling types.mood DEFAULT 'häppy');
INSERT INTO types.labels (code) VALUES ('a'), ('A'), ('ä'), (''), (' ');
CREATE TABLE types.by_numeric (key numeric PRIMARY KEY, note text);
INSERT INTO types.by_numeric VALUES (1.0, 'one'), ('NaN', 'not a number'), ('Infinity', 'much'), (0.000, 'nothing');
CREATE TABLE types.by_float (key double precision PRIMARY KEY, note text);
INSERT INTO types.by_float VALUES (0.1, 'a tenth'), ('NaN', 'not a number'), (-0.0, 'minus nothing'), (1e300, 'much');
CREATE TABLE types.by_many (
    d date, t timestamptz, u uuid, b bytea, e types.mood, r int4range, i inet, l types.label, v integer,
    PRIMARY KEY (d, t, u, b, e, r, i, l)
);
INSERT INTO types.by_many VALUES
('infinity', '-infinity', '00000000-0000-0000-0000-000000000000', '\x', '', 'empty', '::', '', 1),
('2026-01-01', '2026-01-01 00:00:00.000001+00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\x00', 'sad', '[1,2)', '::1/64', 'x', 2);

DO $do$
BEGIN
    PERFORM '<a/>'::xml;
    EXECUTE 'CREATE TABLE types.markup (id integer PRIMARY KEY, doc xml, docs xml[])';
    EXECUTE $x$INSERT INTO types.markup VALUES
        (1, '<a b="c">&lt;;</a>', ARRAY['<x/>'::xml, 'just text']), (2, 'a <b>fragment</b> of content', '{}'), (3, '', NULL)$x$;
EXCEPTION WHEN feature_not_supported THEN
    NULL; -- this server was built without libxml
END
$do$;

DO $do$
BEGIN
    IF (SELECT count(*) FROM pg_available_extensions WHERE name IN ('hstore', 'citext')) = 2 THEN
        CREATE SCHEMA extensions;
        CREATE EXTENSION hstore WITH SCHEMA extensions;
        CREATE EXTENSION citext WITH SCHEMA extensions;
        CREATE TABLE types.extended (
            email extensions.citext PRIMARY KEY, attributes extensions.hstore, many extensions.hstore[]);
        INSERT INTO types.extended VALUES
            ('Ann@Example.org', '"a"=>"1", "b"=>NULL, "c;d"=>"e\"f"', ARRAY['a=>1'::extensions.hstore, NULL]),
            ('bob@example.org', '', '{}'), ('', NULL, NULL);
    END IF;
END
$do$;

-- Names -----------------------------------------------------------------------------------------------------------

CREATE TABLE "Ünïcödé Schéma 名"."Täble 名 🐘" ("Ключ" integer PRIMARY KEY, "wärde;" text, "ß" text DEFAULT 'ß;');
INSERT INTO "Ünïcödé Schéma 名"."Täble 名 🐘" VALUES (1, 'eins', DEFAULT), (2, NULL, NULL);
CREATE TABLE "select"."table" ("user" integer, "order" integer, "from" text, "Select" text, PRIMARY KEY ("user", "order"));
INSERT INTO "select"."table" VALUES (1, 1, 'x', 'y'), (1, 2, NULL, 'Z');
CREATE TABLE "select"."a "" b.c\d $1 %s 'e'; --" (" " integer PRIMARY KEY, """" text, "a.b" text, "$1" text, "\" text);
INSERT INTO "select"."a "" b.c\d $1 %s 'e'; --" VALUES (1, 'q', 'd', 'p', 'b'), (2, NULL, NULL, NULL, NULL);
CREATE TABLE public.a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres (
    a_column_of_63_bytes_which_is_as_long_as_names_can_be_in_postgr integer PRIMARY KEY, ctid_ text);
INSERT INTO public.a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres VALUES (1, 'x');
CREATE TABLE public."MixedCase" ("Id" serial PRIMARY KEY, "CamelCase" text, camelcase text);
INSERT INTO public."MixedCase" ("CamelCase", camelcase) SELECT 'C' || n, 'c' || n FROM generate_series(1, 50) n;
-- Both of these would be one if their names were joined with a dot.
CREATE SCHEMA "x.y";
CREATE SCHEMA x;
CREATE TABLE "x.y".z (id integer PRIMARY KEY, v text);
CREATE TABLE x."y.z" (id integer PRIMARY KEY, v text);
INSERT INTO "x.y".z VALUES (1, 'schema with a dot');
INSERT INTO x."y.z" VALUES (1, 'table with a dot');

-- Columns ---------------------------------------------------------------------------------------------------------

CREATE TABLE public.dropped_columns (gone1 text, id integer PRIMARY KEY, gone2 integer, a text, gone3 jsonb, b text);
INSERT INTO public.dropped_columns VALUES ('x', 1, 1, 'a1', '{}', 'b1');
ALTER TABLE public.dropped_columns DROP COLUMN gone1, DROP COLUMN gone2, DROP COLUMN gone3;
ALTER TABLE public.dropped_columns ADD COLUMN later integer NOT NULL DEFAULT 42;
INSERT INTO public.dropped_columns VALUES (2, 'a2', 'b2', 7);

CREATE TABLE public.generated (
    id integer GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT BY 5) PRIMARY KEY,
    other integer GENERATED BY DEFAULT AS IDENTITY (MINVALUE -10 START -10),
    price numeric NOT NULL, amount integer NOT NULL,
    total numeric GENERATED ALWAYS AS (price * amount) STORED,
    note text DEFAULT 'none;',
    folded text GENERATED ALWAYS AS (lower(note)) STORED
);
INSERT INTO public.generated (price, amount, note) SELECT n * 1.25, n, 'Note ' || n FROM generate_series(1, 20) n;

CREATE TABLE public.many_columns (id integer PRIMARY KEY);
DO $do$
BEGIN
    FOR n IN 1..300 LOOP
        EXECUTE format('ALTER TABLE public.many_columns ADD COLUMN c%s %s', n,
            CASE n % 3 WHEN 0 THEN 'integer' WHEN 1 THEN 'text' ELSE 'timestamptz' END);
    END LOOP;
END
$do$;
INSERT INTO public.many_columns (id, c1, c3, c150, c299, c300) VALUES (1, 'x', 3, 150, '2026-01-01 00:00:00+00', 300), (2, NULL, NULL, NULL, NULL, NULL);

-- A table that has a column list of no columns is legal SQL.
CREATE TABLE public.insert_only_no_columns ();
INSERT INTO public.insert_only_no_columns DEFAULT VALUES;
INSERT INTO public.insert_only_no_columns DEFAULT VALUES;

CREATE TABLE public.toast (
    id integer PRIMARY KEY, small text, big text, big_binary bytea, big_json jsonb, uncompressed text, counter integer DEFAULT 0);
ALTER TABLE public.toast ALTER COLUMN uncompressed SET STORAGE EXTERNAL;
INSERT INTO public.toast
SELECT n, 'small ' || n,
    (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 400) i),
    (SELECT decode(string_agg(md5((n + i)::text), ''), 'hex') FROM generate_series(1, 400) i),
    (SELECT jsonb_object_agg(md5((n - i)::text), i) FROM generate_series(1, 200) i),
    repeat('uncompressed ', 1000)
FROM generate_series(1, 20) n;
-- A value of 10 MB, hardly compressible, and a bytea whose text form is 20 MB.
INSERT INTO public.toast (id, small, big) SELECT 100, 'ten megabytes', string_agg(md5(i::text), '') FROM generate_series(1, 327680) i;
INSERT INTO public.toast (id, small, big_binary) SELECT 101, 'ten megabytes', decode(string_agg(md5(i::text), ''), 'hex') FROM generate_series(1, 655360) i;

-- Keys and identities ---------------------------------------------------------------------------------------------

CREATE TABLE public.composite_key (a integer, b text, c date, v text, PRIMARY KEY (c, a, b));
INSERT INTO public.composite_key SELECT n % 7, 'k' || n, date '2026-01-01' + n, 'v' || n FROM generate_series(1, 100) n;

CREATE TABLE public.identity_index (a integer, code text NOT NULL, region integer NOT NULL, v text, PRIMARY KEY (a));
CREATE UNIQUE INDEX identity_index_code ON public.identity_index (region, code);
ALTER TABLE public.identity_index REPLICA IDENTITY USING INDEX identity_index_code;
INSERT INTO public.identity_index SELECT n, 'code ' || n, n % 3, 'v' || n FROM generate_series(1, 30) n;

CREATE TABLE public.identity_full (a integer, b text, c numeric, d double precision);
ALTER TABLE public.identity_full REPLICA IDENTITY FULL;
INSERT INTO public.identity_full VALUES
    (1, 'dup', 1.0, 1), (1, 'dup', 1.0, 1), (1, 'dup', 1.0, 1), (NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL),
    (2, NULL, 'NaN', 'NaN'), (2, NULL, 'NaN', 'NaN'), (3, '', 1.00, -0.0), (3, '', 1.000, 0.0);

CREATE TABLE public.identity_full_odd_types (j json, p point, x text[], c types.point3, b box);
ALTER TABLE public.identity_full_odd_types REPLICA IDENTITY FULL;
INSERT INTO public.identity_full_odd_types VALUES
    ('{"a": 1}', '(1,2)', '{a,NULL}', ROW(1, 2, 'x'), '(1,1),(0,0)'), ('{"a":1}', '(1,2)', '{a,NULL}', ROW(1, 2, 'x'), '(2,2),(1,1)'),
    (NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL);

CREATE TABLE public.identity_full_toast (id integer, big text, note text);
ALTER TABLE public.identity_full_toast REPLICA IDENTITY FULL;
INSERT INTO public.identity_full_toast
SELECT n, (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 300) i), 'n' || n FROM generate_series(1, 5) n;

CREATE TABLE public.insert_only_nothing (id integer PRIMARY KEY, v text);
ALTER TABLE public.insert_only_nothing REPLICA IDENTITY NOTHING;
INSERT INTO public.insert_only_nothing VALUES (1, 'one'), (2, 'two');
CREATE TABLE public.insert_only_heap (at timestamptz DEFAULT now(), line text);
INSERT INTO public.insert_only_heap (line) SELECT 'line ' || n % 5 FROM generate_series(1, 20) n;
CREATE TABLE public.insert_only_deferrable_key (id integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
INSERT INTO public.insert_only_deferrable_key VALUES (1, 'one');

CREATE TABLE public.unique_values (
    id integer PRIMARY KEY, rank integer NOT NULL UNIQUE DEFERRABLE INITIALLY IMMEDIATE, slug text UNIQUE, swap integer UNIQUE,
    during int4range, active boolean DEFAULT true,
    CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&) DEFERRABLE,
    CONSTRAINT "odd; check" CHECK (slug <> ';--' AND rank > -1000000)
);
CREATE UNIQUE INDEX unique_values_partial ON public.unique_values (rank) WHERE active;
CREATE UNIQUE INDEX unique_values_folded ON public.unique_values (lower(slug), ((swap + 1)));
INSERT INTO public.unique_values SELECT n, n, 'slug-' || n, n, int4range(n * 10, n * 10 + 10) FROM generate_series(1, 40) n;

-- Foreign keys, triggers, rules: on a standby none of them may act ------------------------------------------------

CREATE TABLE public.customers (id bigserial PRIMARY KEY, name text NOT NULL, favourite bigint, changed_at timestamptz);
CREATE TABLE public.orders (
    id bigserial PRIMARY KEY, customer bigint NOT NULL REFERENCES public.customers ON DELETE CASCADE ON UPDATE CASCADE,
    placed_at timestamptz NOT NULL DEFAULT now(), state text NOT NULL DEFAULT 'new');
CREATE TABLE public.order_lines (
    "order" bigint REFERENCES public.orders ON DELETE CASCADE, line smallint, item text, amount integer CHECK (amount > 0), PRIMARY KEY ("order", line));
ALTER TABLE public.customers ADD CONSTRAINT favourite_order FOREIGN KEY (favourite) REFERENCES public.orders
    ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE public.tree (id integer PRIMARY KEY, parent integer REFERENCES public.tree ON DELETE SET NULL, name text);
CREATE TABLE public.audit (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), what text, row_data jsonb);
CREATE TABLE public.rule_log (id serial PRIMARY KEY, name text);
CREATE TABLE public.ddl_log (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), tag text);

CREATE FUNCTION public.audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.audit (what, row_data) VALUES (TG_OP || ' ' || TG_TABLE_NAME || ';', to_jsonb(coalesce(NEW, OLD)));
    RETURN NULL;
END $$;
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON public.customers FOR EACH ROW EXECUTE FUNCTION public.audit_row();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.audit_row();
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON public.customers FOR EACH ROW EXECUTE FUNCTION public.touch();
CREATE CONSTRAINT TRIGGER late_audit AFTER INSERT ON public.order_lines DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.amount > 5) EXECUTE FUNCTION public.audit_row();
CREATE RULE log_tree AS ON INSERT TO public.tree DO ALSO INSERT INTO public.rule_log (name) VALUES (NEW.name || ';');

INSERT INTO public.customers (name) SELECT 'Customer ' || n FROM generate_series(1, 20) n;
INSERT INTO public.orders (customer) SELECT n % 20 + 1 FROM generate_series(1, 60) n;
INSERT INTO public.order_lines SELECT n % 60 + 1, n / 60, 'item ' || n, n % 9 + 1 FROM generate_series(1, 180) n;
UPDATE public.customers SET favourite = id WHERE id <= 10;
INSERT INTO public.tree VALUES (1, NULL, 'root'), (2, 1, 'leaf'), (3, 3, 'its own parent');

-- Partitions and inheritance --------------------------------------------------------------------------------------

CREATE TABLE public.measurements (
    id bigint NOT NULL, day date NOT NULL, region text NOT NULL, value numeric, note text DEFAULT 'n/a',
    PRIMARY KEY (id, day, region)) PARTITION BY RANGE (day);
CREATE TABLE public.measurements_2025 PARTITION OF public.measurements FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE public.measurements_2026 PARTITION OF public.measurements FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
    PARTITION BY LIST (region);
CREATE TABLE "Ünïcödé Schéma 名".measurements_2026_north PARTITION OF public.measurements_2026 FOR VALUES IN ('north', 'nörd;');
-- A leaf with another column order and a dropped column, as ATTACH allows.
CREATE TABLE public.measurements_2026_rest (
    gone integer, note text DEFAULT 'other', value numeric, region text NOT NULL, id bigint NOT NULL, day date NOT NULL);
ALTER TABLE public.measurements_2026_rest DROP COLUMN gone;
ALTER TABLE public.measurements_2026 ATTACH PARTITION public.measurements_2026_rest DEFAULT;
CREATE TABLE public.measurements_default PARTITION OF public.measurements DEFAULT;
CREATE INDEX measurements_value ON public.measurements (value DESC NULLS LAST) INCLUDE (note);
INSERT INTO public.measurements
SELECT n, date '2024-11-15' + n * 5, (ARRAY['north', 'south', 'nörd;', 'east'])[n % 4 + 1], n * 1.50, 'note ' || n FROM generate_series(1, 200) n;

CREATE TABLE public.hashed (id integer PRIMARY KEY, v text) PARTITION BY HASH (id);
CREATE TABLE public.hashed_0 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE public.hashed_1 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE public.hashed_2 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO public.hashed SELECT n, 'v' || n FROM generate_series(1, 90) n;

-- The root has no identity and neither have the leaves.
CREATE TABLE public.insert_only_events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE public.insert_only_events_2026 PARTITION OF public.insert_only_events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO public.insert_only_events SELECT date '2026-01-01' + n, 'event ' || n FROM generate_series(1, 30) n;
-- A partitioned table may have no partition yet.
CREATE TABLE public.no_partitions (id integer PRIMARY KEY) PARTITION BY RANGE (id);

CREATE TABLE public.animals (id integer PRIMARY KEY, name text);
CREATE TABLE public.birds (wingspan numeric, PRIMARY KEY (id)) INHERITS (public.animals);
CREATE TABLE public.parrots (words text[], PRIMARY KEY (id)) INHERITS (public.birds);
INSERT INTO public.animals VALUES (1, 'worm'), (2, 'cat');
INSERT INTO public.birds VALUES (1, 'same id as the worm', 0.25), (10, 'gull', 1.40);
INSERT INTO public.parrots VALUES (20, 'Polly', 0.50, '{hello,"good bye"}');

-- Not replicated: rows of these stay on the source ----------------------------------------------------------------

CREATE UNLOGGED TABLE public.unlogged_cache (id integer PRIMARY KEY, v text);
INSERT INTO public.unlogged_cache VALUES (1, 'not logged');
CREATE TEMPORARY TABLE temporary_scratch (id integer PRIMARY KEY, v text);
INSERT INTO temporary_scratch VALUES (1, 'temporary');
CREATE FOREIGN DATA WRAPPER relevo_nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER relevo_nowhere OPTIONS (host 'no;where');
CREATE USER MAPPING FOR PUBLIC SERVER nowhere OPTIONS ("user" 'u', password 'not-to-be-shown');
CREATE FOREIGN TABLE public.elsewhere (id integer) SERVER nowhere;

-- Sequences -------------------------------------------------------------------------------------------------------

CREATE SEQUENCE public.plain_sequence;
SELECT nextval('public.plain_sequence') FROM generate_series(1, 17);
CREATE SEQUENCE public.never_called START 33;
CREATE SEQUENCE "select"."Down; Sequence" AS smallint INCREMENT BY -3 START -7 MAXVALUE -1 CYCLE CACHE 5;
SELECT nextval('"select"."Down; Sequence"');
CREATE SEQUENCE public.far_sequence START 9223372036854775806 MINVALUE 9223372036854775000;
SELECT nextval('public.far_sequence');
SELECT setval('public.far_sequence', 9223372036854775807, false);
CREATE TABLE public.uses_sequence (id integer DEFAULT nextval('public.plain_sequence') PRIMARY KEY, v text);
INSERT INTO public.uses_sequence (v) VALUES ('a'), ('b');

-- Views, indexes, statistics, rights ------------------------------------------------------------------------------

CREATE VIEW public.order_totals AS
    SELECT o.id, c.name || ';' AS name, sum(l.amount) AS amount
    FROM public.orders o JOIN public.customers c ON c.id = o.customer LEFT JOIN public.order_lines l ON l."order" = o.id
    GROUP BY o.id, c.name;
CREATE VIEW public.big_orders WITH (security_barrier) AS SELECT * FROM public.order_totals WHERE amount > 10;
-- The names are in the wrong order on purpose: "a_on_top" reads "z_below".
CREATE MATERIALIZED VIEW public.z_below AS SELECT state || ';' AS state, count(*) AS n FROM public.orders GROUP BY state;
CREATE MATERIALIZED VIEW public.a_on_top AS SELECT sum(n) AS n FROM public.z_below;
CREATE MATERIALIZED VIEW public.never_populated AS SELECT * FROM public.order_totals WITH NO DATA;
CREATE UNIQUE INDEX z_below_state ON public.z_below (state);

CREATE INDEX orders_state ON public.orders (state varchar_pattern_ops) WHERE state <> ';';
CREATE INDEX scalars_words ON types.scalars USING gin (c_tsvector);
CREATE INDEX orders_hash ON public.orders USING hash (placed_at);
ALTER TABLE public.orders CLUSTER ON orders_pkey;
ALTER TABLE public.orders ALTER COLUMN customer SET STATISTICS 500;
CREATE STATISTICS public.order_statistics (ndistinct, dependencies) ON customer, state FROM public.orders;
COMMENT ON TABLE public.orders IS E'Orders; with a newline\nand a -- which is no comment, and a /* too';
COMMENT ON COLUMN public.orders.state IS '';

ALTER TABLE public.audit ENABLE ROW LEVEL SECURITY;
CREATE POLICY "see; all" ON public.audit FOR SELECT TO "relevo awkward; reader" USING (what <> ';');
CREATE POLICY everyone ON public.audit USING (true);
GRANT USAGE ON SCHEMA "select", types TO "relevo awkward; reader";
GRANT SELECT, INSERT (id, state) ON public.orders TO "relevo awkward; reader" WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION types."odd; name"(text) TO "relevo awkward; reader";
ALTER DEFAULT PRIVILEGES IN SCHEMA types GRANT SELECT ON TABLES TO "relevo awkward; reader";
CREATE TABLE public.owned_by_reader (id integer PRIMARY KEY, v text);
INSERT INTO public.owned_by_reader VALUES (1, 'x');
ALTER TABLE public.owned_by_reader OWNER TO "relevo awkward; reader";

-- Last, so that it logs nothing of the above. Whoever runs DDL on a standby in a session that fires event triggers
-- adds rows to ddl_log there, and the tables differ.
CREATE FUNCTION public.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.ddl_log (tag) VALUES (tg_tag || ';');
END $$;
CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION public.log_ddl();
