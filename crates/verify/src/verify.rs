//! Comparing the tables of a flow: which, by how many sessions, and what is written down.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;
use relevo_catalog::{Selection, TableInfo, TableName};
use relevo_connect::SqlSession;
use relevo_model::Side;
use relevo_state::{self as state, TableState, VerifiedTable};
use tracing::{info, warn};

use crate::compare::Comparison;
use crate::pace::Pace;
use crate::report::{SkippedTable, TableReport, Verification};
use crate::shape::Shape;
use crate::{Ends, Moment, VerifyError, sequences, session, sql};

/// How often tables that are rewritten meanwhile are looked at again, each time at another moment.
const ROUNDS: usize = 3;

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Which of the flow's tables.
    pub selection: Selection,
    /// How many tables at the same time; each takes a session on either side.
    pub jobs: NonZeroUsize,
    /// How many bytes of a side are read in a second, at most.
    pub bytes_per_second: Option<u64>,
    /// Which sequences are compared too: those that it selects by their tables, and those without a table by their names.
    pub sequences: Option<Selection>,
    /// So many rows of a table are listed, the others only counted.
    pub rows_listed: usize,
}

/// Compares the tables at one position, and writes down on the target what was found.
///
/// # Errors
/// See [`VerifyError`].
pub async fn verify(ends: &Ends, options: &VerifyOptions) -> Result<Verification, VerifyError> {
    let before = match &options.sequences {
        Some(selection) => sequences::before(ends, selection).await?,
        None => None,
    };
    let mut found = round(ends, options, None).await?;
    for _ in 1..ROUNDS {
        let again: Vec<TableName> = std::mem::take(&mut found.rewritten);
        if again.is_empty() {
            break;
        }
        info!(tables = again.len(), "tables were rewritten meanwhile; they are compared at another moment");
        let next = round(ends, options, Some(&again)).await?;
        found.verification.tables.extend(next.verification.tables);
        found.verification.pause += next.verification.pause;
        found.rewritten = next.rewritten;
    }
    let mut verification = found.verification;
    let rewritten = found.rewritten.into_iter().map(|table| SkippedTable {
        table,
        reason: "it is rewritten all the time (TRUNCATE, VACUUM FULL, ALTER TABLE)".to_owned(),
    });
    verification.skipped.extend(rewritten);
    verification.tables.sort_by(|one, other| one.table.cmp(&other.table));
    if let Some(before) = before {
        verification.sequences = sequences::compare(ends, &before).await?;
    }
    Ok(verification)
}

/// What was found at a moment.
pub(crate) struct Round {
    pub(crate) verification: Verification,
    /// Tables whose rows the snapshots do not show any more.
    pub(crate) rewritten: Vec<TableName>,
}

async fn round(
    ends: &Ends,
    options: &VerifyOptions,
    only: Option<&[TableName]>,
) -> Result<Round, VerifyError> {
    let moment = Moment::reach(ends).await?;
    let round = compare_at(ends, options, only, &moment).await?;
    moment.end().await;
    Ok(round)
}

/// Compares under the snapshots of a moment.
pub(crate) async fn compare_at(
    ends: &Ends,
    options: &VerifyOptions,
    only: Option<&[TableName]>,
    moment: &Moment,
) -> Result<Round, VerifyError> {
    let source = session::reading(&ends.source, Side::Source, &ends.flow).await?;
    let target = session::reading(&ends.target, Side::Target, &ends.flow).await?;
    moment.begin(&target, Side::Target).await?;
    let Plan { shapes, skipped } = plan(ends, options, only, (&source, &target)).await?;
    let recode = encodings_differ(&source, &target).await?;
    source.close().await;
    target.close().await;
    let work = Work {
        ends,
        moment,
        recode,
        limit: options.rows_listed,
        paces: (Pace::new(options.bytes_per_second), Pace::new(options.bytes_per_second)),
        left: Mutex::new(shapes.iter().collect()),
        done: Mutex::default(),
        rewritten: Mutex::default(),
    };
    let jobs = options.jobs.get().min(shapes.len().max(1));
    try_join_all((0..jobs).map(|_| work.run())).await?;
    let tables = work.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rewritten = work.rewritten.into_inner().unwrap_or_else(PoisonError::into_inner);
    for table in &tables {
        save(ends, moment, table).await?;
    }
    let (lsn, pause) = (moment.lsn, moment.pause);
    Ok(Round { verification: Verification { lsn, pause, tables, skipped, sequences: Vec::new() }, rewritten })
}

async fn save(ends: &Ends, moment: &Moment, table: &TableReport) -> Result<(), VerifyError> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let verified = VerifiedTable {
        schema: table.table.schema.clone(),
        name: table.table.name.clone(),
        lsn: moment.lsn,
        rows: count(table.source_rows),
        differences: count(table.differences()),
    };
    Ok(state::save_verification(&*moment.control, &ends.flow, &verified).await?)
}

