//! What lies around a flow, in the words of the board: the databases that take part, slots, hand-overs.

use relevo_connect::ConnInfo;
use relevo_handover::HandoverRecord;
use relevo_model::Side;
use relevo_source::SlotInfo;
use relevo_telemetry::{HandoverStatus, Heard, NodeSight, Role, SlotStatus};

use crate::output;

/// Where a database is, without who connects to it, and without a secret.
pub fn place(info: &ConnInfo) -> String {
    let hosts: Vec<String> = info.hosts().iter().map(ToString::to_string).collect();
    format!("{}/{}", hosts.join(","), info.database())
}

/// The two databases of a flow between no nodes.
pub fn ends(source: &ConnInfo, target: &ConnInfo) -> Vec<NodeSight> {
    let end = |side: Side, info: &ConnInfo| NodeSight {
        name: side.to_string(),
        place: place(info),
        role: Some(match side {
            Side::Source => Role::Primary,
            Side::Target => Role::Standby,
        }),
        epoch: None,
        here: false,
        source: (side == Side::Target).then(|| Side::Source.to_string()),
        heard: Heard::Side(side),
        reader: None,
    };
    vec![end(Side::Source, source), end(Side::Target, target)]
}

/// A slot, as the source describes it.
pub fn slot(name: &str, slot: &SlotInfo) -> SlotStatus {
    SlotStatus {
        name: name.to_owned(),
        wal_status: slot.wal_status.clone(),
        retained_bytes: slot.retained_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        safe_bytes: slot.safe_wal_bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
    }
}

/// A hand-over, as a database remembers it.
pub fn handover(record: &HandoverRecord) -> HandoverStatus {
    HandoverStatus {
        id: record.id.clone(),
        kind: record.kind.as_str().to_owned(),
        state: record.state.as_str().to_owned(),
        epoch: record.epoch,
        from: record.from.clone(),
        to: record.to.clone(),
        requested_by: record.requested_by.clone(),
        started_at: output::time(record.started_at),
        ended_at: record.ended_at.map(output::time),
        pause_ms: record.pause_ms,
        loss: record.loss.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_where_and_not_who_nor_any_secret() {
        let info: ConnInfo = "postgres://relevo:secret@db-a:5433,db-b/shop".parse().unwrap();
        assert_eq!(place(&info), "db-a:5433,db-b:5432/shop");
        let sights = ends(&info, &"postgres://u@h/d".parse().unwrap());
        assert_eq!((&*sights[0].name, sights[0].source.as_deref()), ("source", None));
        assert_eq!((&*sights[1].name, sights[1].source.as_deref()), ("target", Some("source")));
        assert_eq!(sights[1].place, "h:5432/d");
    }
}
