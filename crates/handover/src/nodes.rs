//! The nodes of a configuration file. The same file lies beside every one of them.

use std::collections::BTreeMap;
use std::fmt;

use relevo_catalog::Selection;
use relevo_connect::ConnInfo;
use relevo_model::FlowName;

/// One node.
#[derive(Debug, Clone)]
pub struct NodeConf {
    /// How its database is reached.
    pub info: ConnInfo,
}

/// All nodes, and what their flows have in common.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The name that slots, publications and progress begin with.
    pub name: String,
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeConf>,
    /// The tables that take part.
    pub selection: Selection,
    /// Partitioned tables travel as whole tables.
    pub via_partition_root: bool,
}

/// A name that no node can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNameError {
    name: String,
}

impl fmt::Display for NodeNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name } = self;
        write!(
            f,
            "{name:?} cannot name a node of this cluster: expected lower-case letters, digits or underscores, and at most \
             {} characters together with the cluster's name",
            FlowName::MAX_LEN - 1
        )
    }
}

impl std::error::Error for NodeNameError {}

impl Cluster {
    /// Checks that every node gives a flow its name.
    ///
    /// # Errors
    /// [`NodeNameError`] for the first that does not.
    pub fn new(
        name: String,
        nodes: BTreeMap<String, NodeConf>,
        selection: Selection,
        via_partition_root: bool,
    ) -> Result<Self, NodeNameError> {
        for node in nodes.keys() {
            let flow = format!("{name}_{node}").parse::<FlowName>();
            if node.is_empty() || flow.is_err() {
                return Err(NodeNameError { name: node.clone() });
            }
        }
        Ok(Self { name, nodes, selection, via_partition_root })
    }

    /// The flow into a node. It keeps its name whoever the primary is, so its slot and publications have that name on
    /// every node that it may read from.
    ///
    /// # Errors
    /// [`NodeNameError`]: there can be no such node.
    pub fn flow_into(&self, node: &str) -> Result<FlowName, NodeNameError> {
        format!("{}_{node}", self.name).parse().map_err(|_| NodeNameError { name: node.to_owned() })
    }

    /// The nodes but one.
    pub fn others<'c>(&'c self, node: &'c str) -> impl Iterator<Item = &'c str> {
        self.nodes.keys().map(String::as_str).filter(move |other| *other != node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_named_after_the_cluster_and_the_node_that_it_leads_into() {
        let conf = NodeConf { info: "postgres://u@h/d".parse().unwrap() };
        let nodes = |name: &str| BTreeMap::from([(name.to_owned(), conf.clone())]);
        let of = |name: &str| Cluster::new("shop".to_owned(), nodes(name), Selection::default(), false);
        assert_eq!(of("b").unwrap().flow_into("b").unwrap().slot(), "relevo_shop_b");
        for wrong in ["", "B", "a-b", &"x".repeat(44)] {
            assert!(of(wrong).unwrap_err().to_string().contains("cannot name a node"), "{wrong}");
        }
    }
}
