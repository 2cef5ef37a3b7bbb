//! Verdicts on each server and its settings.

use relevo_model::Side;

use super::facts::{LONG_TRANSACTION_SECONDS, Slot, SlotTrial, SourceFacts, TargetFacts};
use crate::server::ManagedBy;
use crate::{Finding, ServerFacts, quote_identifier};

/// The oldest and the newest major version that Relevo is tested with.
pub(super) const OLDEST_MAJOR: i32 = 14;
const NEWEST_MAJOR: i32 = 18;

/// What takes settings up that need no restart.
const RELOAD: &str = "SELECT pg_reload_conf();";

pub(super) fn versions(source: &ServerFacts, target: &ServerFacts) -> Vec<Finding> {
    [(Side::Source, source), (Side::Target, target)].map(|(side, server)| version(side, server)).to_vec()
}

fn version(side: Side, server: &ServerFacts) -> Finding {
    const CHECK: &str = "version";
    let supported = format!("Relevo works with {OLDEST_MAJOR} to {NEWEST_MAJOR}");
    let message = format!("PostgreSQL {}", server.version);
    match server.major() {
        old if old < OLDEST_MAJOR => Finding::error(CHECK, side, format!("{message}: {supported}"))
            .mend(format!("upgrade the server to PostgreSQL {OLDEST_MAJOR} or later")),
        new if new > NEWEST_MAJOR => {
            Finding::warning(CHECK, side, format!("{message} is newer than what was tested: {supported}"))
        }
        _ => Finding::ok(CHECK, side, message),
    }
}

/// A flow from a database into itself would never come to an end.
pub(super) fn same_database(source: &ServerFacts, target: &ServerFacts) -> Finding {
    const CHECK: &str = "same_database";
    // A clone shares the system identifier, but is another process with another start.
    let same = source.system_id == target.system_id
        && source.database == target.database
        && source.started_unix_us == target.started_unix_us;
    if same {
        let message =
            format!("source and target are the same database {:?} on the same server", source.database);
        Finding::error(CHECK, None, message).mend("give the target the URL of another database")
    } else {
        Finding::ok(CHECK, None, "source and target are two databases")
    }
}

pub(super) fn source(facts: &SourceFacts) -> Vec<Finding> {
    let server = &facts.server;
    let slot = facts.slot.as_ref();
    let mut findings = vec![
        source_state(server),
        wal_level(Side::Source, server),
        replication_slots(Side::Source, server, slot.is_some()),
        wal_senders(Side::Source, server, slot.is_some_and(|slot| slot.active_pid.is_some())),
    ];
    findings.extend(slot.map(|slot| existing_slot(&facts.flow.slot(), slot, &server.database)));
    findings.extend(output_plugin(&facts.slot_trial));
    findings.push(slot_retention(server));
    findings.extend(long_transactions(facts));
    findings
}

fn source_state(server: &ServerFacts) -> Finding {
    if server.in_recovery {
        let message = "the source is in recovery (a physical standby): Relevo needs a primary, where it keeps its \
                       publication and its slot";
        Finding::error("in_recovery", Side::Source, message).mend("give the source the URL of the primary")
    } else if server.read_only {
        guarded(Side::Source)
    } else {
        Finding::ok("in_recovery", Side::Source, "the server is a primary and takes writes")
    }
}

/// A guard against other writers. As native replication does, Relevo writes all the same.
fn guarded(side: Side) -> Finding {
    let message = "sessions are read-only by default (default_transaction_read_only = on): applications may not write \
                   there; Relevo's own sessions do";
    Finding::notice("read_only", side, message)
}

