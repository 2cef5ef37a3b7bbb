//! Comparing one table under the two snapshots.
//!
//! First each side's server adds up checksums of the rows, in buckets by the hash of the key: one pass over the table, in
//! parts by the rows' places, which differ between the sides and do not matter. Only if buckets differ, their rows are
//! read, sorted by hashes: text is nowhere put in an order that a collation decides, so no collation can raise a false
//! alarm. Memory is bounded by the number of buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures_util::TryStreamExt as _;
use relevo_connect::SqlSession;
use relevo_model::Side;
use tokio_postgres::{Row, RowStream};

use crate::VerifyError;
use crate::merge::{Hashed, Merge};
use crate::pace::Pace;
use crate::report::TableReport;
use crate::shape::Shape;
use crate::sql::{self, OnSide};

/// About how many rows share a bucket: so many are read for one that differs.
const BUCKET_ROWS: i64 = 512;
const MOST_BUCKETS: u32 = 1 << 15;
/// How much of a table is read by one statement, in bytes.
const PART_BYTES: i64 = 64 << 20;

/// How a table is compared.
pub(crate) struct Comparison<'a> {
    pub(crate) shape: &'a Shape,
    /// The sides have other encodings.
    pub(crate) recode: bool,
    pub(crate) source: (&'a SqlSession, &'a Pace),
    pub(crate) target: (&'a SqlSession, &'a Pace),
    /// So many rows are listed, the others only counted.
    pub(crate) limit: usize,
}

/// Rows and their checksums.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sums {
    rows: u64,
    high: i128,
    low: i128,
}

