//! A link of its own from everyone who asks to every server, so that any of them can be lost without the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::nodes::Nodes;
use crate::proxy::Proxy;

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It works.
    Open,
    /// Whoever connects is refused, and what was open is reset.
    Cut,
    /// What is sent is swallowed, as by a firewall.
    Silent,
}

#[derive(Debug)]
struct Link {
    proxy: Proxy,
    state: AtomicU8,
}

/// The links, by who asks and whom.
#[derive(Debug)]
pub struct Links {
    links: BTreeMap<(String, String), Link>,
}

impl Links {
    /// A working link from everyone to every node, and a configuration file for each of them that leads through his links.
    pub async fn start(nodes: &Nodes, askers: &[&str], more: &str) -> Self {
        let mut links = BTreeMap::new();
        for asker in askers {
            for node in nodes.names() {
                let proxy = Proxy::start(nodes.node(node).port()).await;
                let link = Link { proxy, state: AtomicU8::new(State::Open as u8) };
                links.insert(((*asker).to_owned(), node.to_owned()), link);
            }
        }
        let links = Self { links };
        for asker in askers {
            let text = nodes.config_text(|node, _| links.link(asker, node).proxy.port(), more);
            std::fs::write(nodes.config_of(asker), text).expect("a configuration file");
        }
        links
    }

    fn link(&self, asker: &str, node: &str) -> &Link {
        &self.links[&(asker.to_owned(), node.to_owned())]
    }

    /// Everyone who asks, and whom.
    pub fn ends(&self) -> impl Iterator<Item = (&str, &str)> {
        self.links.keys().map(|(asker, node)| (asker.as_str(), node.as_str()))
    }

    /// Makes a link so.
    pub async fn set(&self, asker: &str, node: &str, state: State) {
        let Link { proxy, state: known } = self.link(asker, node);
        let before = known.swap(state as u8, Ordering::SeqCst);
        if before == state as u8 {
            return;
        }
        if before == State::Cut as u8 {
            proxy.accept().await;
        }
        proxy.resume();
        match state {
            State::Open => {}
            State::Cut => proxy.refuse().await,
            State::Silent => proxy.stall_both(),
        }
    }

    /// Makes all links work.
    pub async fn heal(&self) {
        for (asker, node) in self.ends() {
            self.set(asker, node, State::Open).await;
        }
    }
}
