//! Rewriting exactly the rows that differ, while the flow is held.
//!
//! The rows that a comparison has named are looked at again at another moment, at which the flow stays held: by a hold that
//! is renewed while this lives, and in the end by the lock of its progress, which the transaction that writes takes last of
//! all. It is kept only if nothing was applied meanwhile, and nobody applies until it has ended. What still differs gets the
//! source's values: surplus rows are deleted first, from the tables that refer to others, then rows are set and inserted,
//! beginning with the tables that are referred to. One transaction writes so many rows at most; what is left comes at
//! another moment. Nothing is ever truncated.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use relevo_catalog::{Selection, TableName};
use relevo_connect::SqlSession;
use relevo_model::{Side, SourceLsn};
use relevo_state::{self as state, Hold};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use tracing::info;

use crate::moment::HOLD_SECONDS;
use crate::order::parents_first;
use crate::report::{RowDifference, SkippedTable, TableReport};
use crate::shape::Shape;
use crate::sql::{self, OnSide};
use crate::text::Text;
use crate::verify::{compare_at, encodings_differ, plan};
use crate::{Ends, Moment, VerifyError, VerifyOptions, session, verify};

/// How many rows are read and written at a time.
const CHUNK_ROWS: usize = 200;
/// How many rows of a table one transaction mends at most.
const TRANSACTION_ROWS: usize = 5000;
/// How often both sides are compared and mended, at most: each time fewer rows differ.
const ROUNDS: usize = 1000;

/// What was done to a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairedTable {
    /// Rows that were inserted.
    pub inserted: u64,
    /// Rows that got other values.
    pub updated: u64,
    /// Rows that were deleted.
    pub deleted: u64,
}

impl RepairedTable {
    /// All rows that were touched.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The position of the last transaction that mended rows.
    pub lsn: Option<SourceLsn>,
    /// How long the flow stood still for it, all times together.
    pub pause: Duration,
    /// How many transactions it took.
    pub transactions: u64,
    /// The tables that were touched.
    pub tables: Vec<(TableName, RepairedTable)>,
    /// Those that could not be looked at.
    pub skipped: Vec<SkippedTable>,
    /// Rows that still differ, of tables that cannot be mended any further.
    pub left: u64,
}

/// Compares and mends until nothing differs.
///
/// # Errors
/// See [`VerifyError`]. What earlier transactions have mended stays mended.
pub async fn repair(ends: &Ends, options: &VerifyOptions) -> Result<Repaired, VerifyError> {
    let mut repaired = Repaired::default();
    let mut options = VerifyOptions { rows_listed: TRANSACTION_ROWS, sequences: None, ..options.clone() };
    let mut computing: Vec<TableName> = Vec::new();
    for _ in 0..ROUNDS {
        let found = verify(ends, &options).await?;
        repaired.pause += found.pause;
        if repaired.transactions == 0 {
            repaired.skipped = found.skipped;
        }
        let differing: Vec<TableReport> =
            found.tables.into_iter().filter(|table| table.differences() > 0).collect();
        repaired.left = differing.iter().map(TableReport::differences).sum();
        if differing.is_empty() {
            break;
        }
        computing.extend(differing.iter().filter(|table| table.computes).map(|table| table.table.clone()));
        let done = mend(ends, &options, &differing, &mut repaired).await?;
        let partly = differing.iter().filter(|table| table.differences() > table.rows.len() as u64);
        let again: Vec<TableName> = partly.map(|table| table.table.clone()).collect();
        if again.is_empty() {
            repaired.left = 0;
        }
        if again.is_empty() || !done {
            break;
        }
        options.selection = Selection::exactly(again);
    }
    if !computing.is_empty() && repaired.left == 0 {
        // What a side computes by itself may differ again, if it does not compute the same.
        options.selection = Selection::exactly(computing);
        let found = verify(ends, &options).await?;
        repaired.pause += found.pause;
        repaired.left = found.differences();
    }
    Ok(repaired)
}

