//! What the source must offer before a flow can begin: settings, free slots and senders, the role's right.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{SourceError, sql};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// `server_version_num`, such as 150018.
    pub server_version_num: u32,
    /// The setting `wal_level`.
    pub wal_level: String,
    /// The setting `max_replication_slots`.
    pub max_slots: u32,
    /// Slots that exist.
    pub used_slots: u32,
    /// The setting `max_wal_senders`.
    pub max_senders: u32,
    /// Walsenders that run.
    pub used_senders: u32,
    /// The role of the session.
    pub role: String,
    /// The role has REPLICATION.
    pub may_replicate: bool,
    /// The role is a superuser.
    pub superuser: bool,
    /// The server is a standby.
    pub in_recovery: bool,
}

/// One thing that is in the way of a flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// `wal_level` is not `logical`.
    #[error(
        "wal_level is {found} on the source, expected logical: ALTER SYSTEM SET wal_level = logical, then restart it"
    )]
    WalLevel {
        /// The setting.
        found: String,
    },
    /// No slot is free.
    #[error(
        "all {max} replication slots of the source are in use: raise max_replication_slots (needs a restart), or drop \
         slots that nobody uses (SELECT slot_name, active FROM pg_replication_slots)"
    )]
    NoSlotLeft {
        /// The setting.
        max: u32,
    },
    /// No walsender is free.
    #[error("all {max} WAL senders of the source are in use: raise max_wal_senders (needs a restart)")]
    NoSenderLeft {
        /// The setting.
        max: u32,
    },
    /// The role may not replicate.
    #[error(
        "role {role:?} may not replicate: ALTER ROLE \"{role}\" REPLICATION on the source, as a superuser"
    )]
    NoReplicationRight {
        /// The role.
        role: String,
    },
}

impl SourceFacts {
    /// How many slots can still be created.
    #[must_use]
    pub fn slots_left(&self) -> u32 {
        self.max_slots.saturating_sub(self.used_slots)
    }

    /// How many walsenders can still be started. Base backups and standbys need them too.
    #[must_use]
    pub fn senders_left(&self) -> u32 {
        self.max_senders.saturating_sub(self.used_senders)
    }

    /// Everything that is in the way. A flow that has its slot and its walsender already needs no more of them.
    #[must_use]
    pub fn obstacles(&self, has_slot: bool, is_streaming: bool) -> Vec<Obstacle> {
        let mut found = Vec::new();
        if self.wal_level != "logical" {
            found.push(Obstacle::WalLevel { found: self.wal_level.clone() });
        }
        if !self.may_replicate && !self.superuser {
            found.push(Obstacle::NoReplicationRight { role: self.role.clone() });
        }
        if !has_slot && self.slots_left() == 0 {
            found.push(Obstacle::NoSlotLeft { max: self.max_slots });
        }
        if !is_streaming && self.senders_left() == 0 {
            found.push(Obstacle::NoSenderLeft { max: self.max_senders });
        }
        found
    }
}

/// Reads the facts over an ordinary session.
///
/// # Errors
/// The query fails.
pub async fn source_facts(client: &Client) -> Result<SourceFacts, SourceError> {
    const DOING: &str = "reading the source's settings";
    let messages =
        client.simple_query(sql::PREFLIGHT).await.map_err(|error| SourceError::sql(DOING, error))?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text = |column: &str| {
        row.and_then(|row| row.try_get(column).ok().flatten())
            .ok_or_else(|| SourceError::protocol(format!("{DOING} gave no {column}")))
    };
    let number = |column: &str| {
        let value = text(column)?;
        value.parse().map_err(|_| SourceError::protocol(format!("{DOING} gave {column} {value:?}")))
    };
    Ok(SourceFacts {
        server_version_num: number("server_version")?,
        wal_level: text("wal_level")?.to_owned(),
        max_slots: number("max_slots")?,
        used_slots: number("used_slots")?,
        max_senders: number("max_senders")?,
        used_senders: number("used_senders")?,
        role: text("role")?.to_owned(),
        may_replicate: text("may_replicate")? == "t",
        superuser: text("superuser")? == "t",
        in_recovery: text("in_recovery")? == "t",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> SourceFacts {
        SourceFacts {
            server_version_num: 150_018,
            wal_level: "logical".into(),
            max_slots: 10,
            used_slots: 10,
            max_senders: 10,
            used_senders: 10,
            role: "app".into(),
            may_replicate: true,
            superuser: false,
            in_recovery: false,
        }
    }

    #[test]
    fn a_flow_that_has_its_slot_needs_no_other() {
        assert_eq!(facts().obstacles(true, true), []);
        let found = facts().obstacles(false, false);
        assert_eq!(found, [Obstacle::NoSlotLeft { max: 10 }, Obstacle::NoSenderLeft { max: 10 }]);
    }

    #[test]
    fn wal_level_and_the_right_to_replicate_are_needed() {
        let facts = SourceFacts { wal_level: "replica".into(), may_replicate: false, ..facts() };
        let found: Vec<_> = facts.obstacles(true, true).iter().map(ToString::to_string).collect();
        assert!(found[0].contains("wal_level is replica") && found[1].contains("REPLICATION"), "{found:?}");
        assert_eq!(SourceFacts { superuser: true, ..facts }.obstacles(true, true).len(), 1);
    }
}
