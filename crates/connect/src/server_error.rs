//! What a PostgreSQL server says when it refuses: rendering it on one line, and what can be done about it by
//! SQLSTATE (manual, appendix *PostgreSQL Error Codes*). Knows no connection.

use std::error::Error;
use std::fmt;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;
use relevo_model::FaultClass;
use tokio_postgres::error::DbError;

/// An ErrorResponse or NoticeResponse (manual, *Error and Notice Message Fields*).
///
/// `Display` gives everything on one line: message, detail, hint, context and SQLSTATE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, …; never translated when the server is 9.6 or later.
    pub severity: String,
    /// The SQLSTATE, five characters.
    pub sqlstate: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// More about the problem.
    pub detail: Option<String>,
    /// What the server suggests.
    pub hint: Option<String>,
    /// Where in the server it arose (a function's call stack, a COPY line).
    pub context: Option<String>,
    /// The server's C function that reported it; unlike the message it is never translated.
    pub routine: Option<String>,
}

impl ServerMessage {
    /// Reads the fields of an ErrorResponse or NoticeResponse. Text that is not UTF-8 (a server may answer in
    /// the database's encoding before it knows ours) is kept as far as it can be read.
    ///
    /// # Errors
    /// The message is cut short.
    pub fn from_fields(mut fields: ErrorFields<'_>) -> std::io::Result<Self> {
        let mut message = Self::default();
        while let Some(field) = fields.next()? {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'S' if message.severity.is_empty() => message.severity = text,
                b'V' => message.severity = text,
                b'C' => message.sqlstate = text,
                b'M' => message.message = text,
                b'D' => message.detail = Some(text),
                b'H' => message.hint = Some(text),
                b'W' => message.context = Some(text),
                b'R' => message.routine = Some(text),
                _ => {}
            }
        }
        Ok(message)
    }

    /// What can be done about it; see [`classify`].
    #[must_use]
    pub fn class(&self) -> FaultClass {
        class_of(&self.sqlstate)
    }

    /// A short stable word for it; see [`kind`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        kind_of(&self.sqlstate)
    }
}

impl From<&DbError> for ServerMessage {
    fn from(error: &DbError) -> Self {
        Self {
            severity: error.severity().to_owned(),
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            context: error.where_().map(str::to_owned),
            routine: error.routine().map(str::to_owned),
        }
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, one_line(&self.message))?;
        let more = [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)];
        for (name, text) in more {
            if let Some(text) = text {
                write!(f, "; {name}: {}", one_line(text))?;
            }
        }
        write!(f, " (SQLSTATE {})", self.sqlstate)
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What can be done about an error of a tokio-postgres session, by SQLSTATE; a lost connection is transient.
///
/// It never says [`FaultClass::Refused`]: only who knows the flow's positions can tell that going on would lose
/// changes.
#[must_use]
pub fn classify(error: &tokio_postgres::Error) -> FaultClass {
    match error.as_db_error() {
        Some(db) => class_of(db.code().code()),
        None if is_lost(error) => FaultClass::Transient,
        None => FaultClass::Blocked,
    }
}

/// A short stable word for an error of a tokio-postgres session, for the `kind` label of
/// `relevo_errors_total`: `snake_case`.
#[must_use]
pub fn kind(error: &tokio_postgres::Error) -> &'static str {
    match error.as_db_error() {
        Some(db) => kind_of(db.code().code()),
        None if is_lost(error) => "connection_lost",
        None => "client_error",
    }
}

/// The whole error on one line: of a server's error its message, detail, hint, context and SQLSTATE
/// (tokio-postgres itself says only "db error"); of any other error, its chain of causes.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => ServerMessage::from(db).to_string(),
        None => chain(error),
    }
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    one_line(&text)
}

/// Whether the connection is gone: closed, or broken by the network.
pub(crate) fn is_lost(error: &tokio_postgres::Error) -> bool {
    let io_kind =
        error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    // Answers that cannot be parsed are io errors of these kinds too, and no lost link.
    let parse = [std::io::ErrorKind::InvalidData, std::io::ErrorKind::InvalidInput];
    error.is_closed() || io_kind.is_some_and(|kind| !parse.contains(&kind))
}

/// What can be done about a SQLSTATE. What passes by itself is listed; everything else needs a hand.
fn class_of(sqlstate: &str) -> FaultClass {
    match sqlstate {
        // Would be refused again for the same reason, although their classes are transient: configuration
        // limits (no slot left, …) and a database that was dropped.
        "53400" | "57P04" => FaultClass::Blocked,
        // Locks and slots held by somebody else.
        "55P03" | "55006" => FaultClass::Transient,
        _ => match sqlstate.get(..2) {
            // Connection exceptions, rolled back transactions (deadlock, serialization), missing resources (disk,
            // memory, connections), operator intervention (shutdown, start, cancel), errors of the system (I/O).
            Some("08" | "40" | "53" | "57" | "58") => FaultClass::Transient,
            _ => FaultClass::Blocked,
        },
    }
}

fn kind_of(sqlstate: &str) -> &'static str {
    match sqlstate {
        "22P02" | "22P03" => "invalid_value",
        "23502" => "not_null_violation",
        "23503" => "foreign_key_violation",
        "23505" => "unique_violation",
        "23514" => "check_violation",
        "23P01" => "exclusion_violation",
        "25006" => "read_only",
        "28P01" => "wrong_password",
        "28000" => "not_admitted",
        "3D000" => "no_such_database",
        "40001" => "serialization_failure",
        "40P01" => "deadlock",
        "42501" => "permission_denied",
        "42P01" => "undefined_table",
        "42703" => "undefined_column",
        "42804" => "datatype_mismatch",
        "53100" => "disk_full",
        "53200" => "out_of_memory",
        "53300" => "too_many_connections",
        "53400" => "configuration_limit",
        "55006" => "object_in_use",
        "55P03" => "lock_timeout",
        "57014" => "query_canceled",
        "57P01" | "57P02" | "57P03" => "server_unavailable",
        "57P04" => "database_dropped",
        _ => match sqlstate.get(..2) {
            Some("08") => "connection_exception",
            Some("22") => "data_exception",
            Some("23") => "constraint_violation",
            Some("53") => "insufficient_resources",
            Some("58") => "system_error",
            Some("XX") => "internal_error",
            _ => "server_error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_transient_and_the_rest_needs_a_hand() {
        for state in
            ["08006", "40001", "40P01", "53100", "53300", "55P03", "55006", "57P01", "57P03", "58030"]
        {
            assert_eq!(class_of(state), FaultClass::Transient, "{state}");
        }
        for state in [
            "", "é", "22P02", "23505", "25006", "28P01", "28000", "3D000", "42P01", "53400", "57P04", "XX000",
        ] {
            assert_eq!(class_of(state), FaultClass::Blocked, "{state}");
        }
    }

    #[test]
    fn kinds_are_snake_case() {
        for state in ["23505", "53100", "08006", "57014", "?????", ""] {
            assert!(kind_of(state).bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{state}");
        }
    }

    #[test]
    fn a_server_message_is_one_line_with_all_its_parts() {
        let message = ServerMessage {
            severity: "ERROR".into(),
            sqlstate: "23505".into(),
            message: "duplicate key value".into(),
            detail: Some("Key (id)=(1)\nalready exists.".into()),
            hint: Some("none".into()),
            context: Some("COPY t, line 3".into()),
            routine: None,
        };
        assert_eq!(
            message.to_string(),
            "ERROR: duplicate key value; detail: Key (id)=(1) already exists.; hint: none; \
             context: COPY t, line 3 (SQLSTATE 23505)"
        );
    }
}