/// Makes a target equal whose rows are of no position of the source, and to which nobody applies; the caller keeps appliers
/// out. Every row is compared with one snapshot of the source, and those that differ are rewritten until none does: from its
/// position the flow can go on. A table that cannot be compared or mended is an error.
///
/// # Errors
/// See [`VerifyError`]. The flow then says that it is at a position at which it is not: call this again.
pub async fn make_equal(ends: &Ends, options: &VerifyOptions) -> Result<Repaired, VerifyError> {
    let options = VerifyOptions { rows_listed: TRANSACTION_ROWS, sequences: None, ..options.clone() };
    let mut repaired = Repaired::default();
    let mut moment = Moment::reach_still(ends).await?;
    for _ in 0..ROUNDS {
        moment.stay().await?;
        moment.open_target().await?;
        let found = moment.keeping(compare_at(ends, &options, None, &moment)).await?;
        let out_of_reach =
            found.verification.skipped.first().map(|table| format!("{}: {}", table.table, table.reason));
        let rewritten = found.rewritten.first().map(|table| format!("{table} is rewritten just now"));
        if let Some(what) = out_of_reach.or(rewritten) {
            return Err(VerifyError::Disturbed { what });
        }
        let tables = found.verification.tables.into_iter();
        let differing: Vec<TableReport> = tables.filter(|table| table.differences() > 0).collect();
        if differing.is_empty() {
            repaired.lsn = Some(moment.lsn);
            state::release(&*moment.control, &ends.flow).await?;
            moment.end().await;
            return Ok(repaired);
        }
        moment.stay().await?;
        let target = session::writing(&ends.target, &ends.flow).await?;
        let done = moment.keeping(mend_at(ends, &options, &differing, &target, &moment)).await?;
        target.close().await;
        repaired.transactions += 1;
        add(&mut repaired.tables, done);
    }
    Err(VerifyError::Disturbed { what: "rows differ again and again".to_owned() })
}

/// Adds what one transaction has done.
fn add(tables: &mut Vec<(TableName, RepairedTable)>, done: Vec<(TableName, RepairedTable)>) {
    for (table, done) in done {
        match tables.iter_mut().find(|(name, _)| *name == table) {
            Some((_, known)) => {
                known.inserted += done.inserted;
                known.updated += done.updated;
                known.deleted += done.deleted;
            }
            None => tables.push((table, done)),
        }
    }
}

/// Mends rows in one transaction. Returns whether there was something to mend.
async fn mend(
    ends: &Ends,
    options: &VerifyOptions,
    differing: &[TableReport],
    repaired: &mut Repaired,
) -> Result<bool, VerifyError> {
    let target = session::writing(&ends.target, &ends.flow).await?;
    let moment = Moment::reach_and_stay(ends).await?;
    let done = moment.keeping(mend_at(ends, options, differing, &target, &moment)).await;
    if done.is_err() {
        // What went wrong is more than that this does, too: the session ends, and what it did with it.
        let _ = target.batch_execute("ROLLBACK").await;
    }
    let released = state::release(&*moment.control, &ends.flow).await;
    let done = done?;
    released?;
    repaired.pause += moment.stood();
    repaired.lsn = Some(moment.lsn);
    repaired.transactions += 1;
    moment.end().await;
    target.close().await;
    let rows: u64 = done.iter().map(|(_, done)| done.rows()).sum();
    add(&mut repaired.tables, done);
    info!(rows, "rows were mended");
    Ok(rows > 0)
}

async fn mend_at(
    ends: &Ends,
    options: &VerifyOptions,
    differing: &[TableReport],
    target: &SqlSession,
    moment: &Moment,
) -> Result<Vec<(TableName, RepairedTable)>, VerifyError> {
    let failed = |action: &'static str| VerifyError::sql(Side::Target, action);
    target.batch_execute(sql::BEGIN_WRITE).await.map_err(failed("beginning a transaction"))?;
    stays(state::held(&**target, &ends.flow).await?, moment)?;
    let names: Vec<TableName> = differing.iter().map(|table| table.table.clone()).collect();
    let source = moment.source();
    let planned = plan(ends, options, Some(&names), (source, target)).await?;
    let recode = encodings_differ(source, target).await?;
    let shapes = planned.shapes;
    let order = order(target, &shapes).await?;
    let mender = Mender { source, target, recode };
    let mut done = vec![RepairedTable::default(); shapes.len()];
    let rows_of =
        |shape: &Shape| differing.iter().find(|table| table.table == shape.name).map(|table| &table.rows[..]);
    for (deletes, tables) in [(true, order.iter().rev().collect::<Vec<_>>()), (false, order.iter().collect())]
    {
        for table in tables {
            let shape = &shapes[*table];
            for chunk in rows_of(shape).unwrap_or_default().chunks(CHUNK_ROWS) {
                mender.chunk(shape, chunk, deletes, &mut done[*table]).await?;
            }
        }
    }
    for (shape, done) in shapes.iter().zip(&done) {
        let rows = i64::try_from(done.rows()).unwrap_or(i64::MAX);
        let table = (shape.name.schema.as_str(), shape.name.name.as_str());
        state::save_mended(&**target, &ends.flow, table, rows).await?;
    }
    // Nothing was applied since, and nobody applies before this has ended.
    stays(state::lock_held(&**target, &ends.flow, HOLD_SECONDS).await?, moment)?;
    target.batch_execute("COMMIT").await.map_err(failed("committing"))?;
    Ok(shapes.into_iter().map(|shape| shape.name).zip(done).collect())
}

