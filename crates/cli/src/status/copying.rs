//! How far a copy is, from what whoever copies has noted on the target. The same document as that of `/api/status`; what
//! is noted is a few seconds old.

use relevo_state::{CopyPace, TableRecord, TableState as Recorded};
use relevo_telemetry::{CopyProgress, TableProgress, TableState};

use crate::output;

/// How many tables that are under way the text shows.
const SHOWN_TABLES: usize = 20;

fn unsigned(count: Option<i64>) -> Option<u64> {
    count.and_then(|count| u64::try_from(count).ok())
}

/// What is noted of each table.
pub fn each(tables: &[TableRecord]) -> Vec<TableProgress> {
    let table = |record: &TableRecord| TableProgress {
        name: format!("{}.{}", record.schema, record.name),
        state: match record.state {
            Recorded::Pending => TableState::Pending,
            Recorded::Copying => TableState::Copying,
            Recorded::Copied => TableState::Copied,
            Recorded::Streaming => TableState::Streaming,
        },
        rows: unsigned(record.copied_rows).unwrap_or(0),
        bytes: unsigned(record.copied_bytes).unwrap_or(0),
        total_bytes_estimate: unsigned(record.total_bytes),
    };
    tables.iter().map(table).collect()
}

/// What is noted of all.
pub fn progress(tables: &[TableRecord], pace: CopyPace) -> CopyProgress {
    let tables = each(tables);
    let lacks_rows = tables.iter().any(|table| table.state < TableState::Copied);
    CopyProgress {
        phase: if lacks_rows { "rows" } else { "indexes" }.to_owned(),
        rows: tables.iter().map(|table| table.rows).sum(),
        bytes: tables.iter().map(|table| table.bytes).sum(),
        total_bytes_estimate: tables.iter().map(|table| table.total_bytes_estimate).sum(),
        bytes_per_second: unsigned(pace.bytes_per_second),
        remaining_seconds: unsigned(pace.remaining_seconds),
        tables,
    }
}

/// The same, when a process copies or none: then nothing moves, and nobody knows how long it takes.
pub fn of_process(copy: CopyProgress, runs: bool) -> CopyProgress {
    match runs {
        true => copy,
        false => {
            CopyProgress { phase: String::new(), bytes_per_second: None, remaining_seconds: None, ..copy }
        }
    }
}

/// The same for people.
pub fn lines(copy: &CopyProgress) -> Vec<String> {
    let of_total = |bytes: u64, total: Option<u64>| match total {
        // A size on disk and a text: of the same order, no more.
        Some(total) => format!("{} (of about {})", output::bytes(bytes), output::bytes(total)),
        None => output::bytes(bytes),
    };
    let mut total = format!("{} rows, {}", copy.rows, of_total(copy.bytes, copy.total_bytes_estimate));
    if let Some(rate) = copy.bytes_per_second {
        total.push_str(&format!(", {}/s", output::bytes(rate)));
    }
    match copy.remaining_seconds {
        Some(0) => total.push_str("; all rows are there, indexes follow"),
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        Some(seconds) => total.push_str(&format!("; rows take another {}", output::seconds(seconds as f64))),
        None => {}
    }
    let under_way = copy.tables.iter().filter(|table| table.state == TableState::Copying);
    let table = |table: &TableProgress| {
        let size = of_total(table.bytes, table.total_bytes_estimate);
        format!("{}: {} rows, {size}", table.name, table.rows)
    };
    std::iter::once(total).chain(under_way.take(SHOWN_TABLES).map(table)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, state: Recorded, bytes: Option<i64>) -> TableRecord {
        TableRecord {
            schema: "public".to_owned(),
            name: name.to_owned(),
            state,
            insert_only: false,
            copied_lsn: None,
            copied_rows: bytes.map(|bytes| bytes / 1024),
            copied_bytes: bytes,
            total_bytes: Some(4 << 20),
            source_changes: None,
        }
    }

    #[test]
    fn people_see_the_sum_and_the_tables_under_way() {
        let tables = [
            record("a", Recorded::Streaming, Some(3 << 20)),
            record("b", Recorded::Copying, Some(1 << 20)),
            record("c", Recorded::Pending, None),
        ];
        let pace = CopyPace { bytes_per_second: Some(2 << 20), remaining_seconds: Some(75) };
        let copy = of_process(progress(&tables, pace), true);
        assert_eq!(
            lines(&copy),
            [
                "4096 rows, 4.0 MiB (of about 12.0 MiB), 2.0 MiB/s; rows take another 1 min 15 s",
                "public.b: 1024 rows, 1.0 MiB (of about 4.0 MiB)",
            ]
        );
        assert_eq!(copy.phase, "rows");
        let stopped = of_process(copy, false);
        assert_eq!(lines(&stopped)[0], "4096 rows, 4.0 MiB (of about 12.0 MiB)");
        let there = progress(&tables[..1], CopyPace { remaining_seconds: Some(0), ..CopyPace::default() });
        assert_eq!((there.phase.as_str(), lines(&there).len()), ("indexes", 1));
    }
}
