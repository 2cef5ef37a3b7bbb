//! Two servers and the flow between them: what most tests start with.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio_postgres::types::FromSqlOwned;

use crate::cluster::{Cluster, ClusterBuilder, PASSWORD};
use crate::compare::Comparison;
use crate::database::Database;
use crate::install::Version;
use crate::proxy::Proxy;
use crate::relevo::{PATIENCE, RelevoBuilder, new_spool};
use crate::wait::wait_until_some;

/// The flow's name in the tests: its slot and publication are `relevo_e2e`.
pub const FLOW: &str = "e2e";
/// The database on both sides.
pub const DATABASE: &str = "shop";

/// What a pair shall be like.
#[derive(Debug)]
pub struct PairBuilder {
    source: ClusterBuilder,
    target: ClusterBuilder,
    proxied: bool,
}

impl PairBuilder {
    /// Changes how the source is made.
    #[must_use]
    pub fn source(mut self, change: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        self.source = change(self.source);
        self
    }

    /// Changes how the target is made.
    #[must_use]
    pub fn target(mut self, change: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        self.target = change(self.target);
        self
    }

    /// Puts a proxy before each server; [`Pair::relevo`] goes through them, the harness does not.
    #[must_use]
    pub const fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Starts both servers.
    pub async fn start(self) -> Pair {
        let (source, target) = tokio::join!(Node::start(self.source), Node::start(self.target));
        let proxies = if self.proxied {
            Some((Proxy::start(source.port()).await, Proxy::start(target.port()).await))
        } else {
            None
        };
        Pair { source, target, proxies, spool: new_spool() }
    }
}

/// A source and a target, each with an empty database `shop`.
#[derive(Debug)]
pub struct Pair {
    /// Where changes come from.
    pub source: Node,
    /// Where they go.
    pub target: Node,
    proxies: Option<(Proxy, Proxy)>,
    spool: Arc<TempDir>,
}

impl Pair {
    /// What the pair shall be like. The servers' own settings of how values look differ between the sides and from
    /// the defaults: they must not matter.
    #[must_use]
    pub fn builder(source: Version, target: Version) -> PairBuilder {
        let odd = |builder: ClusterBuilder| {
            builder
                .set("DateStyle", "SQL, DMY")
                .set("IntervalStyle", "sql_standard")
                .set("extra_float_digits", "0")
        };
        PairBuilder {
            source: odd(Cluster::builder(source)).set("TimeZone", "Asia/Kathmandu"),
            target: odd(Cluster::builder(target)).set("bytea_output", "escape").set("xmloption", "document"),
            proxied: false,
        }
    }

    /// Starts a pair with the usual settings.
    pub async fn start(source: Version, target: Version) -> Self {
        Self::builder(source, target).start().await
    }

    /// The URL of the source for Relevo.
    #[must_use]
    pub fn source_url(&self) -> String {
        let port = self.proxies.as_ref().map_or(self.source.port(), |(proxy, _)| proxy.port());
        self.source.url_through(port, "postgres", PASSWORD, DATABASE)
    }

    /// The URL of the target for Relevo.
    #[must_use]
    pub fn target_url(&self) -> String {
        let port = self.proxies.as_ref().map_or(self.target.port(), |(_, proxy)| proxy.port());
        self.target.url_through(port, "postgres", PASSWORD, DATABASE)
    }

    /// The link to the source of a pair that was built with `proxied()`.
    #[must_use]
    pub fn source_proxy(&self) -> &Proxy {
        &self.proxies.as_ref().expect("a pair built with proxied()").0
    }

    /// The link to the target of a pair that was built with `proxied()`.
    #[must_use]
    pub fn target_proxy(&self) -> &Proxy {
        &self.proxies.as_ref().expect("a pair built with proxied()").1
    }

    /// `relevo run` for the flow `e2e`; add options and start it.
    #[must_use]
    pub fn relevo(&self) -> RelevoBuilder {
        RelevoBuilder::run(&self.source_url(), &self.target_url()).name(FLOW).spool(&self.spool)
    }

    /// Another command of `relevo` for the flow, such as `status`.
    #[must_use]
    pub fn command(&self, command: &str) -> RelevoBuilder {
        RelevoBuilder::command(&[command, "--source", &self.source_url(), "--target", &self.target_url()])
            .name(FLOW)
    }

    /// Runs statements on both sides.
    pub async fn sql_on_both(&self, statements: &str) {
        tokio::join!(self.source.sql(statements), self.target.sql(statements));
    }

    /// Waits until everything that the source has committed up to now is on the target.
    pub async fn caught_up(&self) {
        self.caught_up_within(PATIENCE).await;
    }

    /// Waits until everything that the source has committed up to now is on the target.
    pub async fn caught_up_within(&self, timeout: Duration) {
        let position: String = self.source.value("SELECT pg_current_wal_insert_lsn()::text").await;
        // Makes the position grow further, so that whatever is counted passes it.
        self.source.sql("SELECT pg_logical_emit_message(false, 'relevo-tests', '')").await;
        let query = format!(
            "SELECT applied_lsn::text, applied_lsn >= '{position}' FROM relevo.progress WHERE flow = '{FLOW}'"
        );
        wait_until_some(&format!("applied_lsn {position} on the target"), timeout, async || {
            let session = self.target.session().await.map_err(|error| error.to_string())?;
            let rows = session.try_rows(&query).await.map_err(|error| error.to_string())?;
            match rows.first().map(Vec::as_slice) {
                Some([_, Some(reached)]) if reached == "t" => Ok(()),
                Some([applied, _]) => Err(format!("{applied:?}")),
                _ => Err("no progress of the flow".to_owned()),
            }
        })
        .await;
    }

    /// Compares every table; panics with the first differences.
    pub async fn assert_equal(&self) {
        Comparison::default().assert_equal(&self.source, &self.target).await;
    }

    /// Waits until the target has caught up, then compares every table.
    pub async fn settle(&self) {
        self.caught_up().await;
        self.assert_equal().await;
    }
}

/// One server of a pair, with its database and a session of the harness in it that is reopened when it was lost.
#[derive(Debug)]
pub struct Node {
    cluster: Cluster,
    session: Mutex<Option<Arc<Database>>>,
}

impl Node {
    pub(crate) async fn start(builder: ClusterBuilder) -> Self {
        let cluster = builder.start().await;
        cluster.create_database(DATABASE).await;
        Self { cluster, session: Mutex::new(None) }
    }

    /// A session in the database.
    ///
    /// # Errors
    /// When the server is not there.
    pub async fn session(&self) -> Result<Arc<Database>, tokio_postgres::Error> {
        let mut session = self.session.lock().await;
        match &*session {
            Some(open) if !open.is_closed() => Ok(Arc::clone(open)),
            _ => Ok(Arc::clone(session.insert(Arc::new(self.cluster.try_connect(DATABASE).await?)))),
        }
    }

    /// Runs one or more statements.
    pub async fn sql(&self, statements: &str) {
        self.open().await.sql(statements).await;
    }

    /// The only value of a query.
    pub async fn value<T: FromSqlOwned>(&self, query: &str) -> T {
        self.open().await.value(query).await
    }

    /// The rows of a query in their text form.
    pub async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        self.open().await.rows(query).await
    }

    /// The first column of each row in its text form.
    pub async fn column(&self, query: &str) -> Vec<String> {
        self.open().await.column(query).await
    }

    async fn open(&self) -> Arc<Database> {
        self.session().await.unwrap_or_else(|error| panic!("connecting to {}: {error:?}", self.version()))
    }
}

impl Deref for Node {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
