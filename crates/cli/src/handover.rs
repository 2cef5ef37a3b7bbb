//! `relevo init`, `switchover`, `failover`, `rejoin` and `history`: what was found, what will be done, what was done, and what
//! to do next.

mod history;

use std::fmt::Write as _;
use std::time::Duration;

use relevo_handover::plan::{failover, rejoin, switchover};
use relevo_handover::{
    Claims, Cluster, Done, HandoverError, Hooks, Observed, Plan, Refusal, Sight, Step, Work,
    init as init_nodes, observe, observe_alone,
};
use serde::Serialize;

use crate::args::{FailoverArgs, HandoverArgs, InitArgs, RejoinArgs, SwitchoverArgs};
use crate::error::{CliError, chain};
use crate::output;
use crate::settings::{File, HandoverSettings};

pub use history::run as history;

/// The document of the commands that move the role.
#[derive(Debug, Serialize)]
struct Document {
    kind: &'static str,
    from: Option<String>,
    to: String,
    epoch: u64,
    dry_run: bool,
    rolls_back: bool,
    resumed: bool,
    nodes: Vec<NodeDocument>,
    steps: Vec<StepDocument>,
    notes: Vec<String>,
    pause_ms: Option<u64>,
    applied_lsn: Option<String>,
    last_commit_time: Option<String>,
    salvage: Option<SalvageDocument>,
    left_behind: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeDocument {
    name: String,
    reachable: bool,
    error: Option<String>,
    epoch: Option<u64>,
    primary: Option<String>,
    fenced: Option<bool>,
    applied_lsn: Option<String>,
    wal_lsn: Option<String>,
}

#[derive(Debug, Serialize)]
struct StepDocument {
    step: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct SalvageDocument {
    file: String,
    transactions: u64,
    rows: u64,
}

fn from_handover(error: &HandoverError) -> CliError {
    let ended = match error {
        HandoverError::Refused(_)
        | HandoverError::Overtaken { .. }
        | HandoverError::UnderWay { .. }
        | HandoverError::PrimaryLives { .. } => CliError::refused(chain(error)),
        _ => CliError::failed(chain(error)),
    };
    ended.of_kind(error.kind())
}

/// Who asks, for the history.
fn requested_by() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => user,
        host => format!("{user}@{host}"),
    }
}

/// `relevo init`.
///
/// # Errors
/// [`CliError::Refused`]: the nodes know another primary; [`CliError::Failed`]: with `--once`, a node does not answer.
pub async fn init(args: &InitArgs, file: &File) -> Result<(), CliError> {
    let cluster = file.cluster()?;
    if !cluster.nodes.contains_key(&args.primary) {
        return Err(file.no_such_node(&args.primary));
    }
    if args.once
        && let Some((primary, epoch)) = known_primary(&observe(&cluster).await)?
    {
        let line = format!("nothing to do: {primary} is the primary since epoch {epoch}");
        if args.json {
            return output::json(&serde_json::json!({ "primary": primary, "nodes": [line] }));
        }
        return output::print(&format!("{line}\n"));
    }
    let lines = init_nodes(&cluster, &args.primary, &requested_by()).await.map_err(|e| from_handover(&e))?;
    if args.json {
        return output::json(&serde_json::json!({ "primary": args.primary, "nodes": lines }));
    }
    output::print(&format!("{}\n", lines.join("\n")))
}

/// Who is the primary by the highest epoch that any node knows, and that epoch; `None` when no node was ever initialised.
///
/// # Errors
/// [`CliError::Failed`]: a node does not answer. It might be the one that knows, and nobody looks at what is done here.
fn known_primary(observed: &Observed) -> Result<Option<(String, u64)>, CliError> {
    for (name, sight) in &observed.nodes {
        if let Sight::Unreachable(why) = sight {
            return Err(CliError::failed(format!(
                "node {name} does not answer, and with --once every node has to: {why}"
            ))
            .of_kind("node_unreachable"));
        }
    }
    let records = observed.all_seen().filter_map(|(_, seen)| seen.record.as_ref());
    let latest = records.max_by_key(|record| record.epoch);
    Ok(latest.map(|record| (record.primary.clone(), record.epoch)))
}

/// `relevo switchover`.
///
/// # Errors
/// [`CliError::Refused`]: it would not be safe; [`CliError::Failed`]: it was taken back.
pub async fn switchover_to(args: &SwitchoverArgs, file: &File) -> Result<(), CliError> {
    let cluster = file.cluster()?;
    let settings = file.handover(args.max_pause, None)?;
    let (observed, _claims) = look(&cluster, &args.handover).await?;
    let plan = switchover(&observed, &args.to);
    carry_out(&cluster, settings, &args.handover, &observed, plan).await
}