pub(super) fn wal_level(side: Side, server: &ServerFacts) -> Finding {
    const CHECK: &str = "wal_level";
    let message = format!("wal_level is {}", server.wal_level);
    if server.wal_level == "logical" {
        return Finding::ok(CHECK, side, message);
    }
    let message = format!("{message}, but changes can only be decoded from logical");
    let finding = Finding::error(CHECK, side, message);
    let remedy = match server.managed_by {
        Some(ManagedBy::Rds) => "set rds.logical_replication = 1 in the parameter group, then reboot",
        Some(ManagedBy::CloudSql) => {
            "set the flag cloudsql.logical_decoding = on (AlloyDB: alloydb.logical_decoding)"
        }
        Some(ManagedBy::Azure) => "set the server parameter wal_level = LOGICAL, then restart",
        None => {
            return finding
                .mend_by(["ALTER SYSTEM SET wal_level = 'logical';"])
                .then("then restart the server");
        }
    };
    finding.mend(remedy)
}

pub(super) fn replication_slots(side: Side, server: &ServerFacts, have_one: bool) -> Finding {
    const CHECK: &str = "replication_slots";
    let (used, limit) = (server.used_replication_slots, server.max_replication_slots);
    let message = format!("{used} of {limit} replication slots are in use");
    if have_one || used < limit {
        return Finding::ok(CHECK, side, message);
    }
    Finding::error(CHECK, side, format!("{message}: none is left for this flow"))
        .mend_by([format!("ALTER SYSTEM SET max_replication_slots = {};", limit + 4)])
        .then("then restart the server; or drop a slot that nobody needs")
}

pub(super) fn wal_senders(side: Side, server: &ServerFacts, have_one: bool) -> Finding {
    const CHECK: &str = "wal_senders";
    let (used, limit) = (server.used_wal_senders, server.max_wal_senders);
    let message = format!("{used} of {limit} WAL senders are at work");
    if have_one || used < limit {
        return Finding::ok(CHECK, side, message);
    }
    Finding::error(CHECK, side, format!("{message}: none is left for this flow"))
        .mend_by([format!("ALTER SYSTEM SET max_wal_senders = {};", limit + 4)])
        .then("then restart the server")
}

fn existing_slot(name: &str, slot: &Slot, database: &str) -> Finding {
    const CHECK: &str = "slot";
    let refuse = |message: String, remedy: String| {
        Finding::error(CHECK, Side::Source, message).about(name).mend(remedy)
    };
    let plugin = slot.plugin.as_deref().unwrap_or("none (a physical slot)");
    let owner = slot.database.as_deref().unwrap_or("none");
    if plugin != "pgoutput" {
        return refuse(
            format!("the slot exists with the output plugin {plugin}, not pgoutput: it is somebody else's"),
            "name the flow otherwise (--name)".to_owned(),
        );
    }
    if owner != database {
        return refuse(
            format!("the slot exists, but in database {owner:?}, not in {database:?}: it is another flow's"),
            "name the flow otherwise (--name)".to_owned(),
        );
    }
    let lost = slot.wal_status.as_deref() == Some("lost");
    if lost || slot.invalidation.is_some() {
        let why = slot.invalidation.as_deref().unwrap_or("its WAL was removed");
        return refuse(
            format!("the slot is lost ({why}): changes are missing and the target must be copied again"),
            "relevo reset, then relevo run, which copies the tables anew".to_owned(),
        );
    }
    match (slot.wal_status.as_deref(), slot.active_pid) {
        (Some("unreserved"), _) => {
            let message =
                "the slot is about to be lost: the WAL that it needs may be removed at the next checkpoint";
            Finding::warning(CHECK, Side::Source, message)
                .about(name)
                .mend("let the flow catch up at once, or raise max_slot_wal_keep_size")
        }
        (_, Some(pid)) => {
            Finding::ok(CHECK, Side::Source, format!("the slot is used by process {pid}")).about(name)
        }
        (_, None) => Finding::ok(CHECK, Side::Source, "the slot is there and waits").about(name),
    }
}

