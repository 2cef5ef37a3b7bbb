//! `relevo check`: a verdict a line, each fault with what mends it.

use std::fmt::Write as _;
use std::path::Path;

use relevo_catalog::{Finding, Severity, check_both, check_nodes, worst};
use relevo_model::Side;
use serde::Serialize;

use crate::args::CheckArgs;
use crate::error::{CliError, chain};
use crate::settings::File;
use crate::{connect, output};

#[derive(Serialize)]
struct Report<'a> {
    name: Option<String>,
    verdict: Severity,
    findings: &'a [Finding],
}

/// Examines both sides and prints what was found.
///
/// # Errors
/// [`CliError::Failed`] when something must be mended before a flow can work.
pub async fn run(args: &CheckArgs, file: &File) -> Result<(), CliError> {
    let settings = file.flow(&args.flow)?;
    let tables = file.tables(&args.tables)?;
    let mut findings = Vec::new();
    let mut name = None;
    let source = connect::session(&settings.source, Side::Source).await;
    let target = connect::session(&settings.target, Side::Target).await;
    for (side, error) in [(Side::Source, source.as_ref().err()), (Side::Target, target.as_ref().err())] {
        findings.push(match error {
            Some(error) => Finding::error("connect", side, chain(error)),
            None => Finding::ok("connect", side, "connected and logged in"),
        });
    }
    if let (Ok(source), Ok(target)) = (&source, &target) {
        let facts = (relevo_catalog::server(source).await, relevo_catalog::server(target).await);
        if let (Ok(source_facts), Ok(target_facts)) = &facts {
            let flow = connect::flow_name(settings.name.as_ref(), source_facts, target_facts);
            let (here, there) = ((&**source, source_facts), (&**target, target_facts));
            let by_root = tables.via_partition_root;
            findings.extend(check_both(here, there, &tables.selection, by_root, &flow).await);
            // Each of two nodes must be able to do what the other does now.
            if file.standing().is_some() {
                let nodes = check_nodes((source, source_facts), (target, target_facts), &findings).await;
                findings.extend(nodes);
            }
            findings
                .push(pg_dump(file.pg_dump(args.pg_dump.as_deref()).as_deref(), source_facts.major()).await);
            name = Some(flow.to_string());
        }
        let failed = [(Side::Source, facts.0.err()), (Side::Target, facts.1.err())];
        findings.extend(
            failed.into_iter().filter_map(|(side, error)| {
                error.map(|error| Finding::error("catalog", side, chain(&error)))
            }),
        );
    }
    let verdict = worst(&findings);
    if args.json {
        output::json(&Report { name, verdict, findings: &findings })?;
    } else {
        output::print(&text(&findings))?;
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors == 0 {
        Ok(())
    } else {
        Err(CliError::failed(format!("{errors} of the findings must be mended first")).of_kind("check"))
    }
}

/// The schema can be copied. An existing schema needs no pg_dump, so its lack is no error yet.
async fn pg_dump(given: Option<&Path>, source_major: i32) -> Finding {
    match relevo_snapshot::PgDump::find(given, source_major).await {
        Ok(_) => Finding::ok(
            "pg_dump",
            None,
            format!("there is a pg_dump that can read PostgreSQL {source_major}"),
        ),
        Err(error) => Finding::warning("pg_dump", None, chain(&error)).mend(format!(
            "install the client tools of PostgreSQL {source_major} or newer, or name a pg_dump with --pg-dump"
        )),
    }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let side = finding.side.map_or("both".to_owned(), |side| side.to_string());
        let subject = finding.subject.as_ref().map_or(String::new(), |subject| format!("{subject}: "));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<8} {side:<7} {:<24} {subject}{}",
            finding.severity.to_string(),
            finding.check,
            finding.message
        );
        if let Some(remedy) = finding.remedy.as_ref().filter(|_| finding.severity != Severity::Ok) {
            for line in remedy.lines() {
                let _ = writeln!(text, "{:17}→ {line}", "");
            }
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let _ = writeln!(
        text,
        "\n{} ok, {} notices, {} warnings, {} errors",
        count(Severity::Ok),
        count(Severity::Notice),
        count(Severity::Warning),
        count(Severity::Error)
    );
    text
}