impl Comparison<'_> {
    /// Compares the table. `None`: it was rewritten since the snapshot of a side, which does not show its rows any more.
    pub(crate) async fn run(&self) -> Result<Option<TableReport>, VerifyError> {
        let buckets = self.buckets();
        let (here, there) = tokio::join!(self.sums(Side::Source, buckets), self.sums(Side::Target, buckets));
        let (Some(here), Some(there)) = (here?, there?) else { return Ok(None) };
        let rows = |sums: &BTreeMap<i64, Sums>| sums.values().map(|sums| sums.rows).sum();
        let mut report = TableReport {
            insert_only: self.shape.insert_only,
            computes: self.shape.computed().next().is_some(),
            source_rows: rows(&here),
            target_rows: rows(&there),
            ..TableReport::new(self.shape.name.clone(), self.shape.key_names())
        };
        let all: BTreeSet<i64> = here.keys().chain(there.keys()).copied().collect();
        let differ: Vec<i64> =
            all.into_iter().filter(|bucket| here.get(bucket) != there.get(bucket)).collect();
        if !differ.is_empty() {
            self.rows(buckets, &differ, &mut report).await?;
        }
        Ok(Some(report))
    }

    fn on(&self, side: Side) -> (OnSide<'_>, &SqlSession, &Pace) {
        let (session, pace) = if side == Side::Source { self.source } else { self.target };
        (OnSide { shape: self.shape, side, recode: self.recode }, session, pace)
    }

    fn buckets(&self) -> u32 {
        let estimate = |table: &relevo_catalog::TableInfo| table.rows_estimate.max(table.bytes / 128);
        let rows = estimate(&self.shape.source).max(estimate(&self.shape.target)).max(1);
        let wanted = u32::try_from(rows / BUCKET_ROWS).unwrap_or(MOST_BUCKETS);
        wanted.clamp(1, MOST_BUCKETS).next_power_of_two()
    }

    async fn sums(&self, side: Side, buckets: u32) -> Result<Option<BTreeMap<i64, Sums>>, VerifyError> {
        let (on, session, pace) = self.on(side);
        let failed = || VerifyError::sql(side, format!("reading table {}", self.shape.name));
        let oid = on.table().oid;
        let mut sums: BTreeMap<i64, Sums> = BTreeMap::new();
        // Locks the table, so that it stays what it is until the end of the transaction.
        let look = format!("SELECT FROM {} LIMIT 0", crate::shape::only(on.table()));
        session.batch_execute(&look).await.map_err(failed())?;
        let same = session.query_one(sql::SAME_FILES, &[&oid]).await.map_err(failed())?;
        if !same.get::<_, bool>(0) {
            return Ok(None);
        }
        if !on.has_places() {
            add(&mut sums, &session.query(&on.sums(buckets, None), &[]).await.map_err(failed())?);
            pace.has_read(on.table().bytes.unsigned_abs()).await;
            return Ok(Some(sums));
        }
        let row = session.query_one(sql::BLOCKS, &[&oid]).await.map_err(failed())?;
        let (blocks, block_bytes): (i64, i64) = (row.get(0), row.get(1));
        let step = (PART_BYTES / block_bytes).max(1);
        let mut first = 0;
        loop {
            let last = first + step >= blocks;
            let end = (!last).then_some(first + step);
            let part = session.query(&on.sums(buckets, Some((first, end))), &[]).await.map_err(failed())?;
            add(&mut sums, &part);
            let read = step.min(blocks - first).max(0) * block_bytes;
            pace.has_read(read.unsigned_abs()).await;
            if last {
                return Ok(Some(sums));
            }
            first += step;
        }
    }

    /// Reads the rows of buckets that differ, and keeps the book.
    async fn rows(&self, buckets: u32, differ: &[i64], report: &mut TableReport) -> Result<(), VerifyError> {
        let columns: Vec<String> = self.shape.columns.iter().map(|column| column.name.clone()).collect();
        let mut merge = Merge { report, columns: &columns, limit: self.limit };
        let (here, there) = tokio::try_join!(
            self.stream(Side::Source, buckets, differ),
            self.stream(Side::Target, buckets, differ)
        )?;
        let (mut here, mut there) = (pin!(here), pin!(there));
        let failed = |side| VerifyError::sql(side, format!("reading table {}", self.shape.name));
        let mut next_here = here.try_next().await.map_err(failed(Side::Source))?.map(hashed);
        let mut next_there = there.try_next().await.map_err(failed(Side::Target))?.map(hashed);
        loop {
            let keys = [next_here.as_ref(), next_there.as_ref()];
            let Some(key) = keys.into_iter().flatten().map(|row| row.key_hash.clone()).min() else { break };
            let (mut source, mut target) = (Vec::new(), Vec::new());
            while let Some(row) = next_here.take_if(|row| row.key_hash == key) {
                source.push(row);
                next_here = here.try_next().await.map_err(failed(Side::Source))?.map(hashed);
            }
            while let Some(row) = next_there.take_if(|row| row.key_hash == key) {
                target.push(row);
                next_there = there.try_next().await.map_err(failed(Side::Target))?.map(hashed);
            }
            merge.group(source, target);
        }
        Ok(())
    }

    async fn stream(&self, side: Side, buckets: u32, differ: &[i64]) -> Result<RowStream, VerifyError> {
        let (on, session, pace) = self.on(side);
        pace.has_read(on.table().bytes.unsigned_abs()).await;
        let stream = session.query_raw(&on.rows(buckets), [differ]).await;
        stream.map_err(VerifyError::sql(side, format!("reading table {}", self.shape.name)))
    }
}

fn add(sums: &mut BTreeMap<i64, Sums>, rows: &[Row]) {
    let number = |row: &Row, index: usize| row.get::<_, &str>(index).parse::<i128>().unwrap_or(0);
    for row in rows {
        let sum = sums.entry(row.get(0)).or_default();
        sum.rows += row.get::<_, i64>(1).unsigned_abs();
        sum.high += number(row, 2);
        sum.low += number(row, 3);
    }
}

fn hashed(row: Row) -> Hashed {
    Hashed {
        key_hash: row.get(0),
        row_hash: row.get(1),
        count: row.get::<_, i64>(2).unsigned_abs(),
        key: row.get(3),
        columns: row.get(4),
    }
}