fn output_plugin(trial: &SlotTrial) -> Option<Finding> {
    const CHECK: &str = "output_plugin";
    match trial {
        SlotTrial::NotTried => None,
        SlotTrial::Works => {
            Some(Finding::ok(CHECK, Side::Source, "a slot with pgoutput could be created (and was dropped)"))
        }
        SlotTrial::TimedOut => Some(
            Finding::warning(
                CHECK,
                Side::Source,
                "a slot could not be created within 5 s: the server waits for every transaction that writes, in any \
                 database",
            )
            .mend("let the running transactions end; see long_transactions"),
        ),
        SlotTrial::Refused(reason) => {
            let message = format!("a slot with the output plugin pgoutput cannot be created: {reason}");
            Some(
                Finding::error(CHECK, Side::Source, message)
                    .mend("install the server's own pgoutput library, or have the service allow it"),
            )
        }
    }
}

fn slot_retention(server: &ServerFacts) -> Finding {
    const CHECK: &str = "slot_retention";
    let idle = server.idle_slot_timeout_seconds;
    if idle > 0 {
        let message =
            format!("a slot is invalidated when Relevo is away for {idle} s (idle_replication_slot_timeout)");
        return Finding::warning(CHECK, Side::Source, message)
            .mend_by(["ALTER SYSTEM SET idle_replication_slot_timeout = 0;", RELOAD]);
    }
    match server.max_slot_wal_keep_mib {
        -1 => Finding::notice(
            CHECK,
            Side::Source,
            "a slot keeps all WAL that Relevo has not confirmed: while Relevo is away it can fill the disk \
             (max_slot_wal_keep_size is -1)",
        )
        .mend_by(["ALTER SYSTEM SET max_slot_wal_keep_size = '64GB';", RELOAD])
        .then("or what the disk has to spare: beyond it the slot is lost, and not the disk"),
        limit => Finding::ok(
            CHECK,
            Side::Source,
            format!("a slot keeps at most {limit} MiB of WAL (max_slot_wal_keep_size) and is lost beyond"),
        ),
    }
}

fn long_transactions(facts: &SourceFacts) -> Vec<Finding> {
    const CHECK: &str = "long_transactions";
    if facts.long_transactions.is_empty() {
        let role = quote_identifier(&facts.server.role);
        return vec![if facts.server.sees_activity {
            let message = format!("no transaction that writes is older than {LONG_TRANSACTION_SECONDS} s");
            Finding::ok(CHECK, Side::Source, message)
        } else {
            let message = "the role does not see other roles' transactions; an old one would delay the slot";
            Finding::notice(CHECK, Side::Source, message).mend_by([format!("GRANT pg_monitor TO {role};")])
        }];
    }
    let finding = |transaction: &super::facts::LongTransaction| {
        let message = format!(
            "has been open for {:.0} s in database {:?}: a slot is created only when it ends, and a slot that exists \
             keeps the WAL since it began",
            transaction.age_seconds, transaction.database
        );
        Finding::warning(CHECK, Side::Source, message).about(&transaction.holder).mend(&transaction.remedy)
    };
    facts.long_transactions.iter().map(finding).collect()
}

pub(super) fn target(facts: &TargetFacts) -> Vec<Finding> {
    let server = &facts.server;
    let mut findings = vec![target_state(server)];
    if !server.fsync {
        findings.push(
            Finding::warning(
                "durability",
                Side::Target,
                "fsync is off: after a crash of the machine the target may lack what was confirmed to the source",
            )
            .mend_by(["ALTER SYSTEM SET fsync = on;", RELOAD]),
        );
    } else if server.synchronous_commit == "off" {
        let message =
            "synchronous_commit is off: Relevo confirms a change only after its flush, a little later";
        findings.push(Finding::notice("durability", Side::Target, message));
    } else {
        findings.push(Finding::ok("durability", Side::Target, "commits are flushed to disk"));
    }
    findings
}

fn target_state(server: &ServerFacts) -> Finding {
    if server.in_recovery {
        let message = "the target is in recovery (a physical standby) and takes no writes";
        Finding::error("in_recovery", Side::Target, message)
            .mend("give the target the URL of a primary, or promote it: SELECT pg_promote();")
    } else if server.read_only {
        guarded(Side::Target)
    } else {
        Finding::ok("read_only", Side::Target, "the server takes writes")
    }
}
