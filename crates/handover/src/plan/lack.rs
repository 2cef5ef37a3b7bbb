//! Which standbys may get from a new primary what they lack. Pure.

use relevo_state::{HandoverKind, HandoverRecord, HandoverState};

use crate::Seen;

/// Whether a standby was behind the new primary when that took the role at a failover, so that it may get what it lacks from
/// the slot that was armed for it. `lead`: what the new primary says of itself; `handover`: the one by which it got the role.
#[must_use]
pub(crate) fn may_lack(node: &str, seen: &Seen, lead: &Seen, handover: &HandoverRecord) -> bool {
    let Some(old_lsn) = handover.old_lsn.filter(|_| handover.kind == HandoverKind::Failover) else {
        return false;
    };
    let Some(record) = seen.record.as_ref().filter(|record| record.primary != node) else { return false };
    // Since when the old primary had the role. Whoever follows it from an earlier time has missed a hand-over.
    let gave = |known: &&HandoverRecord| known.new_lsn.is_some() || known.kind == HandoverKind::Init;
    let known = lead.handovers.iter().filter(|known| known.epoch < handover.epoch).filter(gave);
    let Some(since) = known.map(|known| known.epoch).max() else { return false };
    let rejoins = |known: &HandoverRecord| {
        known.kind == HandoverKind::Rejoin && known.state == HandoverState::Running && known.to == node
    };
    (since..handover.epoch).contains(&record.epoch)
        && handover.from.as_deref() == Some(record.primary.as_str())
        && !seen.handovers.iter().any(rejoins)
        && seen.flow.as_ref().is_some_and(|flow| {
            Some(&flow.source.system_id) == handover.old_system_id.as_ref()
                && flow.complete
                // What it has that the new primary has not cannot be taken back by a stream.
                && flow.commit_lsn.map_or(flow.applied <= old_lsn, |commit| commit < old_lsn)
        })
}

/// Whether a standby that has followed `lead` since an earlier epoch holds what that one held when it lost the role, or less: then
/// what came to it from others, until it got the role again, can still come from it. What the standby has passed over is lost to it.
#[must_use]
pub(crate) fn may_go_on(seen: &Seen, lead: &Seen, slot: &str) -> bool {
    let (Some(own), Some(record)) = (&seen.record, &lead.record) else { return false };
    let lost = |known: &&HandoverRecord| {
        known.new_lsn.is_some()
            && known.epoch > own.epoch
            && known.from.as_deref() == Some(record.name.as_str())
    };
    let Some(left) = lead.handovers.iter().filter(lost).min_by_key(|known| known.epoch) else { return true };
    let (Some(flow), Some(confirmed)) = (&seen.flow, lead.slots.get(slot)) else { return false };
    left.old_system_id.as_ref() == Some(&lead.identity.system_id)
        && left.old_lsn.is_some_and(|old_lsn| flow.applied <= old_lsn)
        && *confirmed <= flow.applied
}

#[cfg(test)]
mod tests {
    use relevo_model::{SourceLsn, Timestamp};

    use super::super::tests::{flow, identity, record, seen};
    use super::*;

    fn handover(kind: HandoverKind, epoch: u64, new_lsn: Option<u64>) -> HandoverRecord {
        HandoverRecord {
            state: HandoverState::Done,
            old_lsn: Some(SourceLsn::new(950)),
            old_system_id: Some(identity("a").system_id),
            new_lsn: new_lsn.map(SourceLsn::new),
            ..HandoverRecord::begun(kind, epoch, (Some("a"), "b"), ("test", Timestamp::default()))
        }
    }

