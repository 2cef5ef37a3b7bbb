//! Several servers between which the role of the primary moves: a configuration file with a node for each, a Relevo beside
//! each, and clients that find the primary by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config, NoTls};

use crate::cluster::{Cluster, PASSWORD};
use crate::compare::Comparison;
use crate::install::Version;
use crate::pair::{DATABASE, Node};
use crate::relevo::{Finished, PATIENCE, Relevo, RelevoBuilder, new_spool};
use crate::wait::wait_until_some;

/// Servers named a, b, c …, each with an empty database.
#[derive(Debug)]
pub struct Nodes {
    nodes: BTreeMap<String, Node>,
    folder: TempDir,
    spools: BTreeMap<String, Arc<TempDir>>,
    /// The role that Relevo connects as.
    role: String,
}

impl Nodes {
    /// Starts a server of each version.
    pub async fn start(versions: &[Version]) -> Self {
        let mut nodes = BTreeMap::new();
        for (version, name) in versions.iter().zip('a'..) {
            nodes.insert(name.to_string(), Node::start(Cluster::builder(*version)).await);
        }
        let spools = nodes.keys().map(|name| (name.clone(), new_spool())).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nodes = Self { nodes, folder, spools, role: "postgres".to_owned() };
        nodes.configure("");
        nodes
    }

    /// Lets Relevo connect as another role than the superuser; its password is the same.
    #[must_use]
    pub fn as_role(mut self, role: &str) -> Self {
        role.clone_into(&mut self.role);
        self.configure("");
        self
    }

    /// Writes the configuration file with more at its end.
    pub fn configure(&self, more: &str) {
        self.write_config(|_, node| node.port(), more);
    }

    /// Lets commands reach a node through another port, such as a proxy's. What runs has read the file already.
    pub fn reach_through(&self, name: &str, port: u16) {
        self.write_config(|node, cluster| if node == name { port } else { cluster.port() }, "");
    }

    fn write_config(&self, port: impl Fn(&str, &Node) -> u16, more: &str) {
        std::fs::write(self.config(), self.config_text(port, more)).expect("the configuration file");
    }

    pub(crate) fn config_text(&self, port: impl Fn(&str, &Node) -> u16, more: &str) -> String {
        let mut text = String::from("name = \"shop\"\n");
        for (name, node) in &self.nodes {
            let url = node.url_through(port(name, node), &self.role, PASSWORD, DATABASE);
            text.push_str(&format!("[node.{name}]\nurl = \"{url}\"\n"));
        }
        text.push_str(more);
        text
    }

    /// The names of the nodes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The configuration file of somebody who has links of his own.
    #[must_use]
    pub fn config_of(&self, asker: &str) -> String {
        self.folder.path().join(format!("{asker}.toml")).to_string_lossy().into_owned()
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> String {
        self.folder.path().join("relevo.toml").to_string_lossy().into_owned()
    }

    /// A folder for what tests want to keep.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// Runs statements on a node in a session of their own: one that was opened while the node was a standby stays
    /// read-only, as that of any application.
    pub async fn sql(&self, name: &str, statements: &str) {
        self.node(name).connect(DATABASE).await.sql(statements).await;
    }

    /// A command about all nodes.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> RelevoBuilder {
        self.command_by(&self.config(), arguments)
    }

    /// The same with another configuration file.
    #[must_use]
    pub fn command_by(&self, config: &str, arguments: &[&str]) -> RelevoBuilder {
        RelevoBuilder::command(arguments)
            .args(["--config", config])
            .env("RELEVO_SALVAGE", &self.folder.path().to_string_lossy())
    }