/// `relevo failover`.
///
/// # Errors
/// [`CliError::Refused`]: it would not be safe.
pub async fn failover_to(args: &FailoverArgs, file: &File) -> Result<(), CliError> {
    let cluster = file.cluster()?;
    let settings = file.handover(None, None)?;
    let (observed, _claims) = look(&cluster, &args.handover).await?;
    let plan = failover(&observed, &args.to, args.force);
    carry_out(&cluster, settings, &args.handover, &observed, plan).await
}

/// `relevo rejoin`.
///
/// # Errors
/// [`CliError::Refused`]: there is no way back without a copy.
pub async fn rejoin_node(args: &RejoinArgs, file: &File) -> Result<(), CliError> {
    let cluster = file.cluster()?;
    let settings = file.handover(None, args.salvage.clone())?;
    let (observed, _claims) = look(&cluster, &args.handover).await?;
    let plan = rejoin(&observed, &args.node);
    carry_out(&cluster, settings, &args.handover, &observed, plan).await
}

/// Looks at every node, and keeps other commands away from them until the end of this one, unless it is a rehearsal.
async fn look(cluster: &Cluster, args: &HandoverArgs) -> Result<(Observed, Option<Claims>), CliError> {
    if args.dry_run {
        return Ok((observe(cluster).await, None));
    }
    let (observed, claims) = observe_alone(cluster).await.map_err(|error| from_handover(&error))?;
    Ok((observed, Some(claims)))
}

/// Shows the plan and, unless it is a rehearsal, takes its steps.
async fn carry_out(
    cluster: &Cluster,
    settings: HandoverSettings,
    args: &HandoverArgs,
    observed: &Observed,
    plan: Result<Plan, Refusal>,
) -> Result<(), CliError> {
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => {
            if !args.json {
                output::print(&found(observed))?;
            }
            return Err(match refusal {
                Refusal::NoSuchNode { .. } => CliError::usage(refusal.to_string()).of_kind(refusal.kind()),
                refusal => {
                    CliError::refused(format!("{refusal}; nothing was changed")).of_kind(refusal.kind())
                }
            });
        }
    };
    if !args.json {
        output::print(&found(observed))?;
        output::print(&plan_text(&plan, args.dry_run))?;
    }
    let mut done = None;
    if !args.dry_run && !plan.steps.is_empty() {
        let HandoverSettings { max_pause, salvage, hooks, .. } = settings;
        done = Some(work(cluster, (max_pause, salvage, hooks), args, &plan).await?);
    }
    if args.json {
        return output::json(&document(&plan, observed, args.dry_run, done.as_ref()));
    }
    match done {
        Some(done) => output::print(&result_text(&plan, &done)),
        None => Ok(()),
    }
}

async fn work(
    cluster: &Cluster,
    (max_pause, salvage, hooks): (Duration, std::path::PathBuf, Hooks),
    args: &HandoverArgs,
    plan: &Plan,
) -> Result<Done, CliError> {
    let (json, kill_after, of) = (args.json, args.kill_after_step, plan.steps.len());
    let tell = move |at: usize, step: &Step| {
        if !json {
            // Nobody who reads it must not stop it.
            let _ = output::print(&format!("[{at}/{of}] {step}\n"));
        }
    };
    let told = move |at: usize| {
        if kill_after == Some(at) {
            std::process::abort();
        }
    };
    let work =
        Work { cluster, requested_by: requested_by(), max_pause, hooks, salvage, tell: &tell, told: &told };
    work.run(plan).await.map_err(|error| {
        let back = match &error {
            HandoverError::TooSlow { .. } => "; the old primary accepts writes again".to_owned(),
            HandoverError::Overtaken { .. }
            | HandoverError::FenceWaits { .. }
            | HandoverError::LocksHeld { .. }
            | HandoverError::PrimaryLives { .. }
            | HandoverError::NotTakenBack { .. } => String::new(),
            _ => "; the same command goes on from here".to_owned(),
        };
        from_handover(&error).and(&back)
    })
}

fn node_document(name: &str, sight: &Sight) -> NodeDocument {
    let seen = match sight {
        Sight::Seen(seen) => seen,
        Sight::Unreachable(error) => {
            return NodeDocument {
                name: name.to_owned(),
                reachable: false,
                error: Some(error.clone()),
                epoch: None,
                primary: None,
                fenced: None,
                applied_lsn: None,
                wal_lsn: None,
            };
        }
    };
    let record = seen.record.as_ref();
    NodeDocument {
        name: name.to_owned(),
        reachable: true,
        error: None,
        epoch: record.map(|record| record.epoch),
        primary: record.map(|record| record.primary.clone()),
        fenced: record.map(|record| record.fenced),
        applied_lsn: seen.flow.as_ref().map(|flow| flow.applied.to_string()),
        wal_lsn: Some(seen.wal_lsn.to_string()),
    }
}

