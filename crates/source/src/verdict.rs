//! May the flow go on from this slot on this source? Pure decisions over what was observed.
//!
//! What may not enter: how it is observed (see `slot`). Whatever would lose or repeat changes is refused with the
//! reason and the remedy, never skipped over.

use relevo_model::{SourceIdentity, SourceLsn};

use crate::connection::SystemIdentity;
use crate::slot::SlotInfo;

/// The output plugin that Relevo reads.
pub const PLUGIN: &str = "pgoutput";

/// The way out when changes are lost or positions mean nothing.
pub(crate) const ANEW: &str = "copy the tables anew: relevo reset, then relevo run";

/// Why going on would lose or repeat changes, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The slot does not exist although the flow has made progress.
    #[error(
        "slot {slot:?} does not exist on the source, but the flow has already applied changes from it: whatever was \
         changed since is lost to the flow; {ANEW}"
    )]
    SlotMissing {
        /// The slot.
        slot: String,
    },
    /// The slot has lost WAL that it needs.
    #[error(
        "slot {slot:?} is lost ({reason}): the source has thrown away changes that the target still needs; give \
         slots more room (max_slot_wal_keep_size, idle_replication_slot_timeout), and {ANEW}"
    )]
    SlotLost {
        /// The slot.
        slot: String,
        /// What the server says of it.
        reason: String,
    },
    /// The slot is a physical one.
    #[error(
        "slot {slot:?} is a physical replication slot, and Relevo needs a logical one: choose another name for the \
         flow, or drop the slot if nobody uses it"
    )]
    SlotPhysical {
        /// The slot.
        slot: String,
    },
    /// The slot has another output plugin.
    #[error(
        "slot {slot:?} has output plugin {plugin:?}, and Relevo reads {PLUGIN:?}: it belongs to another tool; choose \
         another name for the flow, or drop the slot if nobody uses it"
    )]
    SlotPlugin {
        /// The slot.
        slot: String,
        /// Its plugin.
        plugin: String,
    },
    /// The slot is in another database.
    #[error(
        "slot {slot:?} is in database {found:?}, and the flow reads database {expected:?}: slot names are unique in the \
         whole server; choose another name for the flow"
    )]
    SlotDatabase {
        /// The slot.
        slot: String,
        /// The slot's database.
        found: String,
        /// The flow's database.
        expected: String,
    },
    /// The slot vanishes with the session that made it.
    #[error(
        "slot {slot:?} is temporary: it vanishes with the session that made it, so a flow cannot rest on it; choose \
         another name for the flow, or end that session"
    )]
    SlotTemporary {
        /// The slot.
        slot: String,
    },
    /// The slot hands transactions out when they are prepared, before anyone knows whether they commit.
    #[error(
        "slot {slot:?} was created with two_phase, which hands out transactions before they commit; Relevo creates its \
         slots without: drop the slot, and {ANEW}"
    )]
    SlotTwoPhase {
        /// The slot.
        slot: String,
    },
    /// The target is older than what the slot has been told.
    #[error(
        "the target has applied everything up to {applied}, but slot {slot:?} was told {confirmed} and has forgotten what \
         lies between ({} bytes of WAL): the target was restored to an older state, or something else has read \
         the slot; {ANEW}", .confirmed.bytes_since(*.applied)
    )]
    TargetBehindSlot {
        /// The slot.
        slot: String,
        /// What the target has.
        applied: SourceLsn,
        /// What the slot was told.
        confirmed: SourceLsn,
    },
    /// The source is older than what the target has.
    #[error(
        "the target has applied everything up to {applied}, but the source's WAL ends at {current}: the source was \
         restored to an older state, and the target holds transactions that it has forgotten; {ANEW}"
    )]
    SourceBehindTarget {
        /// What the target has.
        applied: SourceLsn,
        /// Where the source's flushed WAL ends.
        current: SourceLsn,
    },
    /// Another cluster answers.
    #[error(
        "the source is another server than the one that the flow began on (system identifier {found}, recorded \
         {expected}): its positions mean nothing to this flow; point the source URL to the right server, or, \
         if this one is right now, {ANEW}"
    )]
    OtherSystem {
        /// The recorded identifier.
        expected: String,
        /// The one that answered.
        found: String,
    },
    /// The server is on another timeline.
    #[error(
        "the source is on timeline {found}, and the flow began on timeline {expected}: a standby was promoted or the \
         server was restored to an earlier time, so its WAL has parted from what the target has applied; point the \
         source URL to the server that is still on timeline {expected}, or, if this one is right now, {ANEW}"
    )]
    OtherTimeline {
        /// The recorded timeline.
        expected: u32,
        /// The one that answered.
        found: u32,
    },
    /// Another database answers.
    #[error(
        "the source URL names database {found:?}, and the flow began on database {expected:?}: correct the URL, or, if \
         this one is right now, {ANEW}"
    )]
    OtherDatabase {
        /// The recorded database.
        expected: String,
        /// The one that answered.
        found: String,
    },
}

