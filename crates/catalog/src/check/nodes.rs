//! Verdicts for databases between which the role of the primary moves: each must be able to do what the other does now,
//! and to refuse writes.

use std::collections::BTreeMap;

use relevo_model::Side;
use tokio_postgres::Client;

use super::facts::replica_role_refused;
use super::{counted, listed, rights, servers};
use crate::error::{CatalogError, get, reading};
use crate::queries_check as queries;
use crate::{Finding, ServerFacts, Severity, TableName, quote_identifier};

/// What a hand-over asks of a node beside what its present side of the flow does.
#[derive(Debug, Clone)]
pub(super) struct NodeFacts {
    /// Who owns the database.
    pub(super) owner: String,
    pub(super) owner_superuser: bool,
    /// The role is the owner of the database, or a member of it.
    pub(super) owns: bool,
    /// Who could own the database when a superuser does: the owner of most tables.
    pub(super) better_owner: Option<String>,
    /// Tables that the role could not guard, with their owners and whether those are superusers.
    pub(super) unguarded: Vec<(TableName, String, bool)>,
    /// Why `session_replication_role` may not be set; `None` when it may.
    pub(super) replica_role_refused: Option<String>,
}

impl NodeFacts {
    async fn read(client: &Client) -> Result<Self, CatalogError> {
        let row = client.query_one(queries::DATABASE_OWNER, &[]).await;
        let row = row.map_err(reading("the database's owner"))?;
        let rows = client.query(queries::UNGUARDED, &[]).await;
        let rows = rows.map_err(reading("the tables' owners"))?;
        let table = |row| {
            let table = TableName { schema: get(row, "schema")?, name: get(row, "name")? };
            Ok((table, get(row, "owner")?, get(row, "owner_superuser")?))
        };
        Ok(Self {
            owner: get(&row, "owner")?,
            owner_superuser: get(&row, "superuser")?,
            owns: get(&row, "owns")?,
            better_owner: get(&row, "better")?,
            unguarded: rows.iter().map(table).collect::<Result<_, CatalogError>>()?,
            replica_role_refused: replica_role_refused(client).await?,
        })
    }
}

/// Examines two nodes for the day on which the standby (`target`) becomes the primary and the primary (`source`) a
/// standby. `found`: what [`super::check_both`] said of the flow between them; an error that stands there already is not
/// told again.
pub async fn check_nodes(
    source: (&Client, &ServerFacts),
    target: (&Client, &ServerFacts),
    found: &[Finding],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (side, (client, server)) in [(Side::Source, source), (Side::Target, target)] {
        match NodeFacts::read(client).await {
            Ok(facts) => findings.extend(verdicts(side, server, &facts)),
            Err(error) => findings.push(super::unreadable(side, &error)),
        }
    }
    let told = |finding: &Finding| {
        found.iter().any(|old| {
            old.check == finding.check && old.side == finding.side && old.severity == Severity::Error
        })
    };
    findings.retain(|finding| !told(finding));
    findings
}

pub(super) fn verdicts(side: Side, server: &ServerFacts, facts: &NodeFacts) -> Vec<Finding> {
    let mut findings = match side {
        Side::Source => vec![rights::replica_role(side, server, facts.replica_role_refused.as_deref())],
        // It has no slot for the other node yet.
        Side::Target => vec![
            rights::replication(side, server),
            servers::wal_level(side, server),
            servers::replication_slots(side, server, false),
            servers::wal_senders(side, server, false),
        ],
    };
    findings.push(publish(side, server));
    findings.push(database_owner(side, server, facts));
    findings.extend(guard(side, server, facts));
    findings
}

/// A hand-over makes publications on the node that gets the role.
fn publish(side: Side, server: &ServerFacts) -> Finding {
    const CHECK: &str = "create_right";
    let (role, database) = (quote_identifier(&server.role), quote_identifier(&server.database));
    if server.create_on_database {
        return Finding::ok(CHECK, side, format!("role {role} may create publications at a hand-over"));
    }
    let message =
        format!("role {role} may not create publications in database {database}, which a hand-over does");
    Finding::error(CHECK, side, message).mend_by([format!("GRANT CREATE ON DATABASE {database} TO {role};")])
}

/// Only its owner may `ALTER DATABASE … SET` (manual, *ALTER DATABASE*).
fn database_owner(side: Side, server: &ServerFacts, facts: &NodeFacts) -> Finding {
    const CHECK: &str = "database_owner";
    let (role, database) = (quote_identifier(&server.role), quote_identifier(&server.database));
    let owner = quote_identifier(&facts.owner);
    if facts.owns {
        return Finding::ok(CHECK, side, format!("role {role} may make sessions read-only by default"));
    }
    let message = format!(
        "the database belongs to {owner}, whose member role {role} is not: so it cannot make sessions read-only by \
         default (ALTER DATABASE … SET), and a hand-over is refused"
    );
    // Membership in a superuser would give everything away.
    let remedy = if facts.owner_superuser {
        let better = facts.better_owner.as_deref().unwrap_or(&server.role);
        format!("ALTER DATABASE {database} OWNER TO {};", quote_identifier(better))
    } else {
        format!("GRANT {owner} TO {role};")
    };
    Finding::error(CHECK, side, message).about(&server.database).mend_by([remedy])
}

