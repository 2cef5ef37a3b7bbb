-- Changes over the rows of awkward_schema.sql: what a standby must follow. No schema change, no meta command; runs in
-- psql and as one simple query, once. PostgreSQL 14 and later. Afterwards every replicated table must be equal on both
-- sides (sequences are not replicated; see the hand-over for them).

-- Types: the same values again by INSERT, UPDATE and DELETE --------------------------------------------------------

INSERT INTO types.scalars (id, c_text, c_bytea, c_numeric, c_timestamptz, c_interval, c_money, c_char, c_char_internal) VALUES
    (20, E'a\tb\nc\\d', '\x000102', 'NaN', 'infinity', '1 year 2 mons -3 days', (-1.25)::numeric::money, 'ab', 'z'),
    (21, '', '', '-Infinity', '-infinity', '0', 0::money, '', '');
UPDATE types.scalars SET c_float8 = 'NaN', c_float4 = '-0', c_numeric = 'Infinity', c_point = '(NaN,Infinity)',
    c_jsonb = '{"x": [1, 2.50, "\u00e9"]}', c_json = '{"dup":1,"dup":2 }', c_tsvector = 'a:1 b:2', c_bit = B'01010' WHERE id = 4;
UPDATE types.scalars SET id = 30, c_regclass = 'public.orders' WHERE id = 3;
UPDATE types.scalars SET c_text = NULL, c_bytea = NULL, c_numeric = NULL, c_inet = NULL WHERE id = 2;
DELETE FROM types.scalars WHERE id = 5;