impl Refusal {
    /// The `kind` label of `relevo_errors_total`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SlotMissing { .. } => "slot_missing",
            Self::SlotLost { .. } => "slot_lost",
            Self::SlotPhysical { .. }
            | Self::SlotPlugin { .. }
            | Self::SlotDatabase { .. }
            | Self::SlotTemporary { .. }
            | Self::SlotTwoPhase { .. } => "slot_foreign",
            Self::TargetBehindSlot { .. } => "target_behind_slot",
            Self::SourceBehindTarget { .. } => "source_behind_target",
            Self::OtherSystem { .. } | Self::OtherTimeline { .. } | Self::OtherDatabase { .. } => {
                "source_identity"
            }
        }
    }
}

/// What the flow expects of its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedSlot {
    /// The slot's name.
    pub name: String,
    /// The source database.
    pub database: String,
    /// The flow's progress; `None` before there is any, when a slot may be missing and its position does not matter.
    pub applied: Option<SourceLsn>,
}

/// Whether the flow may go on from the slot as it was found (`None`: there is none).
///
/// # Errors
/// The reason and the remedy.
pub fn verdict(found: Option<&SlotInfo>, expected: &ExpectedSlot) -> Result<(), Refusal> {
    let slot = || expected.name.clone();
    let Some(info) = found else {
        return match expected.applied {
            Some(_) => Err(Refusal::SlotMissing { slot: slot() }),
            None => Ok(()),
        };
    };
    if !info.logical {
        return Err(Refusal::SlotPhysical { slot: slot() });
    }
    if info.plugin.as_deref() != Some(PLUGIN) {
        return Err(Refusal::SlotPlugin { slot: slot(), plugin: info.plugin.clone().unwrap_or_default() });
    }
    if info.database.as_deref() != Some(expected.database.as_str()) {
        return Err(Refusal::SlotDatabase {
            slot: slot(),
            found: info.database.clone().unwrap_or_default(),
            expected: expected.database.clone(),
        });
    }
    if info.temporary {
        return Err(Refusal::SlotTemporary { slot: slot() });
    }
    if info.two_phase {
        return Err(Refusal::SlotTwoPhase { slot: slot() });
    }
    if let Some(reason) = info.lost() {
        return Err(Refusal::SlotLost { slot: slot(), reason });
    }
    match (expected.applied, info.confirmed_flush_lsn) {
        (Some(applied), Some(confirmed)) if confirmed > applied => {
            Err(Refusal::TargetBehindSlot { slot: slot(), applied, confirmed })
        }
        _ => Ok(()),
    }
}

/// Whether the server that answers is the one that the flow began on.
///
/// # Errors
/// The reason and the remedy.
pub fn same_source(expected: &SourceIdentity, found: &SystemIdentity) -> Result<(), Refusal> {
    if expected.system_id != found.system_id {
        return Err(Refusal::OtherSystem {
            expected: expected.system_id.clone(),
            found: found.system_id.clone(),
        });
    }
    if expected.timeline != found.timeline {
        return Err(Refusal::OtherTimeline { expected: expected.timeline, found: found.timeline });
    }
    if expected.database != found.database {
        return Err(Refusal::OtherDatabase {
            expected: expected.database.clone(),
            found: found.database.clone(),
        });
    }
    Ok(())
}

