//! What the other nodes say of the role, looked at all the time. A node that does not answer has said what it said last:
//! epochs only grow, so an old word is never wrong, only old.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relevo_connect::SqlSession;
use relevo_handover::{Claim, Cluster, HandoverError, Word, connect_node, identify, listen};
use relevo_model::SourceIdentity;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_millis(200);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The last word of every node, and when it came.
type Words = Arc<Mutex<BTreeMap<String, (Word, Instant)>>>;

/// The last word of every node.
pub struct Eyes {
    words: Words,
}

impl Eyes {
    /// Begins to look, until `end`.
    pub fn open(cluster: &Cluster, end: &CancellationToken) -> Self {
        let words = Words::default();
        for node in cluster.nodes.keys() {
            let (cluster, node, words, end) =
                (cluster.clone(), node.clone(), Arc::clone(&words), end.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = look(&cluster, &node, &words) => {}
                }
            });
        }
        Self { words }
    }

    /// What all nodes but one say.
    pub fn claims(&self, me: &str) -> Vec<Claim> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().filter(|(node, _)| *node != me).filter_map(|(_, (word, _))| word.claim.clone()).collect()
    }

    /// Which database each node is.
    pub fn identities(&self) -> BTreeMap<String, SourceIdentity> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().map(|(node, (word, _))| (node.clone(), word.identity.clone())).collect()
    }

    /// The last word of every node that has said one, and how long ago that was.
    pub fn words(&self) -> BTreeMap<String, (Word, Duration)> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().map(|(node, (word, at))| (node.clone(), (word.clone(), at.elapsed()))).collect()
    }
}

async fn look(cluster: &Cluster, node: &str, words: &Words) {
    loop {
        if let Ok(session) = connect_node(cluster, node).await
            && let Ok(Ok(identity)) = timeout(ANSWER_LIMIT, identify(&session, node)).await
        {
            while let Ok(Ok(claim)) = timeout(ANSWER_LIMIT, listen(&session, node)).await {
                let said = (Word { identity: identity.clone(), claim }, Instant::now());
                words.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), said);
                sleep(LOOK).await;
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// A session on the node's own database, opened when it is needed.
#[derive(Default)]
pub struct Own {
    session: Option<SqlSession>,
}

impl Own {
    /// The session.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn session(&mut self, cluster: &Cluster, me: &str) -> Result<&mut SqlSession, HandoverError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => connect_node(cluster, me).await?,
        };
        Ok(self.session.insert(session))
    }

    /// It is of no use any more.
    pub fn close(&mut self) {
        self.session = None;
    }
}