UPDATE types.compounds SET c_composite = ROW(1, 2.50, '(,)"\'), c_text_array = '{{"x;","y"}}', c_enum = 'back\slash',
    c_int4multirange = '{[1,2),[4,5)}', c_nested = ROW(2, ROW(NULL, NULL, 'n'), '{}'), c_domain = 99 WHERE id = 3;
UPDATE types.compounds SET c_int4_array = c_int4_array || NULL, c_row = (SELECT s FROM types.scalars s WHERE id = 1) WHERE id = 1;
INSERT INTO types.compounds (id, c_enum_array, c_composite_array) SELECT 4, c_enum_array, c_composite_array FROM types.compounds WHERE id = 1;
DELETE FROM types.compounds WHERE id = 2;

UPDATE types.labels SET code = code || 'x', feeling = '' WHERE code IN ('a', 'ä');
UPDATE types.labels SET amount = DEFAULT WHERE code = 'A';
DELETE FROM types.labels WHERE code = '';
-- The key is equal to what it was, but not the same.
UPDATE types.by_numeric SET key = 1.000, note = 'one, again' WHERE key = 1;
UPDATE types.by_numeric SET note = 'still none' WHERE key = 'NaN';
UPDATE types.by_numeric SET key = 'NaN' WHERE key = 'NaN';
DELETE FROM types.by_numeric WHERE key = 0;
UPDATE types.by_float SET key = 0.0 WHERE key = -0.0;
UPDATE types.by_float SET note = 'found' WHERE key IN (0.1, 'NaN', 1e300);
DELETE FROM types.by_float WHERE key = 'NaN';
UPDATE types.by_many SET v = 3 WHERE v = 1;
UPDATE types.by_many SET b = '\x0102', r = '(,5)', e = 'it''s; "ok"' WHERE v = 2;

DO $do$
BEGIN
    IF to_regclass('types.markup') IS NOT NULL THEN
        EXECUTE $x$UPDATE types.markup SET doc = '<new attr="&amp;"/>' WHERE id = 2$x$;
        EXECUTE $x$INSERT INTO types.markup VALUES (4, 'plain &lt; text', NULL)$x$;
        EXECUTE $x$DELETE FROM types.markup WHERE id = 1$x$;
    END IF;
    IF to_regclass('types.extended') IS NOT NULL THEN
        EXECUTE $x$UPDATE types.extended SET attributes = attributes OPERATOR(extensions.||) 'n=>2'::extensions.hstore WHERE email OPERATOR(extensions.=) 'ANN@example.ORG'$x$;
        EXECUTE $x$UPDATE types.extended SET email = 'BOB@example.org' WHERE email OPERATOR(extensions.=) 'bob@example.org'$x$;
        EXECUTE $x$DELETE FROM types.extended WHERE email OPERATOR(extensions.=) ''$x$;
    END IF;
END
$do$;

-- Names -----------------------------------------------------------------------------------------------------------

UPDATE "Ünïcödé Schéma 名"."Täble 名 🐘" SET "wärde;" = 'neu', "Ключ" = 3 WHERE "Ключ" = 1;
INSERT INTO "Ünïcödé Schéma 名"."Täble 名 🐘" VALUES (1, 'wieder', 'ß');
UPDATE "select"."table" SET "from" = 'f', "order" = "order" + 10;
UPDATE "select"."a "" b.c\d $1 %s 'e'; --" SET """" = 'new', "\" = '\\' WHERE " " = 2;
DELETE FROM "select"."a "" b.c\d $1 %s 'e'; --" WHERE " " = 1;
UPDATE public."MixedCase" SET "CamelCase" = lower("CamelCase") WHERE "Id" % 2 = 0;
UPDATE public.a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres SET ctid_ = 'y';
UPDATE "x.y".z SET v = 'schema';
UPDATE x."y.z" SET v = 'table';

-- Columns ---------------------------------------------------------------------------------------------------------

INSERT INTO public.dropped_columns VALUES (3, NULL, '', DEFAULT);
UPDATE public.dropped_columns SET b = NULL, later = -1 WHERE id = 1;
UPDATE public.generated SET price = price * 2, note = 'CHANGED' WHERE id % 2 = 0;
INSERT INTO public.generated (price, amount) VALUES (3.333, 3);
INSERT INTO public.generated (id, other, price, amount) OVERRIDING SYSTEM VALUE VALUES (7, 7, 0, 0);
DELETE FROM public.generated WHERE id = 105;
UPDATE public.many_columns SET c300 = 1, c298 = 'x', c1 = NULL WHERE id = 1;
INSERT INTO public.insert_only_no_columns DEFAULT VALUES;

-- Unchanged TOAST: the big columns are not sent, and must stay.
UPDATE public.toast SET counter = counter + 1;
UPDATE public.toast SET counter = counter + 1, big = big || '!' WHERE id % 3 = 0;
UPDATE public.toast SET big = NULL WHERE id = 4;
UPDATE public.toast SET id = id + 1000 WHERE id IN (5, 100);
BEGIN;
UPDATE public.toast SET small = 'twice' WHERE id = 6;
UPDATE public.toast SET uncompressed = 'short now' WHERE id = 6;
UPDATE public.toast SET small = 'three times' WHERE id = 6;
DELETE FROM public.toast WHERE id = 7;
INSERT INTO public.toast (id, small, big) SELECT 7, 'back', big FROM public.toast WHERE id = 8;
UPDATE public.toast SET counter = 77 WHERE id = 7;
COMMIT;

-- Keys ------------------------------------------------------------------------------------------------------------

UPDATE public.composite_key SET v = 'changed' WHERE a = 3;
UPDATE public.composite_key SET a = a + 100, c = c + 1 WHERE b LIKE 'k1%';
DELETE FROM public.composite_key WHERE a = 4;
-- A chain of keys, in one statement and one transaction: every row moves to its neighbour's place.
BEGIN;
DELETE FROM public.composite_key WHERE a = 5;
INSERT INTO public.composite_key SELECT 5, 'chain', date '2026-06-01' + n, 'c' || n FROM generate_series(1, 10) n;
COMMIT;
BEGIN;
UPDATE public.composite_key SET c = c - 1000 WHERE a = 5;
UPDATE public.composite_key SET c = c + 1001 WHERE a = 5;
COMMIT;
-- One row: inserted, moved, changed, moved back, deleted, inserted again.
BEGIN;
INSERT INTO public.identity_index VALUES (1000, 'moving', 1, 'a');
UPDATE public.identity_index SET code = 'moved' WHERE a = 1000;
UPDATE public.identity_index SET v = 'b' WHERE a = 1000;
UPDATE public.identity_index SET code = 'moving' WHERE a = 1000;
DELETE FROM public.identity_index WHERE a = 1000;
INSERT INTO public.identity_index VALUES (1000, 'moving', 1, 'c');
UPDATE public.identity_index SET a = 1001 WHERE a = 1000;
COMMIT;
UPDATE public.identity_index SET region = region + 1 WHERE a < 10;
DELETE FROM public.identity_index WHERE region = 0;

-- REPLICA IDENTITY FULL: one of several equal rows each time.
UPDATE public.identity_full SET b = 'one of three' WHERE ctid = (SELECT ctid FROM public.identity_full WHERE a = 1 LIMIT 1);
DELETE FROM public.identity_full WHERE ctid = (SELECT ctid FROM public.identity_full WHERE a = 1 AND b = 'dup' LIMIT 1);
DELETE FROM public.identity_full WHERE ctid = (SELECT ctid FROM public.identity_full WHERE a IS NULL LIMIT 1);
UPDATE public.identity_full SET c = 1.00 WHERE a = 2;
DELETE FROM public.identity_full WHERE a = 3 AND c::text = '1.000';
INSERT INTO public.identity_full SELECT * FROM public.identity_full;
UPDATE public.identity_full_odd_types SET p = '(3,4)' WHERE j::text = '{"a":1}';
DELETE FROM public.identity_full_odd_types WHERE ctid = (SELECT ctid FROM public.identity_full_odd_types WHERE j IS NULL LIMIT 1);
INSERT INTO public.identity_full_odd_types SELECT * FROM public.identity_full_odd_types;
UPDATE public.identity_full_toast SET note = note || ' changed' WHERE id <= 3;
DELETE FROM public.identity_full_toast WHERE id = 5;

INSERT INTO public.insert_only_nothing VALUES (3, 'three');
INSERT INTO public.insert_only_heap (line) SELECT 'more ' || n FROM generate_series(1, 10) n;
INSERT INTO public.insert_only_deferrable_key VALUES (2, 'two');

-- Unique values that change places: no order of set statements does this, only the source's.
BEGIN;
UPDATE public.unique_values SET swap = -1 WHERE id = 1;
UPDATE public.unique_values SET swap = 1 WHERE id = 2;
UPDATE public.unique_values SET swap = 2 WHERE id = 1;
COMMIT;
BEGIN;
DELETE FROM public.unique_values WHERE id = 3;
UPDATE public.unique_values SET slug = 'slug-3' WHERE id = 4;
INSERT INTO public.unique_values VALUES (3, 1003, 'slug-4', 3, int4range(5000, 5010));
COMMIT;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
UPDATE public.unique_values SET active = false;
UPDATE public.unique_values SET rank = 1000 - rank WHERE id BETWEEN 10 AND 30;
UPDATE public.unique_values SET during = (SELECT int4range(max(upper(during)), max(upper(during)) + 5) FROM public.unique_values) WHERE id = 12;
UPDATE public.unique_values SET active = true;
COMMIT;

-- Foreign keys and triggers -----------------------------------------------------------------------------------------

INSERT INTO public.customers (name) SELECT 'Late ' || n FROM generate_series(1, 5) n;
UPDATE public.customers SET name = upper(name) WHERE id % 4 = 0;
DELETE FROM public.customers WHERE id = 3;
UPDATE public.customers SET id = id + 500 WHERE id = 6;
DELETE FROM public.orders WHERE id = 1;
BEGIN;
-- The child before its parent: the constraint is deferred.
UPDATE public.customers SET favourite = 9000 WHERE id = 12;
INSERT INTO public.orders (id, customer) VALUES (9000, 12);
INSERT INTO public.order_lines VALUES (9000, 1, 'audited late', 9);
COMMIT;
INSERT INTO public.tree VALUES (4, 2, 'new');
UPDATE public.tree SET id = 40 WHERE id = 4;
DELETE FROM public.tree WHERE id = 1;

-- Savepoints --------------------------------------------------------------------------------------------------------

BEGIN;
INSERT INTO public.uses_sequence (id, v) VALUES (1000, 'kept');
SAVEPOINT a;
INSERT INTO public.uses_sequence (id, v) VALUES (1001, 'rolled back');
SAVEPOINT b;
UPDATE public.uses_sequence SET v = 'rolled back' WHERE id = 1000;
ROLLBACK TO SAVEPOINT a;
INSERT INTO public.uses_sequence (id, v) VALUES (1001, 'kept, second try');
SAVEPOINT c;
DELETE FROM public.uses_sequence WHERE id = 1000;
RELEASE SAVEPOINT c;
SAVEPOINT d;
TRUNCATE public.uses_sequence;
ROLLBACK TO SAVEPOINT d;
COMMIT;
BEGIN;
TRUNCATE public.customers CASCADE;
DELETE FROM public."MixedCase";
ROLLBACK;
DO $do$
BEGIN
    FOR n IN 1..200 LOOP -- more subtransactions than a commit record's cache holds
        BEGIN
            INSERT INTO public.uses_sequence (id, v) VALUES (2000 + n, 'sub ' || n);
            IF n % 3 = 0 THEN
                RAISE EXCEPTION 'undo';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END
$do$;

-- Partitions and inheritance ------------------------------------------------------------------------------------------

UPDATE public.measurements SET value = -value WHERE id % 10 = 0;
-- Rows move to other partitions, also out of one whose columns are in another order.
UPDATE public.measurements SET region = 'north' WHERE region = 'east' AND id % 8 = 3;
UPDATE public.measurements SET day = day + 365 WHERE id BETWEEN 20 AND 40;
DELETE FROM public.measurements WHERE region = 'nörd;' AND id % 3 = 0;
INSERT INTO public.measurements (id, day, region) VALUES (5000, '2026-07-01', 'west'), (5001, '1999-01-01', 'north'), (5002, '2030-01-01', 'x');
INSERT INTO public.measurements_2025 (id, day, region) VALUES (5003, '2025-07-01', 'straight into the leaf');
UPDATE public.hashed SET id = id + 1000 WHERE id % 7 = 0;
UPDATE public.hashed SET v = 'changed' WHERE id % 5 = 0;
INSERT INTO public.insert_only_events VALUES ('2026-12-31', 'the last');
UPDATE public.animals SET name = upper(name);
INSERT INTO public.birds VALUES (2, 'same id as the cat', 1);
UPDATE public.parrots SET words = words || 'cracker;'::text, id = 21 WHERE id = 20;
DELETE FROM ONLY public.animals WHERE id = 1;

-- Truncation ----------------------------------------------------------------------------------------------------------

BEGIN;
INSERT INTO public.rule_log (name) VALUES ('before');
TRUNCATE public.rule_log RESTART IDENTITY;
INSERT INTO public.rule_log (name) VALUES ('after');
COMMIT;
TRUNCATE public.orders CASCADE; -- and order_lines, and customers, by their foreign keys
INSERT INTO public.customers (name) VALUES ('after the flood');
TRUNCATE public.hashed, public.insert_only_heap, public.insert_only_nothing, "x.y".z;
INSERT INTO public.hashed VALUES (1, 'again'), (2, 'again');
INSERT INTO public.insert_only_heap (line) VALUES ('again');
TRUNCATE public.measurements_2025;
TRUNCATE ONLY public.birds;

-- What is not replicated, and what changes nothing ----------------------------------------------------------------------

UPDATE public.unlogged_cache SET v = 'still not logged';
CREATE TEMPORARY TABLE more_scratch AS SELECT n FROM generate_series(1, 100) n;
DROP TABLE more_scratch;
SELECT nextval('public.plain_sequence');
SELECT pg_logical_emit_message(true, 'relevo-awkward', 'inside a transaction; with a body');
SELECT pg_logical_emit_message(false, 'relevo-awkward', 'outside');
UPDATE public.owned_by_reader SET v = 'y';

-- One large transaction, with a part that is rolled back.
BEGIN;
INSERT INTO public.composite_key SELECT 10000 + n, 'large', '2027-01-01', md5(n::text) FROM generate_series(1, 30000) n;
SAVEPOINT large;
UPDATE public.composite_key SET v = 'rolled back' WHERE b = 'large';
ROLLBACK TO SAVEPOINT large;
UPDATE public.composite_key SET v = v || '+' WHERE b = 'large' AND a % 3 = 0;
DELETE FROM public.composite_key WHERE b = 'large' AND a % 5 = 0;
COMMIT;