/// Only a table's owner is sure to be able to make a trigger on it and to switch it (manual, *ALTER TABLE*).
fn guard(side: Side, server: &ServerFacts, facts: &NodeFacts) -> Vec<Finding> {
    const CHECK: &str = "guard_right";
    let role = quote_identifier(&server.role);
    if facts.unguarded.is_empty() {
        return vec![Finding::ok(CHECK, side, format!("role {role} may guard every table"))];
    }
    let mut by_owner: BTreeMap<(&str, bool), Vec<&TableName>> = BTreeMap::new();
    for (table, owner, superuser) in &facts.unguarded {
        by_owner.entry((owner, *superuser)).or_default().push(table);
    }
    let finding = |((owner, superuser), names): ((&str, bool), Vec<&TableName>)| {
        let message = format!(
            "role {role} cannot keep others from writing to {} of role {}, and a hand-over is refused: {}",
            counted(names.len(), "table"),
            quote_identifier(owner),
            listed(&names)
        );
        rights::membership(Finding::error(CHECK, side, message).about(owner), owner, superuser, &role)
    };
    by_owner.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::server;

    fn node() -> NodeFacts {
        NodeFacts {
            owner: "shop".to_owned(),
            owner_superuser: false,
            owns: true,
            better_owner: Some("shop".to_owned()),
            unguarded: Vec::new(),
            replica_role_refused: None,
        }
    }

    /// What must be mended on a side, with its remedy.
    fn errors(
        side: Side,
        change: impl FnOnce(&mut ServerFacts, &mut NodeFacts),
    ) -> Vec<(&'static str, String)> {
        let (mut server, mut facts) = (server(), node());
        change(&mut server, &mut facts);
        verdicts(side, &server, &facts)
            .into_iter()
            .filter(|finding| finding.severity != Severity::Ok)
            .map(|finding| (finding.check, finding.remedy.unwrap_or_default()))
            .collect()
    }

    fn one(check: &str, side: Side, change: impl FnOnce(&mut ServerFacts, &mut NodeFacts)) -> String {
        let mut found = errors(side, change);
        assert_eq!(found.iter().map(|(check, _)| *check).collect::<Vec<_>>(), [check]);
        found.remove(0).1
    }

    #[test]
    fn a_good_node_can_take_either_side() {
        assert_eq!(errors(Side::Source, |_, _| {}), []);
        assert_eq!(errors(Side::Target, |_, _| {}), []);
    }

    #[test]
    fn a_standby_must_be_able_to_be_a_source() {
        one("replication_right", Side::Target, |server, _| server.replication = false);
        one("wal_level", Side::Target, |server, _| server.wal_level = "replica".to_owned());
        one("replication_slots", Side::Target, |server, _| server.used_replication_slots = 10);
        one("wal_senders", Side::Target, |server, _| server.used_wal_senders = 10);
        one("create_right", Side::Target, |server, _| server.create_on_database = false);
    }

    #[test]
    fn a_primary_must_be_able_to_be_a_target() {
        let remedy =
            one("replica_role", Side::Source, |_, node| node.replica_role_refused = Some("no".to_owned()));
        assert!(remedy.starts_with("GRANT SET ON PARAMETER"), "{remedy}");
    }

    #[test]
    fn either_must_be_able_to_refuse_writes() {
        for side in [Side::Source, Side::Target] {
            let remedy = one("database_owner", side, |_, node| node.owns = false);
            assert_eq!(remedy, "GRANT \"shop\" TO \"re\"\"po\";");
            let remedy = one("database_owner", side, |_, node| {
                node.owns = false;
                node.owner_superuser = true;
                node.owner = "postgres".to_owned();
            });
            assert_eq!(remedy, "ALTER DATABASE \"shop\" OWNER TO \"shop\";");
            let table = TableName::new("public", "t");
            let remedy = one("guard_right", side, |_, node| {
                node.unguarded = vec![(table.clone(), "other".to_owned(), false)];
            });
            assert_eq!(remedy, "GRANT \"other\" TO \"re\"\"po\";");
            let remedy = one("guard_right", side, |_, node| {
                node.unguarded = vec![(table, "postgres".to_owned(), true)];
            });
            assert!(remedy.contains("no superuser"), "{remedy}");
        }
    }
}
