//! Hooks that are due although nobody is left who would run them: the command of a hand-over was killed.
//!
//! What may not enter: which hooks are due (see `relevo_handover::run_due_hooks`).

use std::time::Duration;

use relevo_handover::{Cluster, HandoverError, Hooks, connect_node, run_due_hooks};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);

/// Looks until `end`, beside all else that the node does: a hook may take long.
pub fn watch(cluster: &Cluster, me: &str, hooks: Hooks, end: &CancellationToken) {
    if hooks.is_empty() {
        return;
    }
    let (cluster, me, end) = (cluster.clone(), me.to_owned(), end.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                ended = look(&cluster, &me, &hooks) => {
                    let Err(error) = ended;
                    debug!(%error, "it cannot be seen whether hooks are due");
                }
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep(LOOK) => {}
            }
        }
    });
}

/// Ends when the node does not answer.
async fn look(cluster: &Cluster, me: &str, hooks: &Hooks) -> Result<std::convert::Infallible, HandoverError> {
    let session = connect_node(cluster, me).await?;
    loop {
        run_due_hooks(cluster, hooks, me, &session).await?;
        sleep(LOOK).await;
    }
}