/// The target stands where it was compared.
fn stays(held: Option<Hold>, moment: &Moment) -> Result<(), VerifyError> {
    match held.is_some_and(|hold| hold.at == moment.lsn && hold.is_reached()) {
        true => Ok(()),
        false => Err(VerifyError::Disturbed { what: format!("the flow did not stay at {}", moment.lsn) }),
    }
}

/// The tables, those first that others refer to.
async fn order(target: &SqlSession, shapes: &[Shape]) -> Result<Vec<usize>, VerifyError> {
    let oids: Vec<u32> = shapes.iter().map(|shape| shape.target.oid).collect();
    let rows = target.query(sql::REFERENCES, &[&oids]).await;
    let rows = rows.map_err(VerifyError::sql(Side::Target, "reading the foreign keys"))?;
    let place = |oid: u32| oids.iter().position(|known| *known == oid);
    let references = rows.iter().filter_map(|row| Some((place(row.get(0))?, place(row.get(1))?)));
    Ok(parents_first(shapes.len(), &references.collect::<Vec<_>>()))
}

/// A row with its values.
struct Values {
    hash: String,
    texts: Vec<Option<String>>,
    /// On the target: where it is.
    place: Option<(u32, String)>,
}

impl Values {
    fn of(row: Row) -> Self {
        let place = row.get::<_, Option<u32>>(2).zip(row.get(3));
        Self { hash: row.get(0), texts: row.get(1), place }
    }
}

/// Both sides at the moment, of which the target is written.
struct Mender<'a> {
    source: &'a SqlSession,
    target: &'a SqlSession,
    recode: bool,
}