    /// Runs a command to its end; panics unless it ends with this exit code.
    pub async fn run(&self, arguments: &[&str], code: i32) -> Finished {
        let command = self.command(arguments);
        let done = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE));
        done.await.expect("the command").expect_code(code)
    }

    /// The same by somebody whose file does not name one of the nodes.
    pub async fn run_without(&self, unnamed: &str, arguments: &[&str], code: i32) -> Finished {
        let text = std::fs::read_to_string(self.config()).expect("the configuration file");
        let parts = text.split("[node.").filter(|part| !part.starts_with(&format!("{unnamed}]")));
        let config = self.config_of(&format!("without-{unnamed}"));
        std::fs::write(&config, parts.collect::<Vec<_>>().join("[node.")).expect("a configuration file");
        let command = self.command_by(&config, arguments);
        let done = tokio::task::spawn_blocking(move || command.finish_within(PATIENCE));
        done.await.expect("the command").expect_code(code)
    }

    /// The Relevo beside a node.
    #[must_use]
    pub fn relevo(&self, name: &str) -> Relevo {
        self.relevo_by(&self.config(), name)
    }

    /// The same with another configuration file.
    #[must_use]
    pub fn relevo_by(&self, config: &str, name: &str) -> Relevo {
        RelevoBuilder::run_node(config, name).spool(&self.spools[name]).start()
    }

    /// A cluster with `a` as its primary and a Relevo beside every node; the others follow when this returns.
    pub async fn up(versions: &[Version], schema: &str) -> (Self, BTreeMap<String, Relevo>) {
        Self::up_with(versions, schema, "").await
    }

    /// The same with more at the end of the configuration file.
    pub async fn up_with(versions: &[Version], schema: &str, more: &str) -> (Self, BTreeMap<String, Relevo>) {
        let nodes = Self::start(versions).await;
        nodes.configure(more);
        nodes.node("a").sql(schema).await;
        let relevos = nodes.begin().await;
        (nodes, relevos)
    }

    /// Makes `a` the primary and starts a Relevo beside every node; the others follow when this returns.
    pub async fn begin(&self) -> BTreeMap<String, Relevo> {
        self.run(&["init", "--primary", "a"], 0).await;
        let mut relevos: BTreeMap<String, Relevo> =
            self.nodes.keys().map(|name| (name.clone(), self.relevo(name))).collect();
        for (name, relevo) in &mut relevos {
            match name.as_str() {
                "a" => relevo.wait_for_status("a has the role", PATIENCE, |s| s["role"] == "primary").await,
                _ => relevo.wait_until_streaming().await,
            };
        }
        for name in self.nodes.keys().filter(|name| *name != "a") {
            self.guarded(name).await;
        }
        relevos
    }

    /// Waits until no ordinary session can write to a node.
    pub async fn guarded(&self, name: &str) {
        let query = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'relevo') \
             AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'relevo_guard' \
             AND t.tgenabled = 'O')";
        wait_until_some(&format!("{name} is guarded"), PATIENCE, async || {
            match self.node(name).value::<i64>(query).await {
                0 => Ok(()),
                open => Err(format!("{open} tables are open")),
            }
        })
        .await;
    }

    /// How an application reaches whichever node is the primary: a list of hosts and `target_session_attrs=read-write`.
    #[must_use]
    pub fn application(&self) -> Config {
        let mut config = Config::new();
        for node in self.nodes.values() {
            config.host("127.0.0.1").port(node.port());
        }
        config.user("postgres").password(PASSWORD).dbname(DATABASE).application_name("application");
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).connect_timeout(Duration::from_secs(2));
        config
    }

    /// An application's session on whichever node is the primary.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect_application(&self) -> Result<Client, tokio_postgres::Error> {
        connect(&self.application()).await
    }

    /// Waits until a standby has all that the primary has, then compares every table.
    pub async fn settle(&self, primary: &str, standby: &str) {
        self.caught_up(primary, standby).await;
        Comparison::default().assert_equal(self.node(primary), self.node(standby)).await;
    }

    /// Waits until a standby has all that the primary has committed up to now.
    pub async fn caught_up(&self, primary: &str, standby: &str) {
        let source = self.node(primary);
        let position: String = source.value("SELECT pg_current_wal_insert_lsn()::text").await;
        source.sql("SELECT pg_logical_emit_message(false, 'relevo-tests', '')").await;
        let system: String = source.value("SELECT system_identifier::text FROM pg_control_system()").await;
        let query = format!(
            "SELECT coalesce(max(applied_lsn)::text, 'none'), coalesce(bool_or(applied_lsn >= '{position}' \
             AND source_system_id = '{system}'), false)::text FROM relevo.progress WHERE flow = 'shop_{standby}'"
        );
        wait_until_some(&format!("{standby} has applied {position} of {primary}"), PATIENCE, async || {
            let session = self.node(standby).session().await.map_err(|error| error.to_string())?;
            let rows = session.try_rows(&query).await.map_err(|error| error.to_string())?;
            match rows.first().map(Vec::as_slice) {
                Some([_, Some(reached)]) if reached == "true" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// The steps of a command, by its rehearsal.
    pub async fn steps(&self, arguments: &[&str]) -> Vec<String> {
        let rehearsal = [arguments, &["--dry-run", "--json"]].concat();
        let plan: Value = self.run(&rehearsal, 0).await.json();
        let steps = plan["steps"].as_array().expect("steps");
        steps.iter().map(|step| step["step"].as_str().expect("a word").to_owned()).collect()
    }
}

/// Connects, and lets the connection work in a task of its own.
///
/// # Errors
/// When no server lets us in.
pub async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
