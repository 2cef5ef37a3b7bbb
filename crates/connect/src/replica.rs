//! How a session comes to act as one that replicates: foreign keys and ordinary triggers do not fire in it (manual,
//! *Client Connection Defaults*, `session_replication_role`); and how a superuser lets a role that is none do so. What
//! may not enter: when that is right.
//!
//! PostgreSQL 15 and later can grant this one parameter, and services that run PostgreSQL let their administrators SET it,
//! though neither by `set_config` nor as a start-up parameter. In 14 only a superuser may set it, so there a superuser
//! makes a function that sets it and does nothing else, and lets the role call that (`deploy/sql/role.sql` does the same).

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Whether a superuser has made the function.
const HAS_FUNCTION: &str =
    "SELECT pg_catalog.to_regprocedure('relevo_rights.replica_role(boolean)') IS NOT NULL";

/// The schema of the function that a superuser makes on PostgreSQL 14. Like schema `relevo` it is never copied.
pub const RIGHTS_SCHEMA: &str = "relevo_rights";

/// The function, for PostgreSQL 14. Nobody but a superuser owns it or its schema, so nobody else can change it.
const FUNCTION: [&str; 3] = [
    "CREATE SCHEMA IF NOT EXISTS relevo_rights;",
    "\
CREATE OR REPLACE FUNCTION relevo_rights.replica_role(for_transaction boolean) RETURNS text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT pg_catalog.set_config('session_replication_role', 'replica', for_transaction) $$;",
    "REVOKE ALL ON FUNCTION relevo_rights.replica_role(boolean) FROM PUBLIC;",
];

/// For how long a session acts as one that replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Until the session ends.
    Session,
    /// Until the transaction ends.
    Transaction,
}

/// Lets the session act as one that replicates.
///
/// # Errors
/// SQLSTATE 42501: the role may not, see [`grant_replica_role`]; an open transaction has then failed.
pub async fn act_as_replica(client: &Client, role: ReplicaRole) -> Result<(), Error> {
    let answer = client.simple_query(HAS_FUNCTION).await?;
    let by_function = answer.iter().any(|message| {
        matches!(message, SimpleQueryMessage::Row(row) if row.try_get(0).is_ok_and(|text| text == Some("t")))
    });
    // With a second statement behind SET LOCAL, so that it is one implicit transaction where none is open.
    let sql = match (by_function, role) {
        (false, ReplicaRole::Session) => "SET session_replication_role = replica",
        (false, ReplicaRole::Transaction) => "SET LOCAL session_replication_role = replica; SELECT 1",
        (true, ReplicaRole::Session) => "SELECT relevo_rights.replica_role(false)",
        (true, ReplicaRole::Transaction) => "SELECT relevo_rights.replica_role(true)",
    };
    client.batch_execute(sql).await
}

/// The statements by which a superuser lets a role act as one that replicates, on a server of this major version. `role`:
/// its name as it stands in SQL.
#[must_use]
pub fn grant_replica_role(role: &str, major: i32) -> Vec<String> {
    if major >= 15 {
        return vec![format!("GRANT SET ON PARAMETER session_replication_role TO {role};")];
    }
    let mut statements = FUNCTION.map(str::to_owned).to_vec();
    statements.push(format!("GRANT USAGE ON SCHEMA relevo_rights TO {role};"));
    statements.push(format!("GRANT EXECUTE ON FUNCTION relevo_rights.replica_role(boolean) TO {role};"));
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_for_administrators_makes_the_same_function() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/sql/role.sql");
        let script = std::fs::read_to_string(path).unwrap();
        for statement in FUNCTION {
            assert!(script.contains(statement), "deploy/sql/role.sql lacks: {statement}");
        }
    }

    #[test]
    fn no_remedy_asks_for_a_superuser() {
        for major in 14..=18 {
            let remedy = grant_replica_role("\"r\"", major).join("\n");
            assert!(remedy.ends_with("TO \"r\";") && !remedy.contains("SUPERUSER"), "{remedy}");
            assert_eq!(remedy.contains("ON PARAMETER"), major >= 15, "{remedy}");
        }
    }
}