/// Whether the source still has everything that the target has applied.
///
/// A logical walsender sends only what is flushed, so nothing that the target has lies beyond the end of the
/// source's flushed WAL, unless the source was restored.
///
/// # Errors
/// The reason and the remedy.
pub fn source_has(applied: SourceLsn, found: &SystemIdentity) -> Result<(), Refusal> {
    if applied > found.current_lsn {
        return Err(Refusal::SourceBehindTarget { applied, current: found.current_lsn });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> SlotInfo {
        SlotInfo {
            logical: true,
            plugin: Some(PLUGIN.into()),
            database: Some("shop".into()),
            wal_status: Some("reserved".into()),
            restart_lsn: Some(SourceLsn::new(50)),
            confirmed_flush_lsn: Some(SourceLsn::new(100)),
            ..SlotInfo::default()
        }
    }

    fn expected(applied: Option<u64>) -> ExpectedSlot {
        ExpectedSlot {
            name: "relevo_shop".into(),
            database: "shop".into(),
            applied: applied.map(SourceLsn::new),
        }
    }

    fn kind_of(info: &SlotInfo) -> &'static str {
        verdict(Some(info), &expected(Some(100))).unwrap_err().kind()
    }

    #[test]
    fn a_slot_in_good_order_is_accepted() {
        verdict(Some(&slot()), &expected(Some(100))).unwrap();
        verdict(Some(&slot()), &expected(Some(101))).unwrap();
        verdict(Some(&slot()), &expected(None)).unwrap();
    }

    #[test]
    fn a_missing_slot_matters_only_once_there_is_progress() {
        verdict(None, &expected(None)).unwrap();
        let refusal = verdict(None, &expected(Some(1))).unwrap_err();
        assert_eq!(refusal, Refusal::SlotMissing { slot: "relevo_shop".into() });
    }

    #[test]
    fn a_restored_target_is_found_out() {
        let refusal = verdict(Some(&slot()), &expected(Some(99))).unwrap_err();
        assert!(matches!(refusal, Refusal::TargetBehindSlot { .. }));
        assert!(refusal.to_string().contains("(1 bytes of WAL)"), "{refusal}");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        assert_eq!(kind_of(&SlotInfo { logical: false, plugin: None, ..slot() }), "slot_foreign");
        assert_eq!(kind_of(&SlotInfo { plugin: Some("wal2json".into()), ..slot() }), "slot_foreign");
        assert_eq!(kind_of(&SlotInfo { database: Some("other".into()), ..slot() }), "slot_foreign");
        assert_eq!(kind_of(&SlotInfo { temporary: true, ..slot() }), "slot_foreign");
        assert_eq!(kind_of(&SlotInfo { two_phase: true, ..slot() }), "slot_foreign");
    }

    #[test]
    fn a_lost_slot_is_refused_with_the_servers_reason() {
        assert_eq!(kind_of(&SlotInfo { wal_status: Some("lost".into()), ..slot() }), "slot_lost");
        assert_eq!(kind_of(&SlotInfo { conflicting: Some(true), ..slot() }), "slot_lost");
        let invalidated = SlotInfo { invalidation_reason: Some("idle_timeout".into()), ..slot() };
        let refusal = verdict(Some(&invalidated), &expected(None)).unwrap_err();
        assert!(refusal.to_string().contains("idle_timeout"), "{refusal}");
        // "unreserved" is a warning that the next checkpoint may lose it; the slot still works.
        verdict(Some(&SlotInfo { wal_status: Some("unreserved".into()), ..slot() }), &expected(Some(100)))
            .unwrap();
    }

    #[test]
    fn another_source_is_refused() {
        let recorded = SourceIdentity { system_id: "7".into(), timeline: 1, database: "shop".into() };
        let found = SystemIdentity {
            system_id: "7".into(),
            timeline: 1,
            current_lsn: SourceLsn::new(9),
            database: "shop".into(),
        };
        same_source(&recorded, &found).unwrap();
        source_has(SourceLsn::new(9), &found).unwrap();
        assert!(matches!(source_has(SourceLsn::new(10), &found), Err(Refusal::SourceBehindTarget { .. })));
        let other = SystemIdentity { system_id: "8".into(), ..found.clone() };
        assert!(matches!(same_source(&recorded, &other), Err(Refusal::OtherSystem { .. })));
        let other = SystemIdentity { timeline: 2, ..found.clone() };
        assert!(matches!(same_source(&recorded, &other), Err(Refusal::OtherTimeline { .. })));
        let other = SystemIdentity { database: "x".into(), ..found };
        assert!(matches!(same_source(&recorded, &other), Err(Refusal::OtherDatabase { .. })));
    }
}
