//! Verdicts on what the source holds that is not replicated, or not selected.

use relevo_model::Side;

use super::facts::SourceFacts;
use super::listed;
use crate::{Finding, Selection, TableName};

pub(super) fn source(facts: &SourceFacts, selection: &Selection) -> Vec<Finding> {
    let mut findings = vec![selected(facts)];
    for pattern in selection.unmatched(&facts.all_tables) {
        let message = "the pattern matches no table of the source";
        findings.push(Finding::warning("selection", Side::Source, message).about(pattern));
    }
    findings.extend(left_out(facts));
    findings.push(large_objects(facts.large_objects));
    findings
}

fn selected(facts: &SourceFacts) -> Finding {
    let (count, all) = (facts.tables.len(), facts.all_tables.len());
    let message = format!("{count} of {all} tables and {} sequences take part", facts.sequences.len());
    if count > 0 {
        Finding::ok("selection", Side::Source, message)
    } else if facts.all_tables.is_empty() {
        Finding::warning("selection", Side::Source, "the source has no table yet")
    } else {
        let message = format!("{message}: the patterns leave nothing to replicate");
        Finding::error("selection", Side::Source, message)
            .mend("let --include and --exclude choose some tables (relevo tables lists them)")
    }
}

fn left_out(facts: &SourceFacts) -> Vec<Finding> {
    let kinds = [
        ("unlogged_tables", "unlogged tables are not in the WAL and not replicated"),
        ("foreign_tables", "foreign tables have no rows of their own and are not replicated"),
        ("materialized_views", "materialized views are not replicated: refresh them on the target"),
    ];
    let mut findings = Vec::new();
    for (check, message) in kinds {
        let found: Vec<&TableName> =
            facts.left_out.iter().filter(|(kind, _)| kind == check).map(|(_, name)| name).collect();
        if found.is_empty() {
            findings.push(Finding::ok(check, Side::Source, "there are none"));
            continue;
        }
        let finding = Finding::notice(check, Side::Source, format!("{message}: {}", listed(&found)));
        findings.push(match check {
            "unlogged_tables" => {
                let logged = |name: &&TableName| format!("ALTER TABLE {} SET LOGGED;", name.quoted());
                finding.mend_by(found.iter().map(logged)).then("if they shall be replicated")
            }
            _ => finding,
        });
    }
    findings
}

fn large_objects(count: i64) -> Finding {
    const CHECK: &str = "large_objects";
    if count == 0 {
        return Finding::ok(CHECK, Side::Source, "there are none");
    }
    let plural = if count == 1 { "" } else { "s" };
    let message =
        format!("{count} large object{plural} of the database cannot be replicated and will be missing");
    Finding::warning(CHECK, Side::Source, message).mend(
        "keep their content in bytea columns; or copy them at the hand-over: lo_export on the source, lo_import with the \
         same OID on the target; if nobody needs them: SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    )
}
