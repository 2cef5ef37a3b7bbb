//! Every type arrives as it was, by INSERT, by COPY, by UPDATE, and finds its row again.

use bytes::Bytes;
use relevo_model::{Cell, Change, OldRow, Row};

use crate::fixture::{Fixture, insert};

const SCHEMA: &str = "
CREATE EXTENSION hstore; CREATE EXTENSION citext;
CREATE SCHEMA \"Odd\";
CREATE TYPE \"Odd\".mood AS ENUM ('sad', 'it''s ok');
CREATE DOMAIN \"Odd\".\"Mail\" AS citext CHECK (VALUE LIKE '%@%');
CREATE TYPE \"Odd\".pair AS (a int, b text);
CREATE DOMAIN ints AS int[];
CREATE TYPE floatrange AS RANGE (subtype = float8);
CREATE TABLE t (
  id int, b bool, i2 smallint, i8 bigint, n numeric, n2 numeric(10,2), f4 real, f8 float8, m money,
  c char(5), v varchar(10), tx text, nm name, ch \"char\", by bytea, d date, t time, tz timetz, ts timestamp, tsz timestamptz,
  iv interval, u uuid, j json, jb jsonb, x xml, bi bit(3), vb varbit, ip inet, ci cidr, ma macaddr, ma8 macaddr8,
  pt point, ln line, sg lseg, bx box, pa path, po polygon, cr circle, tv tsvector, tq tsquery, lsn pg_lsn,
  ia int[], ta text[], r4 int4range, nr numrange, tr tstzrange, mr int4multirange, fr floatrange,
  mood \"Odd\".mood, moods \"Odd\".mood[], mail \"Odd\".\"Mail\", pair \"Odd\".pair, pairs \"Odd\".pair[], di ints, hs hstore, ct citext,
  o oid, rc regclass, jp jsonpath)";

const VALUES: &str = "(1, true, -32768, 9223372036854775807, 'NaN', 12345678.90, '1.17549435e-38', '-0', '$1,234.56',
  'ab', 'x'' y', E'tab\\tnl\\n\\\\', 'nm', 'z', '\\x00ff', 'infinity', '24:00', '12:00+05:30', '-infinity', '0044-03-15 12:00 BC',
  '-1 year 2 days -00:00:00.000001', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\":  1}', '{\"b\": [1.0]}', '<a>&amp;</a>', B'101', B'1',
  '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
  '(1e-300,2)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1))', '<(1,2),3>', '''a'':1A', 'a & !b', '16/B374D848',
  '[0:1]={1,NULL}', '{\"NULL\",NULL,\"a,b\",\"\\\"\"}', 'empty', '(,1.50]', '[2020-01-01 00:00+00,infinity)', '{[1,3),[7,9)}', '[1.5,)',
  'it''s ok', '{sad,\"it''s ok\"}', 'A@b', '(1,\"x,y\")', '{\"(,)\",NULL}', '{1,2}', '\"a\"=>NULL, b=>\"c\"', 'CiTeXt',
  4294967295, 'pg_catalog.pg_class', '$.\"a\"')";

/// The text of every column, as the source would send it.
async fn row_of(f: &Fixture, table: &str) -> Row {
    f.admin
        .sql(
            "SET search_path = ''; SET extra_float_digits = 3; SET DateStyle = ISO; SET IntervalStyle = postgres; \
             SET TimeZone = UTC; SET lc_monetary = 'C'; SET bytea_output = hex",
        )
        .await;
    let columns: Vec<String> = f
        .rows(&format!("SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"))
        .await;
    let mut cells = Vec::new();
    for column in columns {
        let value = f.admin.rows(&format!("SELECT {column} FROM {table} LIMIT 1")).await.remove(0).remove(0);
        cells.push(value.map_or(Cell::Null, |text| Cell::Text(Bytes::from(text))));
    }
    Row(cells)
}

#[tokio::test]
async fn every_type_goes_through_every_kind_of_statement() {
    let mut f = Fixture::new(&format!(
        "{SCHEMA}; CREATE TABLE origin AS SELECT * FROM t; INSERT INTO origin VALUES {VALUES}"
    ))
    .await;
    let names = f.rows("SELECT string_agg(attname || '*', ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0").await;
    let full = f.relation("t", &names[0]);
    let keyed = f.relation("t", &names[0].replace('*', "").replacen("id", "id*", 1));
    let new = row_of(&f, "public.origin").await;
    let with_id = |id: &str| {
        let mut row = new.clone();
        row.0[0] = Cell::Text(Bytes::copy_from_slice(id.as_bytes()));
        row
    };
    let put = |row: Row| Change::Insert { relation: full.clone(), new: row };
    let same = "SELECT count(*), count(*) FILTER (WHERE ROW(t.*)::text = (SELECT ROW(o.*)::text FROM public.origin o)) FROM public.t t";

    f.apply(vec![put(with_id("1"))]).await;
    assert_eq!(f.rows(same).await, ["1|1"]);
    let nulls = |id: &str| format!("{id}{}", "|NULL".repeat(new.0.len() - 1));
    f.apply(vec![
        Change::Delete { relation: full.clone(), old: OldRow::Full(with_id("1")) },
        insert(&full, &nulls("1")),
        Change::Update { relation: keyed.clone(), old: None, new: with_id("1") },
        insert(&full, &nulls("2")),
        Change::Update {
            relation: full.clone(),
            old: Some(OldRow::Full(crate::fixture::row(&nulls("2")))),
            new: with_id("1"),
        },
    ])
    .await;
    assert_eq!(f.rows(same).await, ["2|2"]);
    assert_eq!(f.rows("SELECT count(*) FROM relevo.error").await, ["0"]);
    f.apply((0..40).map(|_| put(with_id("1"))).collect()).await;
    assert_eq!(f.rows(same).await, ["42|42"]);
    let back =
        (0..42).map(|_| Change::Delete { relation: full.clone(), old: OldRow::Full(with_id("1")) }).collect();
    assert_eq!(f.apply(back).await.missing_rows, 0);
    assert_eq!(f.rows(same).await, ["0|0"]);
}

#[tokio::test]
async fn ten_megabytes_pass() {
    let mut f = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let t = f.relation("t", "id* v");
    let large = "ä".repeat(5 << 20);
    f.apply(vec![
        insert(&t, &format!("1|{large}")),
        insert(&t, "2|x"),
        crate::fixture::update(&t, &format!("2|{large}")),
    ])
    .await;
    f.apply(
        (10..30)
            .map(|id| insert(&t, &format!("{id}|{}", if id == 20 { large.as_str() } else { "s" })))
            .collect(),
    )
    .await;
    assert_eq!(f.rows("SELECT count(*), count(DISTINCT md5(v)) FROM t WHERE length(v) > 9").await, ["3|1"]);
}

#[tokio::test]
async fn a_database_without_encoding_takes_any_bytes() {
    let options = "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'";
    let mut f = Fixture::with_template("CREATE TABLE t (id int PRIMARY KEY, v text)", options).await;
    let t = f.relation("t", "id* v");
    let latin = |id: u8| {
        let id = Cell::Text(Bytes::from(id.to_string()));
        Change::Insert { relation: t.clone(), new: Row(vec![id, Cell::Text(Bytes::from_static(b"caf\xe9"))]) }
    };
    f.apply(vec![latin(1)]).await;
    f.apply((2..30).map(latin).collect()).await;
    assert_eq!(f.rows("SELECT count(*), encode(v::bytea, 'hex') FROM t GROUP BY 2").await, ["29|636166e9"]);
}
