--
-- PostgreSQL database dump
--

\restrict EyqnWRoLTQiY5GaLXrK2RECagsKTTW1r9XguYIO6HTfXeTXau6riWVQlgyRnXaK

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: extensions; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA extensions;


ALTER SCHEMA extensions OWNER TO postgres;

--
-- Name: select; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA "select";


ALTER SCHEMA "select" OWNER TO postgres;

--
-- Name: SCHEMA "select"; Type: COMMENT; Schema: -; Owner: postgres
--

COMMENT ON SCHEMA "select" IS 'a reserved word; with a semicolon, a ''quote'' and a \backslash';


--
-- Name: types; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA types;


ALTER SCHEMA types OWNER TO postgres;

--
-- Name: x; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA x;


ALTER SCHEMA x OWNER TO postgres;

--
-- Name: x.y; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA "x.y";


ALTER SCHEMA "x.y" OWNER TO postgres;

--
-- Name: Ünïcödé Schéma 名; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA "Ünïcödé Schéma 名";


ALTER SCHEMA "Ünïcödé Schéma 名" OWNER TO postgres;

--
-- Name: plain; Type: COLLATION; Schema: types; Owner: postgres
--

CREATE COLLATION types.plain (provider = libc, locale = 'C');


ALTER COLLATION types.plain OWNER TO postgres;

--
-- Name: citext; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA extensions;


--
-- Name: EXTENSION citext; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION citext IS 'data type for case-insensitive character strings';


--
-- Name: hstore; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA extensions;


--
-- Name: EXTENSION hstore; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION hstore IS 'data type for storing sets of (key, value) pairs';


--
-- Name: floatrange; Type: TYPE; Schema: types; Owner: postgres
--

CREATE TYPE types.floatrange AS RANGE (
    subtype = double precision,
    multirange_type_name = types.floatmultirange,
    subtype_diff = float8mi
);


ALTER TYPE types.floatrange OWNER TO postgres;

--
-- Name: label; Type: DOMAIN; Schema: types; Owner: postgres
--

CREATE DOMAIN types.label AS text COLLATE pg_catalog."C" NOT NULL
	CONSTRAINT label_check CHECK ((VALUE <> 'forbidden;'::text));


ALTER DOMAIN types.label OWNER TO postgres;

--
-- Name: mood; Type: TYPE; Schema: types; Owner: postgres
--

CREATE TYPE types.mood AS ENUM (
    'sad',
    'it''s; "ok"',
    'häppy',
    '',
    'with, comma',
    'back\slash'
);


ALTER TYPE types.mood OWNER TO postgres;

--
-- Name: point3; Type: TYPE; Schema: types; Owner: postgres
--

CREATE TYPE types.point3 AS (
	x double precision,
	y numeric,
	"Z z" text
);


ALTER TYPE types.point3 OWNER TO postgres;

--
-- Name: nested; Type: TYPE; Schema: types; Owner: postgres
--

CREATE TYPE types.nested AS (
	id integer,
	place types.point3,
	tags text[]
);


ALTER TYPE types.nested OWNER TO postgres;

--
-- Name: numbers; Type: DOMAIN; Schema: types; Owner: postgres
--

CREATE DOMAIN types.numbers AS integer[]
	CONSTRAINT numbers_check CHECK ((array_length(VALUE, 1) < 10));


ALTER DOMAIN types.numbers OWNER TO postgres;

--
-- Name: positive; Type: DOMAIN; Schema: types; Owner: postgres
--

CREATE DOMAIN types.positive AS integer DEFAULT 7
	CONSTRAINT positive_check CHECK ((VALUE > 0));


ALTER DOMAIN types.positive OWNER TO postgres;

