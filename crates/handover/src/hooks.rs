//! Hooks: commands that tell others, such as proxies and name servers, who may be written to.
//!
//! That one is due is written down with what it tells of, so it is run at least once, whoever is killed: by the command, by
//! the same command typed again, or by the Relevo beside the node. Whoever runs it holds a lock meanwhile, by which the
//! others know that somebody lives who does. What may not enter: when a hook becomes due.

use std::time::{Duration, Instant};

use relevo_connect::SqlSession;
use relevo_state::{self as state, FlowLock, HandoverKind, HandoverRecord, Hook, HookState};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::{Cluster, HandoverError};

/// How long a hook may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long somebody else who runs hooks of the node is waited for.
const PATIENCE: Duration = Duration::from_secs(35);
const LOOK: Duration = Duration::from_millis(50);

/// The commands.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Run when the old primary accepts no writes any more.
    pub on_fence: Option<String>,
    /// Run when the new primary accepts writes.
    pub on_promote: Option<String>,
}

impl Hooks {
    /// The command of a hook, if there is one.
    #[must_use]
    pub fn command(&self, hook: Hook) -> Option<&str> {
        match hook {
            Hook::OnFence => self.on_fence.as_deref(),
            Hook::OnPromote => self.on_promote.as_deref(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.on_fence.is_none() && self.on_promote.is_none()
    }

    /// Writes in the record that a hook is due, if there is one that is told of such a hand-over: who comes back changes
    /// nothing for anybody else.
    pub(crate) fn make_due(&self, hook: Hook, record: &mut HandoverRecord) {
        if record.kind != HandoverKind::Rejoin && self.command(hook).is_some() {
            record.hook_mut(hook).get_or_insert(HookState::Due);
        }
    }
}

/// Takes the lock of whoever runs hooks of a node, if nobody has it. It goes with the session.
pub(crate) async fn claim(
    cluster: &Cluster,
    node: &str,
    session: &SqlSession,
) -> Result<bool, HandoverError> {
    let flow = cluster.flow_into(node)?;
    state::try_lock(&**session, &flow, FlowLock::Hooks).await.map_err(HandoverError::state(node))
}

/// Runs a hook of a hand-over that is due or has failed, and writes down on `node` what has become of it. That it fails
/// stops nothing: the role has moved or is moving. Returns what somebody should know.
pub(crate) async fn run(
    (cluster, hooks): (&Cluster, &Hooks),
    (node, session): (&str, &SqlSession),
    hook: Hook,
    record: &mut HandoverRecord,
) -> Result<Option<String>, HandoverError> {
    if !record.is_untold(hook) {
        return Ok(None);
    }
    let name = hook.as_str();
    let failed = || HandoverError::state(node);
    let began = Instant::now();
    while !claim(cluster, node, session).await? {
        if began.elapsed() > PATIENCE {
            return Ok(Some(format!("the hook {name} is being run by somebody else, who does not end")));
        }
        sleep(LOOK).await;
    }
    // Somebody may have run it meanwhile.
    let stored = state::hook_state(&**session, &record.id, hook).await.map_err(failed())?;
    if stored == Some(HookState::Done) {
        *record.hook_mut(hook) = stored;
        return Ok(None);
    }
    let (what, problem) = match call(cluster, hooks, hook, record).await {
        Ok(()) => (HookState::Done, None),
        Err(problem) => {
            warn!(hook = name, "{problem}");
            (HookState::Failed, Some(problem))
        }
    };
    *record.hook_mut(hook) = Some(what);
    state::note_hook(&**session, &record.id, (hook, what)).await.map_err(failed())?;
    Ok(problem)
}

/// Runs what is due on a node whose Relevo finds that nobody else does. A hook that has failed is left to people. Returns how
/// many were run.
///
/// # Errors
/// [`HandoverError::State`].
pub async fn run_due_hooks(
    cluster: &Cluster,
    hooks: &Hooks,
    node: &str,
    session: &SqlSession,
) -> Result<usize, HandoverError> {
    let failed = || HandoverError::state(node);
    let mine = |due: Vec<(HandoverRecord, Hook)>| {
        due.into_iter().filter(|(_, hook)| hooks.command(*hook).is_some()).collect::<Vec<_>>()
    };
    if state::installed_version(&**session).await.map_err(failed())? != Some(state::VERSION)
        || mine(state::hooks_due(&**session).await.map_err(failed())?).is_empty()
        || !claim(cluster, node, session).await?
    {
        return Ok(0);
    }
    // Whoever had the lock may have run them.
    let due = mine(state::hooks_due(&**session).await.map_err(failed())?);
    let count = due.len();
    for (mut record, hook) in due {
        info!(
            hook = hook.as_str(),
            handover = record.id,
            "a hook is due, and whoever should have run it was killed"
        );
        run((cluster, hooks), (node, session), hook, &mut record).await?;
    }
    // The session lives on: each claim counts.
    let flow = cluster.flow_into(node)?;
    for _ in 0..=count {
        state::unlock(&**session, &flow, FlowLock::Hooks).await.map_err(failed())?;
    }
    Ok(count)
}

/// `Err`: what went wrong, for people.
async fn call(cluster: &Cluster, hooks: &Hooks, hook: Hook, run: &HandoverRecord) -> Result<(), String> {
    let name = hook.as_str();
    let Some(command) = hooks.command(hook) else {
        return Err(format!("the hook {name} is due, and the configuration names none any more"));
    };
    let place = |node: &str| {
        let host = cluster.nodes.get(node).and_then(|conf| conf.info.hosts().first().cloned());
        host.map_or_else(String::new, |host| host.to_string())
    };
    let old = run.from.clone().unwrap_or_default();
    let child = tokio::process::Command::new("/bin/sh")
        .args(["-c", command])
        .env("RELEVO_HOOK", name)
        .env("RELEVO_CLUSTER", &cluster.name)
        .env("RELEVO_HANDOVER", run.kind.as_str())
        .env("RELEVO_EPOCH", run.epoch.to_string())
        .env("RELEVO_OLD_PRIMARY", &old)
        .env("RELEVO_OLD_PRIMARY_HOST", place(&old))
        .env("RELEVO_NEW_PRIMARY", &run.to)
        .env("RELEVO_NEW_PRIMARY_HOST", place(&run.to))
        .stdin(std::process::Stdio::null())
        // Standard output may be a document.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .status();
    let by_hand = "do by hand what it does, or mend it and type the command again, which runs it again";
    match timeout(LIMIT, child).await {
        Ok(Ok(status)) if status.success() => {
            info!(hook = name, "the hook was run");
            Ok(())
        }
        Ok(Ok(status)) => Err(format!("the hook {name} failed ({status}): {by_hand}")),
        Ok(Err(error)) => Err(format!("the hook {name} could not be run ({error}): {by_hand}")),
        Err(_) => Err(format!("the hook {name} took more than {LIMIT:?} and was ended: {by_hand}")),
    }
}
