//! What the source says of a replication slot, over an ordinary session or over the replication connection.
//!
//! What may not enter: whether the flow may go on from it (see `verdict`).

use std::fmt;

use relevo_model::SourceLsn;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{SourceError, sql};

/// A row of `pg_replication_slots` (manual, *pg_replication_slots*), with who holds the slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotInfo {
    /// A logical slot, not a physical one.
    pub logical: bool,
    /// The output plugin; `None` for physical slots.
    pub plugin: Option<String>,
    /// The database; `None` for physical slots.
    pub database: Option<String>,
    /// It vanishes with the session that made it.
    pub temporary: bool,
    /// Somebody streams from it now.
    pub active: bool,
    /// Who.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`; `None` when the slot has no WAL reserved.
    pub wal_status: Option<String>,
    /// How many more bytes of WAL may be written before the slot may be lost; `None`: no limit is set.
    pub safe_wal_bytes: Option<i64>,
    /// The oldest WAL that the slot keeps.
    pub restart_lsn: Option<SourceLsn>,
    /// Up to where its consumer has confirmed. What was committed before is not sent again.
    pub confirmed_flush_lsn: Option<SourceLsn>,
    /// Why the slot was invalidated (PostgreSQL 17 and later).
    pub invalidation_reason: Option<String>,
    /// Invalidated by a conflict with recovery on a standby (PostgreSQL 16 and later).
    pub conflicting: Option<bool>,
    /// Prepared transactions are sent when they are prepared.
    pub two_phase: bool,
    /// Kept on the standbys for a failover (PostgreSQL 17 and later).
    pub failover: Option<bool>,
    /// It is the standby's copy of such a slot (PostgreSQL 17 and later).
    pub synced: Option<bool>,
    /// How many bytes of WAL the server keeps for the slot.
    pub retained_bytes: Option<i64>,
    /// Where the server's WAL ended when this was read.
    pub current_lsn: Option<SourceLsn>,
    /// Who streams from it, as far as the role may see it.
    pub holder: Option<SlotHolder>,
}

/// Who streams from a slot (`pg_stat_activity`); what another role may not see is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotHolder {
    /// The `application_name` of its connection.
    pub application_name: String,
    /// The address of its client; empty for a Unix socket.
    pub client_address: String,
    /// When it connected, as the server writes it.
    pub since: String,
    /// Its role.
    pub role: String,
}

impl fmt::Display for SlotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        write!(
            f,
            "(application {}, role {}, from {}, since {})",
            or(&self.application_name, "unknown"),
            or(&self.role, "unknown"),
            or(&self.client_address, "a local socket"),
            or(&self.since, "unknown")
        )
    }
}

impl SlotInfo {
    /// Why the slot can no longer be read, if so, in the server's words.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        if let Some(reason) = &self.invalidation_reason {
            return Some(reason.clone());
        }
        if self.wal_status.as_deref() == Some("lost") {
            return Some("wal_status is lost: max_slot_wal_keep_size was exceeded".to_owned());
        }
        if self.conflicting == Some(true) {
            return Some("it conflicted with recovery".to_owned());
        }
        None
    }

    /// From the columns of [`sql::inspect_slot`] in text form.
    pub(crate) fn from_columns<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, SourceError> {
        let text = |name: &str| get(name).map(str::to_owned);
        let truth = |name: &str| get(name).map(|value| matches!(value, "t" | "true"));
        Ok(Self {
            logical: truth("logical").unwrap_or_default(),
            plugin: text("plugin"),
            database: text("database"),
            temporary: truth("temporary").unwrap_or_default(),
            active: truth("active").unwrap_or_default(),
            active_pid: parsed("active_pid", &get)?,
            wal_status: text("wal_status"),
            safe_wal_bytes: parsed("safe_wal_size", &get)?,
            restart_lsn: parsed("restart_lsn", &get)?,
            confirmed_flush_lsn: parsed("confirmed_flush_lsn", &get)?,
            invalidation_reason: text("invalidation_reason"),
            conflicting: truth("conflicting"),
            two_phase: truth("two_phase").unwrap_or_default(),
            failover: truth("failover"),
            synced: truth("synced"),
            retained_bytes: parsed("retained_bytes", &get)?,
            current_lsn: parsed("current_lsn", &get)?,
            holder: get("active_pid").map(|_| SlotHolder {
                application_name: text("holder_application").unwrap_or_default(),
                client_address: text("holder_address").unwrap_or_default(),
                since: text("holder_since").unwrap_or_default(),
                role: text("holder_role").unwrap_or_default(),
            }),
        })
    }
}

fn parsed<'a, T: std::str::FromStr>(
    name: &str,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<T>, SourceError> {
    let Some(text) = get(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        SourceError::protocol(format!(
            "column {name} of pg_replication_slots holds {text:?}, which cannot be read"
        ))
    })
}

/// Looks at a slot over an ordinary session; `None`: there is no slot of that name.
///
/// # Errors
/// The query fails.
pub async fn inspect_slot(client: &Client, name: &str) -> Result<Option<SlotInfo>, SourceError> {
    let messages = client
        .simple_query(&sql::inspect_slot(name))
        .await
        .map_err(|error| SourceError::sql(format!("looking at slot {name:?}"), error))?;
    for message in &messages {
        if let SimpleQueryMessage::Row(row) = message {
            return SlotInfo::from_columns(|column| row.try_get(column).ok().flatten()).map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_a_version_does_not_have_are_unknown() {
        let info = SlotInfo::from_columns(|name| match name {
            "logical" | "active" => Some("t"),
            "plugin" => Some("pgoutput"),
            "active_pid" => Some("42"),
            "restart_lsn" => Some("0/10"),
            "confirmed_flush_lsn" => Some("1/0"),
            "retained_bytes" => Some("77"),
            "holder_application" => Some("relevo_shop"),
            _ => None,
        })
        .unwrap();
        assert!(info.logical && info.active);
        assert_eq!(info.confirmed_flush_lsn, Some(SourceLsn::new(1 << 32)));
        assert_eq!((info.active_pid, info.retained_bytes), (Some(42), Some(77)));
        assert_eq!((info.conflicting, info.lost()), (None, None));
        let holder = info.holder.unwrap().to_string();
        assert_eq!(holder, "(application relevo_shop, role unknown, from a local socket, since unknown)");
    }

    #[test]
    fn a_value_that_cannot_be_read_is_an_error() {
        SlotInfo::from_columns(|name| (name == "restart_lsn").then_some("here")).unwrap_err();
    }
}
