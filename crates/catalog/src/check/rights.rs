//! Verdicts on what the connected roles may do.

use std::collections::{BTreeMap, BTreeSet};

use relevo_connect::grant_replica_role;
use relevo_model::Side;

use super::facts::{Access, SourceFacts, TargetFacts};
use super::{counted, listed};
use crate::server::ManagedBy;
use crate::{Finding, ServerFacts, TableName, quote_identifier};

pub(super) fn source(facts: &SourceFacts) -> Vec<Finding> {
    let server = &facts.server;
    let mut findings = vec![replication(Side::Source, server)];
    findings.extend(tables(Side::Source, server, &facts.access, &["SELECT"]));
    findings.push(row_security(Side::Source, server, &facts.access));
    let mut publish = publish(facts);
    if publish.is_empty() {
        publish.push(Finding::ok("publication_right", Side::Source, "the role may publish every table"));
    }
    findings.extend(publish);
    let have_all = facts.relevo_schema == Some(true) && facts.publications.len() == 2;
    findings.push(create(
        Side::Source,
        server,
        have_all,
        facts.relevo_schema,
        "schema relevo and publications",
    ));
    findings.push(sequences(facts));
    findings
}

pub(super) fn target(facts: &TargetFacts) -> Vec<Finding> {
    let server = &facts.server;
    let have_all = facts.relevo_schema == Some(true) && !facts.is_empty();
    let mut findings = vec![
        create(Side::Target, server, have_all, facts.relevo_schema, "schema relevo"),
        replica_role(Side::Target, server, facts.replica_role_refused.as_deref()),
    ];
    findings.extend(closed_schemas(facts));
    findings.extend(strangers(facts));
    if !facts.is_empty() {
        const WRITES: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];
        findings.extend(tables(Side::Target, server, &facts.access, &WRITES));
        findings.push(row_security(Side::Target, server, &facts.access));
    }
    findings
}

pub(super) fn replication(side: Side, server: &ServerFacts) -> Finding {
    const CHECK: &str = "replication_right";
    let role = quote_identifier(&server.role);
    if server.replication {
        return Finding::ok(CHECK, side, format!("role {role} may replicate"));
    }
    let remedy = match server.managed_by {
        Some(ManagedBy::Rds) => format!("GRANT rds_replication TO {role};"),
        _ => format!("ALTER ROLE {role} REPLICATION;"),
    };
    Finding::error(CHECK, side, format!("role {role} may not replicate: it lacks the attribute REPLICATION"))
        .mend_by([remedy])
}