impl Mender<'_> {
    /// Mends rows of a table: deletes what is too much, or brings the rest.
    async fn chunk(
        &self,
        shape: &Shape,
        rows: &[RowDifference],
        deletes: bool,
        done: &mut RepairedTable,
    ) -> Result<(), VerifyError> {
        let (here, there) =
            tokio::try_join!(self.read(Side::Source, shape, rows), self.read(Side::Target, shape, rows))?;
        let on = OnSide { shape, side: Side::Target, recode: self.recode };
        let mut there = by_hash(there);
        let mut pairs = Vec::new();
        let mut missing = Vec::new();
        for row in here {
            match there.get_mut(&row.hash).and_then(Vec::pop) {
                Some(have) => pairs.push((row, have)),
                None => missing.push(row),
            }
        }
        let surplus: Vec<Values> = there.into_values().flatten().collect();
        if deletes {
            return self.delete(&on, &surplus, done).await;
        }
        for (want, have) in &pairs {
            self.update(&on, want, have, done).await?;
        }
        self.insert(&on, &missing, done).await
    }

    /// The rows, as the side has them now.
    async fn read(
        &self,
        side: Side,
        shape: &Shape,
        rows: &[RowDifference],
    ) -> Result<Vec<Values>, VerifyError> {
        let on = OnSide { shape, side, recode: self.recode };
        // A key that one side has twice was named twice.
        let mut named = HashSet::new();
        let rows: Vec<&RowDifference> = rows.iter().filter(|row| named.insert(&row.hash)).collect();
        let arrays: Vec<Vec<Option<&str>>> = if shape.is_keyed() {
            let column =
                |place| rows.iter().map(|row| row.key.get(place).and_then(Option::as_deref)).collect();
            (0..shape.key.len()).map(column).collect()
        } else {
            vec![rows.iter().map(|row| Some(row.hash.as_str())).collect()]
        };
        let parameters: Vec<&(dyn ToSql + Sync)> =
            arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
        let session = if side == Side::Source { self.source } else { self.target };
        let rows = session.query(&on.values(), &parameters).await;
        let rows = rows.map_err(VerifyError::sql(side, format!("reading rows of {}", shape.name)))?;
        Ok(rows.into_iter().map(Values::of).collect())
    }

    async fn delete(
        &self,
        on: &OnSide<'_>,
        rows: &[Values],
        done: &mut RepairedTable,
    ) -> Result<(), VerifyError> {
        let sql = on.delete();
        let deleted = self.each(on, &sql, "deleting", rows, async |statement, row| {
            let Some((table, place)) = &row.place else { return Ok(0) };
            let parameters: [&(dyn ToSql + Sync); 2] = [&Text(Some(place)), table];
            self.target.execute(statement, &parameters).await
        });
        done.deleted += deleted.await?;
        Ok(())
    }

    async fn insert(
        &self,
        on: &OnSide<'_>,
        rows: &[Values],
        done: &mut RepairedTable,
    ) -> Result<(), VerifyError> {
        let written: Vec<usize> = on.shape.written().collect();
        let sql = on.insert();
        let inserted = self.each(on, &sql, "inserting", rows, async |statement, row| {
            let texts: Vec<Text<'_>> =
                written.iter().map(|place| Text(row.texts[*place].as_deref())).collect();
            self.target.execute_raw(statement, texts.iter()).await
        });
        done.inserted += inserted.await?;
        Ok(())
    }

    /// Runs a statement for each of the rows, all in one round trip, and says how many it has touched: each must have been
    /// there.
    async fn each(
        &self,
        on: &OnSide<'_>,
        sql: &str,
        action: &str,
        rows: &[Values],
        one: impl AsyncFn(&Statement, &Values) -> Result<u64, tokio_postgres::Error>,
    ) -> Result<u64, VerifyError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let statement = self.prepare(sql, on).await?;
        let counts = try_join_all(rows.iter().map(|row| one(&statement, row))).await;
        self.settle(counts, rows.len(), action, on)
    }

    /// Gives a row the source's values, where they differ. What the target computes by itself is computed anew, by setting
    /// what it is computed from.
    async fn update(
        &self,
        on: &OnSide<'_>,
        want: &Values,
        have: &Values,
        done: &mut RepairedTable,
    ) -> Result<(), VerifyError> {
        let differs = |place: &usize| want.texts[*place] != have.texts[*place];
        let fixed = |place: &usize| on.shape.is_always_identity(*place);
        let mut places: Vec<usize> = on.shape.written().filter(differs).collect();
        let computed = on.shape.computed().any(|place| differs(&place));
        if computed && places.is_empty() {
            places = on.shape.written().filter(|place| !fixed(place)).collect();
        }
        let Some((table, place)) = have.place.as_ref().filter(|_| computed || !places.is_empty()) else {
            return Ok(());
        };
        if places.is_empty() || places.iter().any(fixed) {
            let mut both = RepairedTable::default();
            self.delete(on, std::slice::from_ref(have), &mut both).await?;
            self.insert(on, std::slice::from_ref(want), &mut both).await?;
            done.updated += 1;
            return Ok(());
        }
        let update = self.prepare(&on.update(&places), on).await?;
        let texts: Vec<Text<'_>> = places.iter().map(|place| Text(want.texts[*place].as_deref())).collect();
        let place = Text(Some(place));
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&place, table];
        parameters.extend(texts.iter().map(|text| text as &(dyn ToSql + Sync)));
        let updated = self.target.execute(&update, &parameters).await;
        done.updated += self.settle(updated.map(|count| vec![count]), 1, "updating", on)?;
        Ok(())
    }

    async fn prepare(&self, sql: &str, on: &OnSide<'_>) -> Result<Statement, VerifyError> {
        let prepared = self.target.prepare(sql).await;
        prepared.map_err(VerifyError::sql(Side::Target, format!("preparing to mend {}", on.shape.name)))
    }

    /// Every row must have been there.
    fn settle(
        &self,
        counts: Result<Vec<u64>, tokio_postgres::Error>,
        expected: usize,
        action: &str,
        on: &OnSide<'_>,
    ) -> Result<u64, VerifyError> {
        let table = &on.shape.name;
        let counts = counts.map_err(VerifyError::sql(Side::Target, format!("{action} rows of {table}")))?;
        let count: u64 = counts.iter().sum();
        if count != expected as u64 {
            let what =
                format!("{action} {expected} rows of {table} touched {count}: somebody else writes there");
            return Err(VerifyError::Disturbed { what });
        }
        Ok(count)
    }
}

fn by_hash(rows: Vec<Values>) -> HashMap<String, Vec<Values>> {
    let mut known: HashMap<String, Vec<Values>> = HashMap::new();
    for row in rows {
        known.entry(row.hash.clone()).or_default().push(row);
    }
    known
}