/// The tables that can be compared, and those that cannot.
pub(crate) struct Plan {
    pub(crate) shapes: Vec<Shape>,
    pub(crate) skipped: Vec<SkippedTable>,
}

/// What is to be compared. `target` sees the target as it is at the moment.
pub(crate) async fn plan(
    ends: &Ends,
    options: &VerifyOptions,
    only: Option<&[TableName]>,
    (source, target): (&SqlSession, &SqlSession),
) -> Result<Plan, VerifyError> {
    let records = state::tables(&**target, &ends.flow).await?;
    let (mut names, mut insert_only, mut skipped) = (Vec::new(), BTreeMap::new(), Vec::new());
    for record in records {
        let table = TableName::new(&record.schema, &record.name);
        let wanted = options.selection.matches(&table) && only.is_none_or(|only| only.contains(&table));
        if !wanted {
            continue;
        }
        if record.state == TableState::Streaming {
            insert_only.insert(table.clone(), record.insert_only);
            names.push(table);
        } else {
            let reason = format!("it is still {}: it does not follow the stream yet", record.state.as_str());
            skipped.push(SkippedTable { table, reason });
        }
    }
    let catalog = |side| move |source| VerifyError::Catalog { side, source };
    let here = relevo_catalog::tables(source, &names).await.map_err(catalog(Side::Source))?;
    let there = relevo_catalog::tables(target, &names).await.map_err(catalog(Side::Target))?;
    let by_name = |tables: Vec<TableInfo>| -> BTreeMap<TableName, TableInfo> {
        tables.into_iter().map(|table| (table.name.clone(), table)).collect()
    };
    let (mut here, mut there) = (by_name(here), by_name(there));
    let mut shapes = Vec::new();
    for table in names {
        let shape = match (here.remove(&table), there.remove(&table)) {
            (Some(here), Some(there)) => {
                Shape::new(here, there, insert_only.get(&table).copied().unwrap_or_default())
            }
            (None, _) => Err("the source has no such table".to_owned()),
            (_, None) => Err("the target has no such table".to_owned()),
        };
        match shape {
            Ok(shape) => shapes.push(shape),
            Err(reason) => skipped.push(SkippedTable { table, reason }),
        }
    }
    // What takes longest comes first.
    shapes.sort_by_key(|shape| std::cmp::Reverse(shape.source.bytes.max(shape.target.bytes)));
    Ok(Plan { shapes, skipped })
}

pub(crate) async fn encodings_differ(source: &SqlSession, target: &SqlSession) -> Result<bool, VerifyError> {
    let mut encodings = Vec::new();
    for (session, side) in [(source, Side::Source), (target, Side::Target)] {
        let row = session.query_one(sql::ENCODING, &[]).await;
        let row = row.map_err(VerifyError::sql(side, "reading the encoding"))?;
        encodings.push(row.get::<_, String>(0));
    }
    Ok(encodings[0] != encodings[1])
}

/// What the sessions share.
struct Work<'a> {
    ends: &'a Ends,
    moment: &'a Moment,
    recode: bool,
    limit: usize,
    paces: (Pace, Pace),
    left: Mutex<VecDeque<&'a Shape>>,
    done: Mutex<Vec<TableReport>>,
    rewritten: Mutex<Vec<TableName>>,
}

impl Work<'_> {
    /// Compares one table after the other.
    async fn run(&self) -> Result<(), VerifyError> {
        let (ends, moment) = (self.ends, self.moment);
        let source = session::reading(&ends.source, Side::Source, &ends.flow).await?;
        let target = session::reading(&ends.target, Side::Target, &ends.flow).await?;
        loop {
            let next = lock(&self.left).pop_front();
            let Some(shape) = next else { break };
            moment.begin(&source, Side::Source).await?;
            moment.begin(&target, Side::Target).await?;
            let comparison = Comparison {
                shape,
                recode: self.recode,
                source: (&source, &self.paces.0),
                target: (&target, &self.paces.1),
                limit: self.limit,
            };
            let report = comparison.run().await?;
            for (session, side) in [(&source, Side::Source), (&target, Side::Target)] {
                session.batch_execute("COMMIT").await.map_err(VerifyError::sql(side, "ending a look"))?;
            }
            match report {
                None => lock(&self.rewritten).push(shape.name.clone()),
                Some(report) => {
                    if report.differences() > 0 {
                        warn!(table = %shape.name, differences = report.differences(), "both sides differ");
                    }
                    lock(&self.done).push(report);
                }
            }
        }
        source.close().await;
        target.close().await;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
