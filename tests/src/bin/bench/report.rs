//! What is printed and written: the circumstances, a line for each run, the comparison, the bars, JSON and charts.

use relevo_tests::bench::machine::processors;
use relevo_tests::bench::{chart, files};
use serde_json::{Value, json};

use crate::bars::{self, Bar, Row, mebibytes};
use crate::latency::Latency;
use crate::settings::Settings;
use crate::ways::Run;
use crate::world::Servers;

/// The header over [`line()`]s.
pub const RUN_HEADER: &str = "version workload     round way       seconds  start       units/s   CPU s: tool walsender  \
                              backends  target  others   peak MiB  load before";

const ROW_HEADER: &str = "version workload    unit       native/s   relevo/s    drain/s   times native (median)  of limit  \
                          tool/walsender  target busy  peak MiB";

/// Settings that are printed with the result.
const SHOWN: &str = "
SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
 WHERE name IN ('shared_buffers', 'max_wal_size', 'fsync', 'full_page_writes', 'wal_level', 'autovacuum',
                'synchronous_commit', 'logical_decoding_work_mem', 'jit')";

/// What the figures depend on.
pub async fn circumstances(servers: &Servers) -> String {
    let shown: String = servers.target.connect("postgres").await.value(SHOWN).await;
    format!(
        "PostgreSQL {} on both sides, {} processors. Settings of both servers: {shown}.\n\
         fsync = off: it is processors that are measured. The subscription is as CREATE SUBSCRIPTION makes it.",
        servers.version.full(),
        processors(),
    )
}

#[expect(clippy::cast_precision_loss, reason = "a number for people")]
fn per_second(run: &Run) -> f64 {
    run.units as f64 / run.seconds
}

fn memory(run: &Run) -> String {
    run.peak_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.0}", mebibytes(bytes)))
}

/// One run.
pub fn line(run: &Run) -> String {
    let cpu = run.cpu;
    format!(
        "{:>7} {:<12} {:>5} {:<8} {:>8.3} {:>6.2} {:>10.0} {:>2} {:>13.2} {:>9.2} {:>9.2} {:>7.2} {:>7.2} {:>10} {:>12.2}",
        run.version.major(),
        run.workload,
        run.round,
        run.way.name(),
        run.seconds,
        run.start_seconds,
        per_second(run),
        "",
        cpu.tool,
        cpu.walsender,
        run.backend_seconds,
        cpu.target,
        cpu.others,
        memory(run),
        run.load_before
    )
}

fn row_line(row: &Row<'_>) -> String {
    let rate =
        |run: Option<&Run>| run.map_or_else(|| "-".to_owned(), |run| format!("{:.0}", per_second(run)));
    let ratio = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    format!(
        "{:>7} {:<12}{:<6} {:>12} {:>10} {:>10} {:>14} {:>8} {:>9} {:>15.2} {:>12.2} {:>9}",
        row.version.major(),
        row.workload,
        row.unit.name(),
        rate(row.native),
        rate(Some(row.relevo)),
        rate(row.drain),
        ratio(row.to_native()),
        ratio(row.median_ratio),
        ratio(row.to_limit()),
        row.tool_to_walsender(),
        row.target_busy(),
        memory(row.relevo)
    )
}

fn bar_line(bar: &Bar) -> String {
    let verdict = match (bar.holds(), bar.excuse) {
        (true, _) => "holds".to_owned(),
        (false, Some(excuse)) => format!("does not count: {excuse}"),
        (false, None) => "DOES NOT HOLD".to_owned(),
    };
    let sign = if bar.at_least { ">=" } else { "<=" };
    format!(
        "{:>7} {:<48} {:>8.2} {sign} {:>6.2}  {verdict}",
        bar.version.major(),
        bar.what,
        bar.value,
        bar.bar
    )
}

/// Prints the comparison and the bars, and writes JSON and charts.
pub fn finish(settings: &Settings, circumstances: &[String], runs: &[Run], latencies: &[Latency]) {
    let rows = bars::rows(settings, runs);
    let count = f64::from(u32::try_from(processors()).unwrap_or(1));
    let bars = bars::bars(settings, &rows, latencies, count);
    if !rows.is_empty() {
        println!("\nBy the quickest runs:\n{ROW_HEADER}");
        rows.iter().for_each(|row| println!("{}", row_line(row)));
    }
    println!("\nversion bar");
    bars.iter().for_each(|bar| println!("{}", bar_line(bar)));
    let result = json!({
        "command": settings.command(),
        "circumstances": circumstances,
        "processors": processors(),
        "runs": runs.iter().map(run_json).collect::<Vec<_>>(),
        "workloads": rows.iter().map(row_json).collect::<Vec<_>>(),
        "latencies": latencies.iter().map(latency_json).collect::<Vec<_>>(),
        "bars": bars.iter().map(bar_json).collect::<Vec<_>>(),
    });
    files::write("apply.json", &format!("{result:#}\n"));
    for version in &settings.versions {
        let of_version: Vec<&Row<'_>> = rows.iter().filter(|row| row.version == *version).collect();
        let compared: Vec<chart::Bar> = of_version.iter().filter_map(|row| bar_of(row)).collect();
        if !compared.is_empty() {
            let title = format!("Times as fast as a subscription (red line), PostgreSQL {}", version.full());
            let chart = chart::draw(&title, &compared, Some(1.0));
            files::write(&format!("apply-{}.svg", version.major()), &chart);
        }
    }
    println!(
        "\nWritten: apply.json, a chart for each version and Relevo's logs in {}",
        files::folder().display()
    );
}

fn bar_of(row: &Row<'_>) -> Option<chart::Bar> {
    let ratio = row.to_native()?;
    Some(chart::Bar {
        name: row.workload.to_owned(),
        length: ratio,
        strong: true,
        marks: Vec::new(),
        note: format!("{ratio:.2}"),
    })
}

fn run_json(run: &Run) -> Value {
    json!({ "version": run.version.major(), "workload": run.workload, "round": run.round, "way": run.way.name(),
            "unit": run.unit.name(), "units": run.units, "start_seconds": run.start_seconds, "seconds": run.seconds,
            "cpu_seconds": { "tool": run.cpu.tool, "walsender": run.cpu.walsender, "backends": run.backend_seconds,
                             "target": run.cpu.target, "others": run.cpu.others },
            "peak_bytes": run.peak_bytes, "load_before": run.load_before })
}

fn row_json(row: &Row<'_>) -> Value {
    json!({ "version": row.version.major(), "workload": row.workload, "unit": row.unit.name(),
            "native_per_second": row.native.map(per_second), "relevo_per_second": per_second(row.relevo),
            "drain_per_second": row.drain.map(per_second), "times_native": row.to_native(),
            "times_native_by_median": row.median_ratio, "of_limit": row.to_limit(),
            "tool_to_walsender": row.tool_to_walsender(), "target_busy": row.target_busy(),
            "peak_bytes": row.relevo.peak_bytes })
}

fn latency_json(latency: &Latency) -> Value {
    json!({ "version": latency.version.major(), "way": latency.way.name(), "rate": latency.rate,
            "reached": latency.reached, "p50_ms": latency.at(500) * 1e3, "p95_ms": latency.at(950) * 1e3,
            "p99_ms": latency.at(990) * 1e3, "most_ms": latency.at(1000) * 1e3 })
}

fn bar_json(bar: &Bar) -> Value {
    json!({ "version": bar.version.major(), "what": bar.what, "value": bar.value, "bar": bar.bar,
            "at_least": bar.at_least, "holds": bar.holds(), "excuse": bar.excuse })
}
