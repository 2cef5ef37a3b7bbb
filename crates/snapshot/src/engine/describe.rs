//! How a table is built at the moment of its copy: whether it is still the planned one, and in which format its rows are
//! to travel.

use relevo_catalog::TableName;
use relevo_connect::SqlSession;
use relevo_model::Side;

use crate::format::{Column, Described, Format, why_text};
use crate::plan::TableJob;
use crate::{SnapshotError, sql};

/// A table below this goes as text: asking whether it could go in binary would cost more than that wins.
const BINARY_BYTES: u64 = 1 << 20;

/// The table on the source as the snapshot shows it. The plan was made before: a column that came in between would be in
/// the stream, but not in the copied rows.
///
/// # Errors
/// [`SnapshotError::TableChanged`] when it is not the planned one.
pub(super) async fn described_as_planned(
    source: &SqlSession,
    job: &TableJob,
) -> Result<Described, SnapshotError> {
    let change = match described(source, Side::Source, &job.table).await? {
        None => "it is gone",
        Some(now) if !now.copied().eq(&job.columns) => "its columns are others",
        Some(now) if now.partitioned != job.partitioned => "its kind is another",
        Some(now) => return Ok(now),
    };
    Err(SnapshotError::TableChanged { table: job.table.to_string(), change: change.to_owned() })
}

/// In which format the table's rows are to travel. `here`: the source's table, which is locked in the open transaction;
/// the target's is from now on, so that what is found out holds until the rows are there.
pub(super) async fn format(
    here: &Described,
    target: &SqlSession,
    job: &TableJob,
) -> Result<Format, SnapshotError> {
    let name = &job.table;
    if job.estimated_bytes < BINARY_BYTES {
        return Ok(Format::Text);
    }
    let holding = SnapshotError::target_sql(format!("locking {name}"));
    target.prepare(&sql::hold_definition(name)).await.map_err(holding)?;
    let there = described(target, Side::Target, name).await?;
    // COPY says best what is wrong with a table that is not there.
    let Some(there) = there else { return Ok(Format::Text) };
    let reason = why_text(&job.columns, here, &there);
    tracing::debug!(table = %name, reason, binary = reason.is_none(), "copy: format of the rows");
    Ok(if reason.is_none() { Format::Binary } else { Format::Text })
}

async fn described(
    session: &SqlSession,
    side: Side,
    table: &TableName,
) -> Result<Option<Described>, SnapshotError> {
    let rows = session
        .query(sql::DESCRIPTION, &[&table.quoted()])
        .await
        .map_err(SnapshotError::sql(side, format!("reading the columns of {table}")))?;
    let Some(first) = rows.first() else { return Ok(None) };
    let (major, partitioned) = (first.get(0), first.get(1));
    let column = |row: &tokio_postgres::Row| {
        // A table without columns is a row without one.
        let name: Option<String> = row.get(2);
        name.map(|name| Column { name, type_oid: row.get(3), modifier: row.get(4), generated: row.get(5) })
    };
    Ok(Some(Described { major, partitioned, columns: rows.iter().filter_map(column).collect() }))
}
