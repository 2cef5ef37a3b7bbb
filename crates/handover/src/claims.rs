//! One hand-over command at a time: each keeps the nodes that it sees for itself, from before it looks at them to its end.
//!
//! A plan is right for what was seen. Two commands at once, each right by itself, would give the role away twice, or take slots
//! from under nodes that follow by then. What may not enter: what a command does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use relevo_connect::SqlSession;
use relevo_state::{self as state, FlowLock};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::observe::{ANSWER_LIMIT, connect_with, see};
use crate::{Cluster, HandoverError, Observed, Seen, Sight};

/// How long another command may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest and the longest pause before it is tried again, in milliseconds: commands that meet should not meet again.
const PAUSE_MS: (u64, u64) = (50, 250);
/// The server ends a session whose client is lost within twenty seconds (manual, *TCP Settings*).
const SETTINGS: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "5"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];

/// Keeps other commands away from the nodes until it is dropped.
#[derive(Debug)]
pub struct Claims {
    _sessions: Vec<SqlSession>,
}

/// A node that is kept, or who else keeps it.
type Found = Result<Box<(SqlSession, Seen)>, String>;

/// Looks at every node, side by side, once no other command is at work there.
///
/// # Errors
/// [`HandoverError::UnderWay`]: one is, and does not end.
pub async fn observe_alone(cluster: &Cluster) -> Result<(Observed, Claims), HandoverError> {
    let begun = Instant::now();
    loop {
        let (node, holder) = match attempt(cluster).await {
            Ok(alone) => return Ok(alone),
            Err(taken) => taken,
        };
        if begun.elapsed() >= PATIENCE {
            return Err(HandoverError::UnderWay { node, holder });
        }
        sleep(Duration::from_millis(rand::rng().random_range(PAUSE_MS.0..PAUSE_MS.1))).await;
    }
}

/// `Err`: who holds which node. Then none is kept.
async fn attempt(cluster: &Cluster) -> Result<(Observed, Claims), (String, String)> {
    let mut looks = JoinSet::new();
    for node in cluster.nodes.keys() {
        let (cluster, node) = (cluster.clone(), node.clone());
        looks.spawn(async move {
            let found = timeout(ANSWER_LIMIT, claim(&cluster, &node)).await;
            (node, found)
        });
    }
    let (mut observed, mut sessions, mut taken) = (Observed::default(), Vec::new(), BTreeMap::new());
    while let Some(look) = looks.join_next().await {
        let Ok((node, found)) = look else { continue };
        let sight = match found {
            Ok(Ok(Ok(claimed))) => {
                let (session, seen) = *claimed;
                sessions.push(session);
                Sight::Seen(Box::new(seen))
            }
            Ok(Ok(Err(holder))) => {
                taken.insert(node, holder);
                continue;
            }
            Ok(Err(error)) => Sight::Unreachable(error.to_string()),
            Err(_) => Sight::Unreachable(format!("node {node} does not answer")),
        };
        observed.nodes.insert(node, sight);
    }
    match taken.pop_first() {
        Some(taken) => Err(taken),
        None => Ok((observed, Claims { _sessions: sessions })),
    }
}

async fn claim(cluster: &Cluster, node: &str) -> Result<Found, HandoverError> {
    let session = connect_with(cluster, node, &SETTINGS).await?;
    let (flow, lock) = (cluster.flow_into(node)?, FlowLock::Handover);
    if state::try_lock(&*session, &flow, lock).await.map_err(HandoverError::state(node))? {
        let seen = see(cluster, node, &session).await?;
        return Ok(Ok(Box::new((session, seen))));
    }
    let holder = state::holder(&*session, &flow, lock).await.map_err(HandoverError::state(node))?;
    Ok(Err(holder.unwrap_or_else(|| "it has just ended".to_owned())))
}
