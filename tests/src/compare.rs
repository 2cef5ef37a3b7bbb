//! Whether two databases hold the same rows, byte by byte, in the text form that PostgreSQL gives them.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::pin::pin;

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use crate::database::Database;
use crate::pair::{DATABASE, Node};

/// The same on both sides, so that equal values look equal. (Not taken from the product: see the crate's rule.)
const SETTINGS: &str = "
SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';
SET extra_float_digits = 3; SET lc_monetary = 'C'; SET bytea_output = 'hex'; SET xmloption = 'content';
SET search_path = ''; SET statement_timeout = 0; SET row_security = off;
";

/// Ordinary tables with the columns that they have, in the order of the columns' names; a partitioned table as its
/// leaves or, by root, as one. Without temporary and unlogged tables, extensions' tables and Relevo's own.
const TABLES: &str = "
SELECT format('%I.%I', n.nspname, c.relname),
       CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END,
       (SELECT coalesce(string_agg(format('%I', a.attname), ', ' ORDER BY a.attname COLLATE \"C\"), '')
          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'relevo')
   AND CASE WHEN BY_ROOT THEN c.relkind IN ('r', 'p') AND NOT c.relispartition ELSE c.relkind = 'r' END
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1";

/// How many rows of each side a difference shows.
const ROWS_SHOWN: usize = 5;
/// How much of a row a difference shows, in characters.
const ROW_SHOWN_CHARS: usize = 300;

/// What is compared, and how.
#[derive(Debug, Default, Clone)]
pub struct Comparison {
    by_root: bool,
    except: Vec<String>,
}

/// What was compared and found equal.
#[derive(Debug, Default, Clone, Copy)]
pub struct Equal {
    /// Tables.
    pub tables: usize,
    /// Rows in all of them.
    pub rows: u64,
}

impl Comparison {
    /// Compares partitioned tables as wholes: the target may be partitioned differently.
    #[must_use]
    pub const fn by_root(mut self) -> Self {
        self.by_root = true;
        self
    }

    /// Leaves out a table, as `schema.table`, each quoted where SQL needs it.
    #[must_use]
    pub fn except(mut self, table: &str) -> Self {
        self.except.push(table.to_owned());
        self
    }

    /// Panics with what differs.
    pub async fn assert_equal(&self, source: &Node, target: &Node) -> Equal {
        match self.compare(source, target).await {
            Ok(equal) => equal,
            Err(difference) => panic!("source and target differ\n{difference}"),
        }
    }

    /// Compares the databases of two servers.
    ///
    /// # Errors
    /// What differs, for people.
    pub async fn compare(&self, source: &Node, target: &Node) -> Result<Equal, String> {
        let source = source.connect(DATABASE).await;
        let target = target.connect(DATABASE).await;
        self.compare_databases(&source, &target).await
    }

    /// Compares two databases: every table of the source, with the columns that it has there.
    ///
    /// # Errors
    /// What differs, for people.
    pub async fn compare_databases(&self, source: &Database, target: &Database) -> Result<Equal, String> {
        source.sql(SETTINGS).await;
        target.sql(SETTINGS).await;
        let mut equal = Equal::default();
        let mut differences = String::new();
        let by_root = if self.by_root { "true" } else { "false" };
        for row in source.rows(&TABLES.replace("BY_ROOT", by_root)).await {
            let [Some(table), Some(only), Some(columns)] = &row[..] else { panic!("{row:?}") };
            if self.except.contains(table) {
                continue;
            }
            let query = format!("COPY (SELECT {columns} FROM {only}{table}) TO STDOUT");
            let (here, there) = tokio::join!(digest(source, &query), digest(target, &query));
            match (here, there) {
                (Ok(here), Ok(there)) if here == there => {
                    equal.tables += 1;
                    equal.rows += here.rows;
                }
                (Ok(here), Ok(there)) => {
                    let counts = format!("{} rows on the source, {} on the target", here.rows, there.rows);
                    writeln!(differences, "{table}: {counts}; columns {columns}")
                        .expect("a String takes all");
                    differences += &rows_that_differ(source, target, &query).await;
                }
                (Err(error), _) => writeln!(differences, "{table}: source: {error}").expect("a String"),
                (_, Err(error)) => writeln!(differences, "{table}: target: {error}").expect("a String"),
            }
        }
        if differences.is_empty() { Ok(equal) } else { Err(differences) }
    }
}

/// A number for a set of rows that does not depend on their order: the sum of a hash of each.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Digest {
    rows: u64,
    sum: u128,
}

async fn digest(database: &Database, query: &str) -> Result<Digest, String> {
    let mut digest = Digest::default();
    let add = |row: Bytes| {
        let hash = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &row[..]).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        digest.rows += 1;
        digest.sum = digest.sum.wrapping_add((hash(0) << 64) | hash(1));
    };
    for_each_row(database, query, add).await?;
    Ok(digest)
}

/// The server sends each row of a COPY as a message of its own.
async fn for_each_row(database: &Database, query: &str, mut take: impl FnMut(Bytes)) -> Result<(), String> {
    let describe = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(said) => said.to_string(),
        None => format!("{error:?}"),
    };
    let mut rows = pin!(database.copy_out(query).await.map_err(describe)?);
    while let Some(row) = rows.try_next().await.map_err(describe)? {
        take(row);
    }
    Ok(())
}

async fn rows_that_differ(source: &Database, target: &Database, query: &str) -> String {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let read = tokio::join!(
        for_each_row(source, query, |row| here.push(row)),
        for_each_row(target, query, |row| there.push(row))
    );
    if let (Err(error), _) | (_, Err(error)) = read {
        return format!("  reading again: {error}\n");
    }
    here.sort_unstable();
    there.sort_unstable();
    let (only_here, only_there) = set_difference(&here, &there);
    let mut text = String::new();
    for (side, rows) in [("source", only_here), ("target", only_there)] {
        for row in rows.iter().take(ROWS_SHOWN) {
            let row: String = String::from_utf8_lossy(row).trim_end().chars().take(ROW_SHOWN_CHARS).collect();
            writeln!(text, "  only on the {side}: {row}").expect("a String takes all");
        }
        if rows.len() > ROWS_SHOWN {
            writeln!(text, "  … and {} more rows", rows.len() - ROWS_SHOWN).expect("a String takes all");
        }
    }
    text
}

/// What each of two sorted lists has that the other has not, counting duplicates.
fn set_difference<'a>(left: &'a [Bytes], right: &'a [Bytes]) -> (Vec<&'a Bytes>, Vec<&'a Bytes>) {
    let (mut only_left, mut only_right) = (Vec::new(), Vec::new());
    let (mut l, mut r) = (left.iter().peekable(), right.iter().peekable());
    loop {
        match (l.peek(), r.peek()) {
            (Some(a), Some(b)) if a == b => {
                l.next();
                r.next();
            }
            (Some(a), Some(b)) if a < b => only_left.extend(l.next()),
            (_, Some(_)) => only_right.extend(r.next()),
            (Some(_), None) => only_left.extend(l.next()),
            (None, None) => return (only_left, only_right),
        }
    }
}
