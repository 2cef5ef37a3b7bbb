//! Nodes in the configuration file: the databases between which the role of the primary moves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use relevo_connect::ConnInfo;
use relevo_handover::{Cluster, Hooks, NodeConf};
use relevo_model::Side;
use serde::Deserialize;

use super::{Endpoint, File};
use crate::args::{PatternArgs, RunArgs};
use crate::error::CliError;

/// An hour of 1 MB/s.
const DEFAULT_ARMED_WAL_BYTES: u64 = 4 << 30;
const DEFAULT_MAX_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HandoverSection {
    max_pause: Option<jiff::SignedDuration>,
    salvage: Option<PathBuf>,
    armed_wal: Option<ByteSize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HooksSection {
    on_fence: Option<String>,
    on_promote: Option<String>,
}

/// What a hand-over goes by.
pub struct HandoverSettings {
    /// For how long nobody may be able to write.
    pub max_pause: Duration,
    /// Where what never left an old primary is written.
    pub salvage: PathBuf,
    /// Whom to tell.
    pub hooks: Hooks,
    /// How much WAL a slot may keep that is armed for another standby; 0: none is armed.
    pub armed_wal_bytes: u64,
}

/// What a node is, for whoever asks about the flow into it, or about the primary that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The node that is asked about.
    pub node: String,
    /// Who has the role.
    pub primary: String,
    /// Since this epoch.
    pub epoch: u64,
}

impl File {
    /// Writes down what was found out about the role.
    pub fn set_standing(&mut self, standing: Standing) {
        self.standing = Some(standing);
    }

    /// What was found out about the role, if the file names nodes and the command asked them.
    #[must_use]
    pub const fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }

    /// Whether the file names nodes.
    #[must_use]
    pub fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The nodes, for a command that is about them.
    ///
    /// # Errors
    /// [`CliError::Usage`]: none are named, the cluster has no name, or a URL is not one.
    pub fn cluster(&self) -> Result<Cluster, CliError> {
        self.cluster_with(&PatternArgs { include: Vec::new(), exclude: Vec::new() }, None)
    }

    /// The same with what the options of `relevo run` say of tables.
    ///
    /// # Errors
    /// As [`File::cluster`].
    pub fn cluster_for_run(&self, args: &RunArgs) -> Result<Cluster, CliError> {
        self.cluster_with(&args.tables.patterns, args.tables.via_partition_root)
    }

    fn cluster_with(&self, patterns: &PatternArgs, by_root: Option<bool>) -> Result<Cluster, CliError> {
        if self.nodes.is_empty() {
            return Err(CliError::usage(
                "no nodes are named: give --config FILE (or RELEVO_CONFIG) with [node.NAME] url = \"…\" for each database",
            ));
        }
        let Some(name) = &self.name else {
            return Err(CliError::usage(
                "the configuration file names nodes, but has no name = \"…\" for all of them",
            ));
        };
        let mut nodes = BTreeMap::new();
        for (node, endpoint) in &self.nodes {
            nodes.insert(node.clone(), NodeConf { info: info(node, endpoint)? });
        }
        let selection = self.selection(patterns)?;
        let by_root = by_root.or(self.tables.via_partition_root).unwrap_or(false);
        Cluster::new(name.0.to_string(), nodes, selection, by_root)
            .map_err(|error| CliError::usage(error.to_string()))
    }

    /// The same file for the flow from `primary` into `node`.
    ///
    /// # Errors
    /// [`CliError::Usage`]: there is no such node.
    pub fn flow_into(&mut self, cluster: &Cluster, primary: &str, node: &str) -> Result<(), CliError> {
        let flow = cluster.flow_into(node).map_err(|error| CliError::usage(error.to_string()))?;
        self.endpoint_of_node(Side::Source, primary)?;
        self.endpoint_of_node(Side::Target, node)?;
        self.flow_into_node = Some(flow);
        Ok(())
    }

    fn endpoint_of_node(&mut self, side: Side, node: &str) -> Result<(), CliError> {
        let endpoint = self.nodes.get(node).cloned().ok_or_else(|| self.no_such_node(node))?;
        match side {
            Side::Source => self.source = Some(endpoint),
            Side::Target => self.target = Some(endpoint),
        }
        Ok(())
    }

    /// A node that the file does not name.
    #[must_use]
    pub fn no_such_node(&self, node: &str) -> CliError {
        let known: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
        CliError::usage(format!(
            "the configuration file names no node {node:?}: it names {}",
            known.join(", ")
        ))
        .of_kind("no_such_node")
    }

    /// What a hand-over goes by.
    ///
    /// # Errors
    /// [`CliError::Usage`]: the pause is none.
    pub fn handover(
        &self,
        max_pause: Option<jiff::SignedDuration>,
        salvage: Option<PathBuf>,
    ) -> Result<HandoverSettings, CliError> {
        let max_pause = match max_pause.or(self.handover.max_pause) {
            None => DEFAULT_MAX_PAUSE,
            Some(given) => Duration::try_from(given)
                .ok()
                .filter(|limit| *limit >= Duration::from_millis(100))
                .ok_or_else(|| CliError::usage(format!("max pause is {given:#}: expected at least 100ms")))?,
        };
        let salvage = salvage.or_else(|| self.handover.salvage.clone()).unwrap_or_else(|| PathBuf::from("."));
        let hooks =
            Hooks { on_fence: self.hooks.on_fence.clone(), on_promote: self.hooks.on_promote.clone() };
        let armed_wal_bytes = self.handover.armed_wal.map_or(DEFAULT_ARMED_WAL_BYTES, |size| size.as_u64());
        Ok(HandoverSettings { max_pause, salvage, hooks, armed_wal_bytes })
    }
}

fn info(node: &str, endpoint: &Endpoint) -> Result<ConnInfo, CliError> {
    let info: ConnInfo = endpoint
        .url
        .parse()
        .map_err(|error| CliError::usage(format!("node {node}'s connection string: {error}")))?;
    Ok(match &endpoint.password_file {
        None => info,
        Some(path) => info.with_password_file(path),
    })
}