fn document(plan: &Plan, observed: &Observed, dry_run: bool, done: Option<&Done>) -> Document {
    Document {
        kind: plan.kind.as_str(),
        from: plan.from.clone(),
        to: plan.to.clone(),
        epoch: plan.epoch,
        dry_run,
        rolls_back: plan.rolls_back,
        resumed: plan.resumes.is_some(),
        nodes: observed.nodes.iter().map(|(name, sight)| node_document(name, sight)).collect(),
        steps: plan
            .steps
            .iter()
            .map(|step| StepDocument { step: step.word(), text: step.to_string() })
            .collect(),
        notes: plan.notes.clone(),
        pause_ms: done.and_then(|done| u64::try_from(done.pause?.as_millis()).ok()),
        applied_lsn: done.and_then(|done| Some(done.old_lsn?.to_string())),
        last_commit_time: done.and_then(|done| Some(output::time(done.old_commit_time?))),
        salvage: done.and_then(|done| {
            let (file, transactions, rows) = done.salvaged.clone()?;
            Some(SalvageDocument { file: file.display().to_string(), transactions, rows })
        }),
        left_behind: done.map(|done| done.left_behind.clone()).unwrap_or_default(),
        warnings: done.map(|done| done.warnings.clone()).unwrap_or_default(),
    }
}

/// What was seen.
fn found(observed: &Observed) -> String {
    let mut text = String::from("Found:\n");
    for (name, sight) in &observed.nodes {
        let _ = match sight {
            Sight::Unreachable(reason) => writeln!(text, "  {name}: not reached: {reason}"),
            Sight::Seen(seen) => {
                let role = seen.record.as_ref().map_or_else(
                    || "relevo init has not been here".to_owned(),
                    |record| {
                        let role = if record.primary == *name { "primary" } else { "standby" };
                        let fenced = if record.fenced { ", accepts no writes" } else { ", accepts writes" };
                        format!("{role} by its own word (epoch {}){fenced}", record.epoch)
                    },
                );
                let flow = seen.flow.as_ref().map_or_else(String::new, |flow| {
                    let works = if flow.works { "" } else { ", but no Relevo applies" };
                    let whole = if flow.complete { "" } else { ", not consistent yet" };
                    format!(", applied up to {}{works}{whole}", flow.applied)
                });
                writeln!(text, "  {name}: {role}{flow}")
            }
        };
    }
    text
}

fn plan_text(plan: &Plan, dry_run: bool) -> String {
    let mut text = String::new();
    for note in &plan.notes {
        let _ = writeln!(text, "Note: {note}");
    }
    if plan.steps.is_empty() {
        let _ = writeln!(text, "There is nothing to do: {} is as it should be.", plan.to);
        return text;
    }
    let head = match (dry_run, plan.rolls_back, plan.resumes.is_some()) {
        (true, ..) => "Would be done:",
        (false, true, _) => "An interrupted switchover is taken back:",
        (false, false, true) => "An interrupted command goes on:",
        (false, false, false) => "To be done:",
    };
    let _ = writeln!(text, "{head}");
    for (at, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "  {}. {step}", at + 1);
    }
    text
}

fn result_text(plan: &Plan, done: &Done) -> String {
    let mut text = String::new();
    for warning in &done.warnings {
        let _ = writeln!(text, "Warning: {warning}");
    }
    if let Some((file, transactions, rows)) = &done.salvaged {
        let _ = writeln!(
            text,
            "Salvaged: {transactions} transactions with {rows} rows that never left {}: {}",
            plan.to,
            file.display()
        );
    }
    use relevo_handover::HandoverKind;
    let _ = match plan.kind {
        HandoverKind::Rejoin => writeln!(text, "{} follows. Next: relevo status, relevo verify.", plan.to),
        _ if plan.rolls_back => writeln!(text, "{} accepts writes again.", plan.to),
        _ => writeln!(text, "{} is the primary since epoch {}.", plan.to, plan.epoch),
    };
    if let Some(pause) = done.pause {
        let _ = writeln!(text, "Writes paused for {} ms.", pause.as_millis());
    }
    if plan.kind == HandoverKind::Failover && !plan.rolls_back {
        if let Some(lsn) = done.old_lsn {
            let at = done.old_commit_time.map_or_else(|| "unknown".to_owned(), output::time);
            let from = plan.from.as_deref().unwrap_or("the old primary");
            let _ = writeln!(
                text,
                "Applied from {from}: everything up to {lsn}; its last transaction here was committed at {at}. What {from} \
                 committed after that is not here."
            );
        }
        if let Some(from) = plan.from.as_ref().filter(|_| done.old_lsn.is_some()) {
            let _ = writeln!(text, "Next, when {from} is back: relevo rejoin {from}");
        }
    }
    text
}
