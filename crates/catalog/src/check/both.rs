//! Verdicts that need both sides: clocks, encodings, collations, and what one side has and the other lacks.

use relevo_model::Side;

use super::facts::{SourceFacts, TargetFacts};
use super::listed;
use crate::{Finding, ServerFacts, quote_identifier, quote_literal};

/// Clocks that differ by less are as good as equal.
const CLOCK_TOLERANCE_SECONDS: f64 = 1.0;

pub(super) fn clocks(source: &ServerFacts, target: &ServerFacts) -> Vec<Finding> {
    const CHECK: &str = "clock";
    const REMEDY: &str = "let every machine follow the same time servers (NTP)";
    let between = source.clock_offset_seconds - target.clock_offset_seconds;
    // The offset is measured over the network, so it is only known to half the round trip.
    let differs = |offset: f64, round_trip: f64| offset.abs() - round_trip / 2.0 > CLOCK_TOLERANCE_SECONDS;
    let direction = |offset: f64| if offset > 0.0 { "ahead of" } else { "behind" };
    let mut findings = Vec::new();
    for (side, server) in [(Side::Source, source), (Side::Target, target)] {
        let offset = server.clock_offset_seconds;
        if differs(offset, server.round_trip_seconds) {
            let message = format!(
                "the server's clock is {:.1} s {} this machine's: the lag in seconds is wrong by as much",
                offset.abs(),
                direction(offset)
            );
            findings.push(Finding::warning(CHECK, side, message).mend(REMEDY));
        }
    }
    if differs(between, source.round_trip_seconds + target.round_trip_seconds) {
        let message =
            format!("the source's clock is {:.1} s {} the target's", between.abs(), direction(between));
        findings.push(Finding::warning(CHECK, None, message).mend(REMEDY));
    }
    if findings.is_empty() {
        let message = format!("the clocks differ by {:.3} s", between.abs());
        findings.push(Finding::ok(CHECK, None, message));
    }
    findings
}

pub(super) fn encodings(source: &ServerFacts, target: &ServerFacts) -> Finding {
    const CHECK: &str = "encoding";
    let (from, to) = (source.encoding.as_str(), target.encoding.as_str());
    match (from, to) {
        _ if from == to => Finding::ok(CHECK, None, format!("both databases are in {from}")),
        ("SQL_ASCII", _) => Finding::warning(
            CHECK,
            None,
            format!("the source is in SQL_ASCII: bytes that are not valid {to} will stop the flow"),
        )
        .mend("create the target with ENCODING 'SQL_ASCII' TEMPLATE template0, or mend the values on the source"),
        (_, "UTF8") => Finding::ok(CHECK, None, format!("values are converted from {from} to UTF8")),
        (_, "SQL_ASCII") => Finding::warning(
            CHECK,
            None,
            format!("the target is in SQL_ASCII: it keeps the bytes of {from} without knowing what they mean"),
        )
        .mend(format!("create the target with ENCODING '{from}' TEMPLATE template0")),
        _ => Finding::warning(
            CHECK,
            None,
            format!("the source is in {from}, the target in {to}: a character that {to} lacks will stop the flow"),
        )
        .mend(format!("create the target with ENCODING '{from}' TEMPLATE template0")),
    }
}

pub(super) fn collations(source: &ServerFacts, target: &ServerFacts) -> Finding {
    let of = |server: &ServerFacts| {
        let mut text = format!("{}/{} by {}", server.collate, server.ctype, server.collation_provider);
        for detail in [&server.collation_locale, &server.collation_version].into_iter().flatten() {
            text = format!("{text} {detail}");
        }
        text
    };
    let (source, target) = (of(source), of(target));
    if source == target {
        return Finding::ok("collation", None, format!("both databases sort as {source}"));
    }
    let message = format!(
        "texts sort as {source} on the source and as {target} on the target: the rows are the same, their order in \
         queries and range partitions over texts may differ"
    );
    Finding::notice("collation", None, message)
}

pub(super) fn extensions(source: &SourceFacts, target: &TargetFacts) -> Vec<Finding> {
    const CHECK: &str = "extensions";
    let installed = &target.server.extensions;
    let mut findings = Vec::new();
    for extension in &source.server.extensions {
        let name = extension.name.as_str();
        if let Some(other) = installed.iter().find(|other| other.name == name) {
            if other.version != extension.version {
                let message =
                    format!("version {} on the source, {} on the target", extension.version, other.version);
                findings.push(Finding::notice(CHECK, None, message).about(name));
            }
            continue;
        }
        let create = format!(
            "CREATE EXTENSION {} SCHEMA {};",
            quote_identifier(name),
            quote_identifier(&extension.schema)
        );
        let available = target.server.available_extensions.get(name).copied();
        findings.push(missing_extension(CHECK, target, available, &create).about(name));
    }
    if findings.is_empty() {
        let message = format!("the target has all {} of them", source.server.extensions.len());
        findings.push(Finding::ok(CHECK, Side::Target, message));
    }
    findings
}

/// `available`: whether this role may create it, when the server has its files. Tables that exist already have
/// their types, so nothing more than a query or a function can miss the extension then.
fn missing_extension(
    check: &'static str,
    target: &TargetFacts,
    available: Option<bool>,
    create: &str,
) -> Finding {
    let needed = |message: String| {
        if target.is_empty() {
            Finding::error(check, Side::Target, message)
        } else {
            Finding::warning(check, Side::Target, message)
        }
    };
    let message = "is used on the source and not installed on the target";
    match available {
        None => needed(format!("{message}, nor available on its server"))
            .mend(format!("install the package that holds it on the target's server, then {create}")),
        Some(true) if target.is_empty() && target.server.create_on_database => {
            Finding::notice(check, Side::Target, "will be created on the target together with the tables")
        }
        Some(true) => needed(message.to_owned()).mend_by([create]),
        Some(false) => needed(format!("{message}, where only a superuser may create it"))
            .mend_by([create])
            .then("as superuser"),
    }
}

pub(super) fn roles(source: &SourceFacts, target: &TargetFacts) -> Finding {
    const CHECK: &str = "roles";
    let missing: Vec<&String> =
        source.roles_in_use.iter().filter(|role| !target.roles.contains(role)).collect();
    if missing.is_empty() {
        let message = format!("the target has all {} roles that the source uses", source.roles_in_use.len());
        return Finding::ok(CHECK, Side::Target, message);
    }
    let message = format!(
        "roles that own or may use something on the source are missing on the target: {}",
        listed(&missing)
    );
    let create: Vec<String> =
        missing.iter().map(|role| format!("CREATE ROLE {};", quote_identifier(role))).collect();
    Finding::warning(CHECK, Side::Target, message).mend_by(create)
}

pub(super) fn tablespaces(source: &SourceFacts, target: &TargetFacts) -> Finding {
    const CHECK: &str = "tablespaces";
    let missing: Vec<&(String, String)> =
        source.tablespaces_in_use.iter().filter(|(name, _)| !target.tablespaces.contains(name)).collect();
    if missing.is_empty() {
        return Finding::ok(CHECK, Side::Target, "the target has every tablespace that the source uses");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    let message = format!("tablespaces of the source are missing on the target: {}", listed(&names));
    let create: Vec<String> = missing
        .iter()
        .map(|(name, location)| {
            format!("CREATE TABLESPACE {} LOCATION {};", quote_identifier(name), quote_literal(location))
        })
        .collect();
    Finding::warning(CHECK, Side::Target, message)
        .mend_by(create)
        .then("the directory must be there, empty, and the server's")
}