/// Whether the role has `needed` on every table and USAGE on every schema. Tables that lack the same are told
/// together, schema by schema: there may be thousands.
fn tables(side: Side, server: &ServerFacts, access: &[Access], needed: &[&'static str]) -> Vec<Finding> {
    let role = quote_identifier(&server.role);
    let mut closed: BTreeSet<&str> = BTreeSet::new();
    let mut lacking: BTreeMap<(&str, Vec<&str>), Vec<&TableName>> = BTreeMap::new();
    for table in access {
        if !table.schema_usage {
            closed.insert(&table.table.schema);
        }
        let has = |privilege: &&str| table.privileges.iter().any(|has| has == privilege);
        let lacks: Vec<&str> = needed.iter().filter(|privilege| !has(privilege)).copied().collect();
        if !lacks.is_empty() {
            lacking.entry((&table.table.schema, lacks)).or_default().push(&table.table);
        }
    }
    let mut findings = Vec::new();
    for schema in closed {
        findings.push(
            Finding::error("schema_rights", side, format!("role {role} may not use the schema"))
                .about(schema)
                .mend_by([format!("GRANT USAGE ON SCHEMA {} TO {role};", quote_identifier(schema))]),
        );
    }
    for ((schema, lacks), names) in lacking {
        let lacks = lacks.join(", ");
        let quoted = names.iter().map(|name| name.quoted()).collect::<Vec<_>>().join(", ");
        let message =
            format!("role {role} lacks {lacks} on {}: {}", counted(names.len(), "table"), listed(&names));
        findings.push(
            Finding::error("table_rights", side, message)
                .about(schema)
                .mend_by([format!("GRANT {lacks} ON {quoted} TO {role};")]),
        );
    }
    if findings.is_empty() {
        let message = format!("role {role} has {} on all {} tables", needed.join(", "), access.len());
        findings.push(Finding::ok("table_rights", side, message));
    }
    findings
}

fn row_security(side: Side, server: &ServerFacts, access: &[Access]) -> Finding {
    const CHECK: &str = "row_security";
    let filtered: Vec<&TableName> =
        access.iter().filter(|table| table.row_security).map(|table| &table.table).collect();
    if filtered.is_empty() {
        return Finding::ok(CHECK, side, "no row level security applies to the role");
    }
    let role = quote_identifier(&server.role);
    let consequence = match side {
        Side::Source => "rows that its policies hide would not be copied",
        Side::Target => "rows that its policies hide would not be found or written",
    };
    let message =
        format!("row level security applies to role {role} on {}: {consequence}", listed(&filtered));
    Finding::error(CHECK, side, message).mend_by([format!("ALTER ROLE {role} BYPASSRLS;")])
}

/// Only a table's owner may add it to a publication (manual, *ALTER PUBLICATION*).
fn publish(facts: &SourceFacts) -> Vec<Finding> {
    const CHECK: &str = "publication_right";
    let role = quote_identifier(&facts.server.role);
    let mut foreign: BTreeMap<(&str, bool), Vec<&TableName>> = BTreeMap::new();
    for table in facts.access.iter().filter(|table| !table.owns) {
        foreign.entry((&table.owner, table.owner_superuser)).or_default().push(&table.table);
    }
    let mut findings = Vec::new();
    for ((owner, superuser), names) in foreign {
        let owner_quoted = quote_identifier(owner);
        let message = format!(
            "role {role} may not publish {} of role {owner_quoted}: {}",
            counted(names.len(), "table"),
            listed(&names)
        );
        let finding = Finding::error(CHECK, Side::Source, message).about(owner);
        findings.push(membership(finding, owner, superuser, &role));
    }
    for publication in facts.publications.iter().filter(|publication| !publication.owns) {
        let (name, owner) = (quote_identifier(&publication.name), quote_identifier(&publication.owner));
        let message = format!("the publication belongs to {owner}, not to role {role}");
        let finding = Finding::error(CHECK, Side::Source, message).about(&publication.name);
        findings.push(finding.mend_by([format!("ALTER PUBLICATION {name} OWNER TO {role};")]));
    }
    findings
}

/// The finding with what makes `role` (as it stands in SQL) a member of the owner of tables. Membership in a superuser
/// would give everything away.
pub(super) fn membership(finding: Finding, owner: &str, superuser: bool, role: &str) -> Finding {
    if superuser {
        finding.mend(format!(
            "ALTER TABLE … OWNER TO a role that is no superuser, and GRANT that role TO {role};"
        ))
    } else {
        finding.mend_by([format!("GRANT {} TO {role};", quote_identifier(owner))])
    }
}

/// Whoever makes a table needs CREATE on its schema, and so does whoever is to own it (manual, *ALTER TABLE*). A schema
/// that is not there is made as well.
fn closed_schemas(facts: &TargetFacts) -> Vec<Finding> {
    let finding = |(schema, roles): (&String, &Vec<String>)| {
        let roles = roles.iter().map(|role| quote_identifier(role)).collect::<Vec<_>>().join(", ");
        let message = format!("the tables are to be created there, and {roles} may not create in it");
        Finding::error("schema_create_right", Side::Target, message)
            .about(schema)
            .mend_by([format!("GRANT CREATE ON SCHEMA {} TO {roles};", quote_identifier(schema))])
    };
    facts.closed_schemas.iter().map(finding).collect()
}

/// Tables whose owner the role may not act for would belong to the role itself.
fn strangers(facts: &TargetFacts) -> Vec<Finding> {
    const CHECK: &str = "owner_right";
    let role = quote_identifier(&facts.server.role);
    let finding = |(owner, superuser): &(String, bool)| {
        let quoted = quote_identifier(owner);
        let message = format!(
            "role {role} may not act for {quoted}: what that owns on the source will belong to {role}"
        );
        if *superuser {
            return Finding::notice(CHECK, Side::Target, message).about(owner);
        }
        Finding::warning(CHECK, Side::Target, message).about(owner).mend_by([set_membership(
            &quoted,
            &role,
            facts.server.major(),
        )])
    };
    facts.strangers.iter().map(finding).collect()
}

/// Both names as they stand in SQL. Since version 16 a member may be kept from acting for a role.
fn set_membership(owner: &str, role: &str, major: i32) -> String {
    let option = if major >= 16 { " WITH SET TRUE" } else { "" };
    format!("GRANT {owner} TO {role}{option};")
}

/// `have_all`: what would be created is there already. `relevo_schema`: whether that schema may be used, when it
/// is there.
fn create(
    side: Side,
    server: &ServerFacts,
    have_all: bool,
    relevo_schema: Option<bool>,
    what: &str,
) -> Finding {
    const CHECK: &str = "create_right";
    let (role, database) = (quote_identifier(&server.role), quote_identifier(&server.database));
    if relevo_schema == Some(false) {
        let message = format!("schema relevo is there, but role {role} may not use it and create in it");
        return Finding::error(CHECK, side, message)
            .mend_by([format!("ALTER SCHEMA relevo OWNER TO {role};"), own_tables(&role)]);
    }
    if have_all {
        return Finding::ok(CHECK, side, format!("{what}: there already"));
    }
    if server.create_on_database {
        return Finding::ok(CHECK, side, format!("role {role} may create {what}"));
    }
    Finding::error(CHECK, side, format!("role {role} may not create {what} in database {database}"))
        .mend_by([format!("GRANT CREATE ON DATABASE {database} TO {role};")])
}

/// Gives the role all that is in schema `relevo`. Sequences and indexes go with their tables.
fn own_tables(role: &str) -> String {
    format!(
        "DO $relevo$ DECLARE it text; BEGIN \
         FOR it IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'relevo'::regnamespace AND relkind = 'r' \
         LOOP EXECUTE 'ALTER TABLE ' || it || ' OWNER TO {}'; END LOOP; \
         FOR it IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'relevo'::regnamespace \
         LOOP EXECUTE 'ALTER ROUTINE ' || it || ' OWNER TO {}'; END LOOP; END $relevo$;",
        role.replace('\'', "''"),
        role.replace('\'', "''")
    )
}

pub(super) fn replica_role(side: Side, server: &ServerFacts, refused: Option<&str>) -> Finding {
    const CHECK: &str = "replica_role";
    let role = quote_identifier(&server.role);
    let Some(reason) = refused else {
        let message = "foreign keys and triggers can be kept from firing (session_replication_role)";
        return Finding::ok(CHECK, side, message);
    };
    let message = format!(
        "foreign keys and triggers cannot be kept from firing a second time: setting session_replication_role was \
         refused ({reason})"
    );
    let finding = Finding::error(CHECK, side, message);
    // Who administers a service's server is no superuser, but may set it; not every service lets them grant it.
    let administrators = match server.managed_by {
        Some(ManagedBy::Rds) => Some("rds_superuser"),
        Some(ManagedBy::CloudSql) => Some("cloudsqlsuperuser"),
        Some(ManagedBy::Azure) => Some("azure_pg_admin"),
        None => None,
    };
    let grant = grant_replica_role(&role, server.major());
    match (server.major() >= 15, administrators) {
        (_, None) => finding.mend_by(grant),
        (true, Some(administrators)) => {
            let or = format!("or, where that is refused: GRANT {administrators} TO {role};");
            finding.mend_by(grant).then(&or)
        }
        (false, Some(administrators)) => finding.mend_by([format!("GRANT {administrators} TO {role};")]),
    }
}

fn sequences(facts: &SourceFacts) -> Finding {
    const CHECK: &str = "sequence_rights";
    let unread: Vec<&TableName> = facts
        .sequences
        .iter()
        .filter(|sequence| sequence.value.is_none())
        .map(|sequence| &sequence.name)
        .collect();
    if unread.is_empty() {
        let message = format!("all {} sequences can be read", facts.sequences.len());
        return Finding::ok(CHECK, Side::Source, message);
    }
    let role = quote_identifier(&facts.server.role);
    let quoted = unread.iter().map(|name| name.quoted()).collect::<Vec<_>>().join(", ");
    let message =
        format!("role {role} may not read {}: {}", counted(unread.len(), "sequence"), listed(&unread));
    Finding::error(CHECK, Side::Source, message)
        .mend_by([format!("GRANT SELECT ON SEQUENCE {quoted} TO {role};")])
}