    /// Node c follows a, and b has taken over from it in epoch 2.
    fn lacks(change: impl FnOnce(&mut Seen, &mut Seen, &mut HandoverRecord)) -> bool {
        let mut c = seen("c", record("c", 1, "a", true), Some(flow("a", 900)));
        let mut lead = seen("b", record("b", 2, "b", false), None);
        let mut by_which = handover(HandoverKind::Failover, 2, Some(5000));
        lead.handovers = vec![by_which.clone(), handover(HandoverKind::Init, 1, None)];
        change(&mut c, &mut lead, &mut by_which);
        may_lack("c", &c, &lead, &by_which)
    }

    /// Node c has followed a since epoch 1; b had the role in epoch 2, and a has it again since epoch 4.
    #[test]
    fn a_standby_goes_on_with_a_primary_that_had_lost_the_role_unless_it_has_passed_something_over() {
        let goes_on = |applied: u64, confirmed: u64, epoch: u64| {
            let c = seen("c", record("c", epoch, "a", true), Some(flow("a", applied)));
            let mut lead = seen("a", record("a", 4, "a", false), None);
            let back = (Some("b"), "a");
            let back =
                HandoverRecord::begun(HandoverKind::Switchover, 4, back, ("test", Timestamp::default()));
            lead.handovers = vec![
                HandoverRecord { new_lsn: Some(SourceLsn::new(2000)), ..back },
                handover(HandoverKind::Switchover, 2, Some(5000)),
            ];
            lead.slots.insert("relevo_shop_c".to_owned(), SourceLsn::new(confirmed));
            may_go_on(&c, &lead, "relevo_shop_c")
        };
        assert!(goes_on(900, 900, 1) && goes_on(950, 100, 1));
        assert!(!goes_on(951, 900, 1), "it has read on");
        assert!(!goes_on(900, 901, 1), "the slot begins later");
        assert!(goes_on(2500, 2500, 4), "it knows");
    }

    #[test]
    fn a_standby_that_has_less_of_the_same_primary_may_get_what_it_lacks() {
        assert!(lacks(|_, _, _| {}));
        assert!(!lacks(|_, _, handover| handover.kind = HandoverKind::Switchover));
        assert!(!lacks(|c, _, _| c.flow.as_mut().unwrap().source.system_id = "x".to_owned()));
        assert!(!lacks(|c, _, _| c.flow.as_mut().unwrap().complete = false));
    }

    #[test]
    fn a_standby_that_has_more_may_not() {
        let has = |applied, commit: Option<u64>| {
            lacks(|c, _, _| {
                let flow = c.flow.as_mut().unwrap();
                flow.applied = SourceLsn::new(applied);
                flow.commit_lsn = commit.map(SourceLsn::new);
            })
        };
        assert!(has(960, Some(940)), "only the position of a keepalive is further on");
        assert!(!has(960, Some(950)));
        assert!(has(950, None));
        assert!(!has(951, None), "what it has since it follows this primary is not known");
    }

    #[test]
    fn a_standby_that_has_missed_a_hand_over_or_is_rejoining_may_not() {
        let again = |c: &mut Seen, lead: &mut Seen, handover_: &mut HandoverRecord| {
            // The old primary had the role in epoch 1 and again since epoch 4.
            lead.handovers
                .push(HandoverRecord { epoch: 4, ..handover(HandoverKind::Switchover, 4, Some(1)) });
            handover_.epoch = 5;
            c.record.as_mut().unwrap().epoch = 1;
        };
        assert!(!lacks(again));
        assert!(lacks(|c, lead, handover| {
            again(c, lead, handover);
            c.record.as_mut().unwrap().epoch = 4;
        }));
        assert!(
            !lacks(|_, lead, _| lead.handovers.clear()),
            "nobody knows since when the old one had the role"
        );
        assert!(!lacks(|c, _, _| {
            let begun = (Some("c"), "c");
            c.handovers =
                vec![HandoverRecord::begun(HandoverKind::Rejoin, 1, begun, ("test", Timestamp::default()))];
        }));
        assert!(!lacks(|c, _, _| c.record.as_mut().unwrap().primary = "c".to_owned()));
    }
}
