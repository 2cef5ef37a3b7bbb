//! Slots that are armed for the other standbys while this node is one itself.
//!
//! What may not enter: when a slot is made, moved or dropped (see `relevo_handover::Arming`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relevo_handover::{Arming, Cluster, HandoverError};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::run::board::FlowBoard;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);
/// To move a slot, the server reads the WAL that it gives up.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Keeps them until `end`, beside all else that the node does.
pub fn keep(cluster: &Cluster, me: &str, limit_bytes: u64, board: &Arc<FlowBoard>, end: &CancellationToken) {
    // Without a third node there is nobody to keep them for.
    if cluster.others(me).count() < 2 {
        return;
    }
    let (mut arming, end, board) = (Arming::new(cluster, me, limit_bytes), end.clone(), Arc::clone(board));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                ended = look(&mut arming, &board) => {
                    let Err(error) = ended;
                    board.armed(&BTreeMap::new());
                    debug!(%error, "the armed slots cannot be looked after");
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
async fn look(arming: &mut Arming, board: &FlowBoard) -> Result<std::convert::Infallible, HandoverError> {
    let session = arming.connect().await?;
    loop {
        let looked = timeout(ANSWER_LIMIT, arming.look(&session)).await;
        let armed = looked.map_err(|_| HandoverError::Waited("the node does not answer".to_owned()))??;
        board.armed(&armed);
        sleep(LOOK).await;
    }
}
