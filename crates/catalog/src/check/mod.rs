//! `relevo check`: whether a flow between two databases can work, and what to mend first.
//!
//! `facts` asks the servers, the other files give verdicts on what was read. Reading and judging stay apart, so
//! that every verdict is tested without a server.

mod both;
mod content;
mod facts;
mod nodes;
mod rights;
mod servers;
#[cfg(test)]
mod tests;

use std::error::Error;

use relevo_model::{FaultClass, FlowName, Side};
use tokio_postgres::Client;

use crate::{CatalogError, Finding, Selection, ServerFacts, TableInfo, compare, identities};
use facts::{SourceFacts, TargetFacts};

pub use nodes::check_nodes;

/// Examines both sides for the flow and says a verdict on every point, those that passed too. What cannot be
/// read becomes a finding of its own (`catalog`, or [`UNANSWERED`]), and the rest is examined all the same. What the
/// servers are ([`crate::server()`]) was asked by whoever found out for which flow to examine them.
///
/// Nothing is changed. To learn whether the output plugin may be used, a temporary slot is created and dropped
/// on the source when that can work; it waits for running transactions, at most 5 s. With `via_partition_root` the
/// target need not have the partitions that the source has.
pub async fn check_both(
    (source, source_server): (&Client, &ServerFacts),
    (target, target_server): (&Client, &ServerFacts),
    selection: &Selection,
    via_partition_root: bool,
    flow: &FlowName,
) -> Vec<Finding> {
    let mut findings = servers::versions(source_server, target_server);
    if source_server.major() < servers::OLDEST_MAJOR || target_server.major() < servers::OLDEST_MAJOR {
        // The catalogs of such a server may lack what the other questions ask for.
        return findings;
    }
    let source = match SourceFacts::read(source, source_server.clone(), selection, flow).await {
        Ok(facts) => facts,
        Err(error) => {
            findings.push(unreadable(Side::Source, &error));
            return findings;
        }
    };
    let needed = needed(&source.tables, via_partition_root);
    match TargetFacts::read(target, target_server.clone(), &needed, &source.access).await {
        Ok(target) => findings.extend(verdicts(&source, &target, &needed, selection)),
        Err(error) => {
            findings.extend(source_verdicts(&source, selection));
            findings.push(unreadable(Side::Target, &error));
        }
    }
    findings
}

/// The [`Finding::check`] of a side that was lost while it was asked. It says nothing about the side: whoever can wait
/// should ask again.
pub const UNANSWERED: &str = "unanswered";

/// The source's tables that the target needs as well, or for which it has another table's.
fn needed(tables: &[TableInfo], via_partition_root: bool) -> Vec<TableInfo> {
    tables.iter().filter(|table| !(via_partition_root && table.is_partition)).cloned().collect()
}

fn unreadable(side: Side, error: &CatalogError) -> Finding {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    let check = match error.class() {
        FaultClass::Transient => UNANSWERED,
        FaultClass::Blocked | FaultClass::Refused => "catalog",
    };
    Finding::error(check, side, message)
}

/// Every verdict except that on the versions. `needed` are those of the source's tables that the target must have.
fn verdicts(
    source: &SourceFacts,
    target: &TargetFacts,
    needed: &[TableInfo],
    selection: &Selection,
) -> Vec<Finding> {
    let mut findings = vec![servers::same_database(&source.server, &target.server)];
    findings.extend(source_verdicts(source, selection));
    findings.extend(servers::target(target));
    findings.extend(rights::target(target));
    findings.extend(both::clocks(&source.server, &target.server));
    findings.push(both::encodings(&source.server, &target.server));
    findings.push(both::collations(&source.server, &target.server));
    findings.extend(both::extensions(source, target));
    findings.push(both::roles(source, target));
    findings.push(both::tablespaces(source, target));
    if target.is_empty() && !needed.is_empty() {
        let count = needed.len();
        let message =
            format!("the target has none of the {count} tables yet: they will be created as on the source");
        findings.push(Finding::ok("tables_match", Side::Target, message));
        findings.extend(identities(needed));
    } else {
        findings.extend(compare(needed, &target.tables));
    }
    findings
}

fn source_verdicts(source: &SourceFacts, selection: &Selection) -> Vec<Finding> {
    let mut findings = servers::source(source);
    findings.extend(rights::source(source));
    findings.extend(content::source(source, selection));
    findings
}

/// Some names for people: the first ten, and how many more there are.
fn listed<T: ToString>(names: &[T]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = names.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

/// `1 table`, `2 tables`.
fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