--
-- Name: audit_row(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.audit_row() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO public.audit (what, row_data) VALUES (TG_OP || ' ' || TG_TABLE_NAME || ';', to_jsonb(coalesce(NEW, OLD)));
    RETURN NULL;
END $$;


ALTER FUNCTION public.audit_row() OWNER TO postgres;

--
-- Name: log_ddl(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.log_ddl() RETURNS event_trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO public.ddl_log (tag) VALUES (tg_tag || ';');
END $$;


ALTER FUNCTION public.log_ddl() OWNER TO postgres;

--
-- Name: touch(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$;


ALTER FUNCTION public.touch() OWNER TO postgres;

--
-- Name: do_nothing(integer); Type: PROCEDURE; Schema: types; Owner: postgres
--

CREATE PROCEDURE types.do_nothing(INOUT n integer)
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT (n + 1);
 SELECT
         CASE n
             WHEN 1 THEN 2
             ELSE
             CASE
                 WHEN (n > 2) THEN 3
                 ELSE NULL::integer
             END
         END AS "case";
END;


ALTER PROCEDURE types.do_nothing(INOUT n integer) OWNER TO postgres;

--
-- Name: odd; name(text); Type: FUNCTION; Schema: types; Owner: postgres
--

CREATE FUNCTION types."odd; name"(text DEFAULT 'a;''b'::text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', '"; drop'
    AS $_$
DECLARE
    inner_text text := $q$ ; $body $ $q$; -- a comment; with 'an open quote
BEGIN
    /* nested /* comment; */ ' */
    RETURN inner_text || $1 || E'\';' || U&'d\0061t\+000061';
END;
$_$;


ALTER FUNCTION types."odd; name"(text) OWNER TO postgres;

--
-- Name: twice(integer); Type: FUNCTION; Schema: types; Owner: postgres
--

CREATE FUNCTION types.twice(n integer) RETURNS integer
    LANGUAGE sql IMMUTABLE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (n IS NULL) THEN 0
             ELSE (n + n)
         END AS "case";
END;


ALTER FUNCTION types.twice(n integer) OWNER TO postgres;

--
-- Name: total(integer); Type: AGGREGATE; Schema: types; Owner: postgres
--

CREATE AGGREGATE types.total(integer) (
    SFUNC = int4pl,
    STYPE = integer,
    INITCOND = '0'
);


ALTER AGGREGATE types.total(integer) OWNER TO postgres;

--
-- Name: <=>#; Type: OPERATOR; Schema: types; Owner: postgres
--

CREATE OPERATOR types.<=># (
    FUNCTION = btint4cmp,
    LEFTARG = integer,
    RIGHTARG = integer
);


ALTER OPERATOR types.<=># (integer, integer) OWNER TO postgres;

--
-- Name: words; Type: TEXT SEARCH CONFIGURATION; Schema: types; Owner: postgres
--

CREATE TEXT SEARCH CONFIGURATION types.words (
    PARSER = pg_catalog."default" );

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR asciiword WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR word WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR numword WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR email WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR url WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR host WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR sfloat WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR version WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR hword_numpart WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR hword_part WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR hword_asciipart WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR numhword WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR asciihword WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR hword WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR url_path WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR file WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR "float" WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR "int" WITH simple;

ALTER TEXT SEARCH CONFIGURATION types.words
    ADD MAPPING FOR uint WITH simple;


ALTER TEXT SEARCH CONFIGURATION types.words OWNER TO postgres;

--
-- Name: relevo_nowhere; Type: FOREIGN DATA WRAPPER; Schema: -; Owner: postgres
--

CREATE FOREIGN DATA WRAPPER relevo_nowhere;


ALTER FOREIGN DATA WRAPPER relevo_nowhere OWNER TO postgres;

--
-- Name: nowhere; Type: SERVER; Schema: -; Owner: postgres
--

CREATE SERVER nowhere FOREIGN DATA WRAPPER relevo_nowhere OPTIONS (
    host 'no;where'
);


ALTER SERVER nowhere OWNER TO postgres;

--
-- Name: USER MAPPING public SERVER nowhere; Type: USER MAPPING; Schema: -; Owner: postgres
--

CREATE USER MAPPING FOR public SERVER nowhere OPTIONS (
    password 'not-to-be-shown',
    "user" 'u'
);


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: MixedCase; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public."MixedCase" (
    "Id" integer NOT NULL,
    "CamelCase" text,
    camelcase text
);


ALTER TABLE public."MixedCase" OWNER TO postgres;

--
-- Name: MixedCase_Id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public."MixedCase_Id_seq"
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public."MixedCase_Id_seq" OWNER TO postgres;

--
-- Name: MixedCase_Id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: postgres
--

ALTER SEQUENCE public."MixedCase_Id_seq" OWNED BY public."MixedCase"."Id";


--
-- Name: a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres (
    a_column_of_63_bytes_which_is_as_long_as_names_can_be_in_postgr integer NOT NULL,
    ctid_ text
);


ALTER TABLE public.a_name_of_63_bytes_which_is_as_long_as_names_can_be_in_postgres OWNER TO postgres;

--
-- Name: orders; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.orders (
    id bigint NOT NULL,
    customer bigint NOT NULL,
    placed_at timestamp with time zone DEFAULT now() NOT NULL,
    state text DEFAULT 'new'::text NOT NULL
);
ALTER TABLE ONLY public.orders ALTER COLUMN customer SET STATISTICS 500;


ALTER TABLE public.orders OWNER TO postgres;

--
-- Name: TABLE orders; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON TABLE public.orders IS 'Orders; with a newline
and a -- which is no comment, and a /* too';


--
-- Name: z_below; Type: MATERIALIZED VIEW; Schema: public; Owner: postgres
--

CREATE MATERIALIZED VIEW public.z_below AS
 SELECT (orders.state || ';'::text) AS state,
    count(*) AS n
   FROM public.orders
  GROUP BY orders.state
  WITH NO DATA;


ALTER TABLE public.z_below OWNER TO postgres;

--
-- Name: a_on_top; Type: MATERIALIZED VIEW; Schema: public; Owner: postgres
--

CREATE MATERIALIZED VIEW public.a_on_top AS
 SELECT sum(z_below.n) AS n
   FROM public.z_below
  WITH NO DATA;


ALTER TABLE public.a_on_top OWNER TO postgres;

--
-- Name: animals; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.animals (
    id integer NOT NULL,
    name text
);


ALTER TABLE public.animals OWNER TO postgres;

--
-- Name: audit; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    what text,
    row_data jsonb
);


ALTER TABLE public.audit OWNER TO postgres;

--
-- Name: audit_id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.audit_id_seq OWNER TO postgres;

--
-- Name: audit_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: postgres
--

ALTER SEQUENCE public.audit_id_seq OWNED BY public.audit.id;


--
-- Name: customers; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.customers (
    id bigint NOT NULL,
    name text NOT NULL,
    favourite bigint,
    changed_at timestamp with time zone
);


ALTER TABLE public.customers OWNER TO postgres;

--
-- Name: order_lines; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.order_lines (
    "order" bigint NOT NULL,
    line smallint NOT NULL,
    item text,
    amount integer,
    CONSTRAINT order_lines_amount_check CHECK ((amount > 0))
);


ALTER TABLE public.order_lines OWNER TO postgres;

--
-- Name: order_totals; Type: VIEW; Schema: public; Owner: postgres
--

CREATE VIEW public.order_totals AS
 SELECT o.id,
    (c.name || ';'::text) AS name,
    sum(l.amount) AS amount
   FROM ((public.orders o
     JOIN public.customers c ON ((c.id = o.customer)))
     LEFT JOIN public.order_lines l ON ((l."order" = o.id)))
  GROUP BY o.id, c.name;


ALTER TABLE public.order_totals OWNER TO postgres;

--
-- Name: big_orders; Type: VIEW; Schema: public; Owner: postgres
--

CREATE VIEW public.big_orders WITH (security_barrier='true') AS
 SELECT order_totals.id,
    order_totals.name,
    order_totals.amount
   FROM public.order_totals
  WHERE (order_totals.amount > 10);


ALTER TABLE public.big_orders OWNER TO postgres;

--
-- Name: birds; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.birds (
    wingspan numeric
)
INHERITS (public.animals);


ALTER TABLE public.birds OWNER TO postgres;

--
-- Name: composite_key; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.composite_key (
    a integer NOT NULL,
    b text NOT NULL,
    c date NOT NULL,
    v text
);


ALTER TABLE public.composite_key OWNER TO postgres;

--
-- Name: customers_id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.customers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.customers_id_seq OWNER TO postgres;

--
-- Name: customers_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: postgres
--

ALTER SEQUENCE public.customers_id_seq OWNED BY public.customers.id;


--
-- Name: ddl_log; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.ddl_log (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    tag text
);


ALTER TABLE public.ddl_log OWNER TO postgres;

--
-- Name: ddl_log_id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.ddl_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.ddl_log_id_seq OWNER TO postgres;

--
-- Name: ddl_log_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: postgres
--

ALTER SEQUENCE public.ddl_log_id_seq OWNED BY public.ddl_log.id;


--
-- Name: dropped_columns; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.dropped_columns (
    id integer NOT NULL,
    a text,
    b text,
    later integer DEFAULT 42 NOT NULL
);


ALTER TABLE public.dropped_columns OWNER TO postgres;

--
-- Name: elsewhere; Type: FOREIGN TABLE; Schema: public; Owner: postgres
--

CREATE FOREIGN TABLE public.elsewhere (
    id integer
)
SERVER nowhere;


ALTER FOREIGN TABLE public.elsewhere OWNER TO postgres;

--
-- Name: far_sequence; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.far_sequence
    START WITH 9223372036854775806
    INCREMENT BY 1
    MINVALUE 9223372036854775000
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.far_sequence OWNER TO postgres;

--
-- Name: generated; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.generated (
    id integer NOT NULL,
    other integer NOT NULL,
    price numeric NOT NULL,
    amount integer NOT NULL,
    total numeric GENERATED ALWAYS AS ((price * (amount)::numeric)) STORED,
    note text DEFAULT 'none;'::text,
    folded text GENERATED ALWAYS AS (lower(note)) STORED
);


ALTER TABLE public.generated OWNER TO postgres;

--
-- Name: generated_id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

ALTER TABLE public.generated ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.generated_id_seq
    START WITH 100
    INCREMENT BY 5
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: generated_other_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

ALTER TABLE public.generated ALTER COLUMN other ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.generated_other_seq
    START WITH -10
    INCREMENT BY 1
    MINVALUE -10
    NO MAXVALUE
    CACHE 1
);


--
-- Name: hashed; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.hashed (
    id integer NOT NULL,
    v text
)
PARTITION BY HASH (id);


ALTER TABLE public.hashed OWNER TO postgres;

--
-- Name: hashed_0; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.hashed_0 (
    id integer NOT NULL,
    v text
);


ALTER TABLE public.hashed_0 OWNER TO postgres;

--
-- Name: hashed_1; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.hashed_1 (
    id integer NOT NULL,
    v text
);


ALTER TABLE public.hashed_1 OWNER TO postgres;

--
-- Name: hashed_2; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.hashed_2 (
    id integer NOT NULL,
    v text
);


ALTER TABLE public.hashed_2 OWNER TO postgres;

--
-- Name: identity_full; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.identity_full (
    a integer,
    b text,
    c numeric,
    d double precision
);

ALTER TABLE ONLY public.identity_full REPLICA IDENTITY FULL;


ALTER TABLE public.identity_full OWNER TO postgres;

--
-- Name: identity_full_odd_types; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.identity_full_odd_types (
    j json,
    p point,
    x text[],
    c types.point3,
    b box
);

ALTER TABLE ONLY public.identity_full_odd_types REPLICA IDENTITY FULL;


ALTER TABLE public.identity_full_odd_types OWNER TO postgres;

--
-- Name: identity_full_toast; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.identity_full_toast (
    id integer,
    big text,
    note text
);

ALTER TABLE ONLY public.identity_full_toast REPLICA IDENTITY FULL;


ALTER TABLE public.identity_full_toast OWNER TO postgres;

--
-- Name: identity_index; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.identity_index (
    a integer NOT NULL,
    code text NOT NULL,
    region integer NOT NULL,
    v text
);


ALTER TABLE public.identity_index OWNER TO postgres;

--
-- Name: insert_only_deferrable_key; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.insert_only_deferrable_key (
    id integer NOT NULL,
    v text
);


ALTER TABLE public.insert_only_deferrable_key OWNER TO postgres;

--
-- Name: insert_only_events; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.insert_only_events (
    at date NOT NULL,
    what text
)
PARTITION BY RANGE (at);


ALTER TABLE public.insert_only_events OWNER TO postgres;

--
-- Name: insert_only_events_2026; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.insert_only_events_2026 (
    at date NOT NULL,
    what text
);


ALTER TABLE public.insert_only_events_2026 OWNER TO postgres;

--
-- Name: insert_only_heap; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.insert_only_heap (
    at timestamp with time zone DEFAULT now(),
    line text
);


ALTER TABLE public.insert_only_heap OWNER TO postgres;

--
-- Name: insert_only_no_columns; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.insert_only_no_columns (
);


ALTER TABLE public.insert_only_no_columns OWNER TO postgres;

--
-- Name: insert_only_nothing; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.insert_only_nothing (
    id integer NOT NULL,
    v text
);

ALTER TABLE ONLY public.insert_only_nothing REPLICA IDENTITY NOTHING;


ALTER TABLE public.insert_only_nothing OWNER TO postgres;

--
-- Name: many_columns; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.many_columns (
    id integer NOT NULL,
    c1 text,
    c2 timestamp with time zone,
    c3 integer,
    c4 text,
    c5 timestamp with time zone,
    c6 integer,
    c7 text,
    c8 timestamp with time zone,
    c9 integer,
    c10 text,
    c11 timestamp with time zone,
    c12 integer,
    c13 text,
    c14 timestamp with time zone,
    c15 integer,
    c16 text,
    c17 timestamp with time zone,
    c18 integer,
    c19 text,
    c20 timestamp with time zone,
    c21 integer,
    c22 text,
    c23 timestamp with time zone,
    c24 integer,
    c25 text,
    c26 timestamp with time zone,
    c27 integer,
    c28 text,
    c29 timestamp with time zone,
    c30 integer,
    c31 text,
    c32 timestamp with time zone,
    c33 integer,
    c34 text,
    c35 timestamp with time zone,
    c36 integer,
    c37 text,
    c38 timestamp with time zone,
    c39 integer,
    c40 text,
    c41 timestamp with time zone,
    c42 integer,
    c43 text,
    c44 timestamp with time zone,
    c45 integer,
    c46 text,
    c47 timestamp with time zone,
    c48 integer,
    c49 text,
    c50 timestamp with time zone,
    c51 integer,
    c52 text,
    c53 timestamp with time zone,
    c54 integer,
    c55 text,
    c56 timestamp with time zone,
    c57 integer,
    c58 text,
    c59 timestamp with time zone,
    c60 integer,
    c61 text,
    c62 timestamp with time zone,
    c63 integer,
    c64 text,
    c65 timestamp with time zone,
    c66 integer,
    c67 text,
    c68 timestamp with time zone,
    c69 integer,
    c70 text,
    c71 timestamp with time zone,
    c72 integer,
    c73 text,
    c74 timestamp with time zone,
    c75 integer,
    c76 text,
    c77 timestamp with time zone,
    c78 integer,
    c79 text,
    c80 timestamp with time zone,
    c81 integer,
    c82 text,
    c83 timestamp with time zone,
    c84 integer,
    c85 text,
    c86 timestamp with time zone,
    c87 integer,
    c88 text,
    c89 timestamp with time zone,
    c90 integer,
    c91 text,
    c92 timestamp with time zone,
    c93 integer,
    c94 text,
    c95 timestamp with time zone,
    c96 integer,
    c97 text,
    c98 timestamp with time zone,
    c99 integer,
    c100 text,
    c101 timestamp with time zone,
    c102 integer,
    c103 text,
    c104 timestamp with time zone,
    c105 integer,
    c106 text,
    c107 timestamp with time zone,
    c108 integer,
    c109 text,
    c110 timestamp with time zone,
    c111 integer,
    c112 text,
    c113 timestamp with time zone,
    c114 integer,
    c115 text,
    c116 timestamp with time zone,
    c117 integer,
    c118 text,
    c119 timestamp with time zone,
    c120 integer,
    c121 text,
    c122 timestamp with time zone,
    c123 integer,
    c124 text,
    c125 timestamp with time zone,
    c126 integer,
    c127 text,
    c128 timestamp with time zone,
    c129 integer,
    c130 text,
    c131 timestamp with time zone,
    c132 integer,
    c133 text,
    c134 timestamp with time zone,
    c135 integer,
    c136 text,
    c137 timestamp with time zone,
    c138 integer,
    c139 text,
    c140 timestamp with time zone,
    c141 integer,
    c142 text,
    c143 timestamp with time zone,
    c144 integer,
    c145 text,
    c146 timestamp with time zone,
    c147 integer,
    c148 text,
    c149 timestamp with time zone,
    c150 integer,
    c151 text,
    c152 timestamp with time zone,
    c153 integer,
    c154 text,
    c155 timestamp with time zone,
    c156 integer,
    c157 text,
    c158 timestamp with time zone,
    c159 integer,
    c160 text,
    c161 timestamp with time zone,
    c162 integer,
    c163 text,
    c164 timestamp with time zone,
    c165 integer,
    c166 text,
    c167 timestamp with time zone,
    c168 integer,
    c169 text,
    c170 timestamp with time zone,
    c171 integer,
    c172 text,
    c173 timestamp with time zone,
    c174 integer,
    c175 text,
    c176 timestamp with time zone,
    c177 integer,
    c178 text,
    c179 timestamp with time zone,
    c180 integer,
    c181 text,
    c182 timestamp with time zone,
    c183 integer,
    c184 text,
    c185 timestamp with time zone,
    c186 integer,
    c187 text,
    c188 timestamp with time zone,
    c189 integer,
    c190 text,
    c191 timestamp with time zone,
    c192 integer,
    c193 text,
    c194 timestamp with time zone,
    c195 integer,
    c196 text,
    c197 timestamp with time zone,
    c198 integer,
    c199 text,
    c200 timestamp with time zone,
    c201 integer,
    c202 text,
    c203 timestamp with time zone,
    c204 integer,
    c205 text,
    c206 timestamp with time zone,
    c207 integer,
    c208 text,
    c209 timestamp with time zone,
    c210 integer,
    c211 text,
    c212 timestamp with time zone,
    c213 integer,
    c214 text,
    c215 timestamp with time zone,
    c216 integer,
    c217 text,
    c218 timestamp with time zone,
    c219 integer,
    c220 text,
    c221 timestamp with time zone,
    c222 integer,
    c223 text,
    c224 timestamp with time zone,
    c225 integer,
    c226 text,
    c227 timestamp with time zone,
    c228 integer,
    c229 text,
    c230 timestamp with time zone,
    c231 integer,
    c232 text,
    c233 timestamp with time zone,
    c234 integer,
    c235 text,
    c236 timestamp with time zone,
    c237 integer,
    c238 text,
    c239 timestamp with time zone,
    c240 integer,
    c241 text,
    c242 timestamp with time zone,
    c243 integer,
    c244 text,
    c245 timestamp with time zone,
    c246 integer,
    c247 text,
    c248 timestamp with time zone,
    c249 integer,
    c250 text,
    c251 timestamp with time zone,
    c252 integer,
    c253 text,
    c254 timestamp with time zone,
    c255 integer,
    c256 text,
    c257 timestamp with time zone,
    c258 integer,
    c259 text,
    c260 timestamp with time zone,
    c261 integer,
    c262 text,
    c263 timestamp with time zone,
    c264 integer,
    c265 text,
    c266 timestamp with time zone,
    c267 integer,
    c268 text,
    c269 timestamp with time zone,
    c270 integer,
    c271 text,
    c272 timestamp with time zone,
    c273 integer,
    c274 text,
    c275 timestamp with time zone,
    c276 integer,
    c277 text,
    c278 timestamp with time zone,
    c279 integer,
    c280 text,
    c281 timestamp with time zone,
    c282 integer,
    c283 text,
    c284 timestamp with time zone,
    c285 integer,
    c286 text,
    c287 timestamp with time zone,
    c288 integer,
    c289 text,
    c290 timestamp with time zone,
    c291 integer,
    c292 text,
    c293 timestamp with time zone,
    c294 integer,
    c295 text,
    c296 timestamp with time zone,
    c297 integer,
    c298 text,
    c299 timestamp with time zone,
    c300 integer
);


ALTER TABLE public.many_columns OWNER TO postgres;

--
-- Name: measurements; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.measurements (
    id bigint NOT NULL,
    day date NOT NULL,
    region text NOT NULL,
    value numeric,
    note text DEFAULT 'n/a'::text
)
PARTITION BY RANGE (day);


ALTER TABLE public.measurements OWNER TO postgres;

--
-- Name: measurements_2025; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.measurements_2025 (
    id bigint NOT NULL,
    day date NOT NULL,
    region text NOT NULL,
    value numeric,
    note text DEFAULT 'n/a'::text
);


ALTER TABLE public.measurements_2025 OWNER TO postgres;

--
-- Name: measurements_2026; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.measurements_2026 (
    id bigint NOT NULL,
    day date NOT NULL,
    region text NOT NULL,
    value numeric,
    note text DEFAULT 'n/a'::text
)
PARTITION BY LIST (region);


ALTER TABLE public.measurements_2026 OWNER TO postgres;

--
-- Name: measurements_2026_rest; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.measurements_2026_rest (
    note text DEFAULT 'other'::text,
    value numeric,
    region text NOT NULL,
    id bigint NOT NULL,
    day date NOT NULL
);


ALTER TABLE public.measurements_2026_rest OWNER TO postgres;

--
-- Name: measurements_default; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.measurements_default (
    id bigint NOT NULL,
    day date NOT NULL,
    region text NOT NULL,
    value numeric,
    note text DEFAULT 'n/a'::text
);


ALTER TABLE public.measurements_default OWNER TO postgres;

--
-- Name: never_called; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.never_called
    START WITH 33
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.never_called OWNER TO postgres;

--
-- Name: never_populated; Type: MATERIALIZED VIEW; Schema: public; Owner: postgres
--

CREATE MATERIALIZED VIEW public.never_populated AS
 SELECT order_totals.id,
    order_totals.name,
    order_totals.amount
   FROM public.order_totals
  WITH NO DATA;


ALTER TABLE public.never_populated OWNER TO postgres;

--
-- Name: no_partitions; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.no_partitions (
    id integer NOT NULL
)
PARTITION BY RANGE (id);


ALTER TABLE public.no_partitions OWNER TO postgres;

--
-- Name: orders_id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.orders_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.orders_id_seq OWNER TO postgres;

--
-- Name: orders_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: postgres
--

ALTER SEQUENCE public.orders_id_seq OWNED BY public.orders.id;


--
-- Name: owned_by_reader; Type: TABLE; Schema: public; Owner: relevo awkward; reader
--

CREATE TABLE public.owned_by_reader (
    id integer NOT NULL,
    v text
);


ALTER TABLE public.owned_by_reader OWNER TO "relevo awkward; reader";

--
-- Name: parrots; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.parrots (
    words text[]
)
INHERITS (public.birds);


ALTER TABLE public.parrots OWNER TO postgres;

--
-- Name: plain_sequence; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.plain_sequence
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.plain_sequence OWNER TO postgres;

--
-- Name: rule_log; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.rule_log (
    id integer NOT NULL,
    name text
);


ALTER TABLE public.rule_log OWNER TO postgres;

--
-- Name: rule_log_id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.rule_log_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.rule_log_id_seq OWNER TO postgres;

--
-- Name: rule_log_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: postgres
--

ALTER SEQUENCE public.rule_log_id_seq OWNED BY public.rule_log.id;


--
-- Name: toast; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.toast (
    id integer NOT NULL,
    small text,
    big text,
    big_binary bytea,
    big_json jsonb,
    uncompressed text,
    counter integer DEFAULT 0
);
ALTER TABLE ONLY public.toast ALTER COLUMN uncompressed SET STORAGE EXTERNAL;


ALTER TABLE public.toast OWNER TO postgres;

--
-- Name: tree; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.tree (
    id integer NOT NULL,
    parent integer,
    name text
);


ALTER TABLE public.tree OWNER TO postgres;

--
-- Name: unique_values; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.unique_values (
    id integer NOT NULL,
    rank integer NOT NULL,
    slug text,
    swap integer,
    during int4range,
    active boolean DEFAULT true,
    CONSTRAINT "odd; check" CHECK (((slug <> ';--'::text) AND (rank > '-1000000'::integer)))
);


ALTER TABLE public.unique_values OWNER TO postgres;

--
-- Name: unlogged_cache; Type: TABLE; Schema: public; Owner: postgres
--

CREATE UNLOGGED TABLE public.unlogged_cache (
    id integer NOT NULL,
    v text
);


ALTER TABLE public.unlogged_cache OWNER TO postgres;

--
-- Name: uses_sequence; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.uses_sequence (
    id integer DEFAULT nextval('public.plain_sequence'::regclass) NOT NULL,
    v text
);


ALTER TABLE public.uses_sequence OWNER TO postgres;

--
-- Name: Down; Sequence; Type: SEQUENCE; Schema: select; Owner: postgres
--

CREATE SEQUENCE "select"."Down; Sequence"
    AS smallint
    START WITH -7
    INCREMENT BY -3
    NO MINVALUE
    NO MAXVALUE
    CACHE 5
    CYCLE;


ALTER TABLE "select"."Down; Sequence" OWNER TO postgres;

--
-- Name: a " b.c\d $1 %s 'e'; --; Type: TABLE; Schema: select; Owner: postgres
--

CREATE TABLE "select"."a "" b.c\d $1 %s 'e'; --" (
    " " integer NOT NULL,
    """" text,
    "a.b" text,
    "$1" text,
    "\" text
);


ALTER TABLE "select"."a "" b.c\d $1 %s 'e'; --" OWNER TO postgres;

--
-- Name: table; Type: TABLE; Schema: select; Owner: postgres
--

CREATE TABLE "select"."table" (
    "user" integer NOT NULL,
    "order" integer NOT NULL,
    "from" text,
    "Select" text
);


ALTER TABLE "select"."table" OWNER TO postgres;

--
-- Name: by_float; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.by_float (
    key double precision NOT NULL,
    note text
);


ALTER TABLE types.by_float OWNER TO postgres;

--
-- Name: by_many; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.by_many (
    d date NOT NULL,
    t timestamp with time zone NOT NULL,
    u uuid NOT NULL,
    b bytea NOT NULL,
    e types.mood NOT NULL,
    r int4range NOT NULL,
    i inet NOT NULL,
    l types.label NOT NULL,
    v integer
);


ALTER TABLE types.by_many OWNER TO postgres;

--
-- Name: by_numeric; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.by_numeric (
    key numeric NOT NULL,
    note text
);


ALTER TABLE types.by_numeric OWNER TO postgres;

--
-- Name: scalars; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.scalars (
    id integer NOT NULL,
    c_bool boolean,
    c_int2 smallint,
    c_int4 integer,
    c_int8 bigint,
    c_float4 real,
    c_float8 double precision,
    c_numeric numeric,
    c_numeric_10_2 numeric(10,2),
    c_money money,
    c_text text,
    c_varchar character varying(40),
    c_char character(7),
    c_char_internal "char",
    c_name name,
    c_bytea bytea,
    c_date date,
    c_time time without time zone,
    c_time_3 time(3) without time zone,
    c_timetz time with time zone,
    c_timestamp timestamp without time zone,
    c_timestamptz timestamp with time zone,
    c_timestamptz_0 timestamp(0) with time zone,
    c_interval interval,
    c_interval_dts interval day to second,
    c_uuid uuid,
    c_json json,
    c_jsonb jsonb,
    c_jsonpath jsonpath,
    c_inet inet,
    c_cidr cidr,
    c_macaddr macaddr,
    c_macaddr8 macaddr8,
    c_bit bit(5),
    c_varbit bit varying,
    c_tsvector tsvector,
    c_tsquery tsquery,
    c_point point,
    c_line line,
    c_lseg lseg,
    c_box box,
    c_path path,
    c_polygon polygon,
    c_circle circle,
    c_pg_lsn pg_lsn,
    c_pg_snapshot pg_snapshot,
    c_txid_snapshot txid_snapshot,
    c_oid oid,
    c_xid xid,
    c_xid8 xid8,
    c_cid cid,
    c_tid tid,
    c_aclitem aclitem,
    c_refcursor refcursor,
    c_int2vector int2vector,
    c_oidvector oidvector,
    c_regclass regclass,
    c_regtype regtype,
    c_regproc regproc,
    c_regprocedure regprocedure,
    c_regoper regoper,
    c_regoperator regoperator,
    c_regconfig regconfig,
    c_regdictionary regdictionary,
    c_regnamespace regnamespace,
    c_regrole regrole,
    c_regcollation regcollation
);


ALTER TABLE types.scalars OWNER TO postgres;

--
-- Name: compounds; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.compounds (
    id bigint NOT NULL,
    c_int4range int4range,
    c_int8range int8range,
    c_numrange numrange,
    c_tsrange tsrange,
    c_tstzrange tstzrange,
    c_daterange daterange,
    c_floatrange types.floatrange,
    c_int4multirange int4multirange,
    c_int8multirange int8multirange,
    c_nummultirange nummultirange,
    c_tsmultirange tsmultirange,
    c_tstzmultirange tstzmultirange,
    c_datemultirange datemultirange,
    c_floatmultirange types.floatmultirange,
    c_int4_array integer[],
    c_text_array text[],
    c_numeric_array numeric[],
    c_timestamptz_array timestamp with time zone[],
    c_bytea_array bytea[],
    c_jsonb_array jsonb[],
    c_range_array int4range[],
    c_bool_array boolean[],
    c_enum types.mood,
    c_enum_array types.mood[],
    c_domain types.positive,
    c_domain_array types.positive[],
    c_domain_of_array types.numbers,
    c_composite types.point3,
    c_composite_array types.point3[],
    c_nested types.nested,
    c_row types.scalars,
    c_multirange_array int4multirange[]
);


ALTER TABLE types.compounds OWNER TO postgres;

--
-- Name: extended; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.extended (
    email extensions.citext NOT NULL,
    attributes extensions.hstore,
    many extensions.hstore[]
);


ALTER TABLE types.extended OWNER TO postgres;

--
-- Name: labels; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.labels (
    code types.label NOT NULL,
    amount types.positive NOT NULL,
    feeling types.mood DEFAULT 'häppy'::types.mood
);


ALTER TABLE types.labels OWNER TO postgres;

--
-- Name: markup; Type: TABLE; Schema: types; Owner: postgres
--

CREATE TABLE types.markup (
    id integer NOT NULL,
    doc xml,
    docs xml[]
);


ALTER TABLE types.markup OWNER TO postgres;

--
-- Name: y.z; Type: TABLE; Schema: x; Owner: postgres
--

CREATE TABLE x."y.z" (
    id integer NOT NULL,
    v text
);


ALTER TABLE x."y.z" OWNER TO postgres;

--
-- Name: z; Type: TABLE; Schema: x.y; Owner: postgres
--

CREATE TABLE "x.y".z (
    id integer NOT NULL,
    v text
);


ALTER TABLE "x.y".z OWNER TO postgres;

--
-- Name: Täble 名 🐘; Type: TABLE; Schema: Ünïcödé Schéma 名; Owner: postgres
--

CREATE TABLE "Ünïcödé Schéma 名"."Täble 名 🐘" (
    "Ключ" integer NOT NULL,
    "wärde;" text,
    "ß" text DEFAULT 'ß;'::text
);


ALTER TABLE "Ünïcödé Schéma 名"."Täble 名 🐘" OWNER TO postgres;

--
-- Name: measurements_2026_north; Type: TABLE; Schema: Ünïcödé Schéma 名; Owner: postgres
--

CREATE TABLE "Ünïcödé Schéma 名".measurements_2026_north (
    id bigint NOT NULL,
    day date NOT NULL,
    region text NOT NULL,
    value numeric,
    note text DEFAULT 'n/a'::text
);


ALTER TABLE "Ünïcödé Schéma 名".measurements_2026_north OWNER TO postgres;

--
-- Name: hashed_0; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.hashed ATTACH PARTITION public.hashed_0 FOR VALUES WITH (modulus 3, remainder 0);


--
-- Name: hashed_1; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.hashed ATTACH PARTITION public.hashed_1 FOR VALUES WITH (modulus 3, remainder 1);


--
-- Name: hashed_2; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.hashed ATTACH PARTITION public.hashed_2 FOR VALUES WITH (modulus 3, remainder 2);


--
-- Name: insert_only_events_2026; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.insert_only_events ATTACH PARTITION public.insert_only_events_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');


--
-- Name: measurements_2025; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements ATTACH PARTITION public.measurements_2025 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');


--
-- Name: measurements_2026; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements ATTACH PARTITION public.measurements_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');


--
-- Name: measurements_2026_rest; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements_2026 ATTACH PARTITION public.measurements_2026_rest DEFAULT;


--
-- Name: measurements_default; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.measurements ATTACH PARTITION public.measurements_default DEFAULT;


--
-- Name: measurements_2026_north; Type: TABLE ATTACH; Schema: Ünïcödé Schéma 名; Owner: postgres
--

ALTER TABLE ONLY public.measurements_2026 ATTACH PARTITION "Ünïcödé Schéma 名".measurements_2026_north FOR VALUES IN ('north', 'nörd;');


--
-- Name: MixedCase Id; Type: DEFAULT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public."MixedCase" ALTER COLUMN "Id" SET DEFAULT nextval('public."MixedCase_Id_seq"'::regclass);


--
-- Name: audit id; Type: DEFAULT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.audit ALTER COLUMN id SET DEFAULT nextval('public.audit_id_seq'::regclass);


--
-- Name: customers id; Type: DEFAULT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.customers ALTER COLUMN id SET DEFAULT nextval('public.customers_id_seq'::regclass);


--
-- Name: ddl_log id; Type: DEFAULT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.ddl_log ALTER COLUMN id SET DEFAULT nextval('public.ddl_log_id_seq'::regclass);


--
-- Name: orders id; Type: DEFAULT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.orders ALTER COLUMN id SET DEFAULT nextval('public.orders_id_seq'::regclass);


--
-- Name: rule_log id; Type: DEFAULT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.rule_log ALTER COLUMN id SET DEFAULT nextval('public.rule_log_id_seq'::regclass);


--
-- Name: SCHEMA "select"; Type: ACL; Schema: -; Owner: postgres
--

GRANT USAGE ON SCHEMA "select" TO "relevo awkward; reader";


--
-- Name: SCHEMA types; Type: ACL; Schema: -; Owner: postgres
--

GRANT USAGE ON SCHEMA types TO "relevo awkward; reader";


--
-- Name: FUNCTION "odd; name"(text); Type: ACL; Schema: types; Owner: postgres
--

GRANT ALL ON FUNCTION types."odd; name"(text) TO "relevo awkward; reader";


--
-- Name: TABLE orders; Type: ACL; Schema: public; Owner: postgres
--

GRANT SELECT ON TABLE public.orders TO "relevo awkward; reader" WITH GRANT OPTION;


--
-- Name: COLUMN orders.id; Type: ACL; Schema: public; Owner: postgres
--

GRANT INSERT(id) ON TABLE public.orders TO "relevo awkward; reader" WITH GRANT OPTION;


--
-- Name: COLUMN orders.state; Type: ACL; Schema: public; Owner: postgres
--

GRANT INSERT(state) ON TABLE public.orders TO "relevo awkward; reader" WITH GRANT OPTION;


--
-- PostgreSQL database dump complete
--

\unrestrict EyqnWRoLTQiY5GaLXrK2RECagsKTTW1r9XguYIO6HTfXeTXau6riWVQlgyRnXaK

