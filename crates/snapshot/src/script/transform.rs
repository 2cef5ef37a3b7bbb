//! What has to change in a dump so that another server takes it: settings that it does not know, schemas that it
//! has, roles and tablespaces that it lacks. Whatever weakens the copy is said in a warning.

use std::collections::{BTreeMap, BTreeSet};

use super::older::{Older, before_18};
use super::split::{Piece, split};
use super::statement::{Statement, summary};

/// What the target has, as far as it decides which statements it can take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// `server_version_num`, such as 150004.
    pub version_num: i32,
    /// The session's role is a superuser.
    pub superuser: bool,
    /// All roles.
    pub roles: BTreeSet<String>,
    /// The roles that the session's role can act for (manual, *SET ROLE*): only to these can it give objects.
    pub assumable_roles: BTreeSet<String>,
    /// The tablespaces.
    pub tablespaces: BTreeSet<String>,
    /// The schemas.
    pub schemas: BTreeSet<String>,
    /// The names of the run-time settings.
    pub settings: BTreeSet<String>,
    /// The compression methods for columns that this build knows.
    pub compressions: BTreeSet<String>,
}

/// A statement that the target can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptedStatement {
    /// `SET LOCAL …` statements that must be in force; empty when there are none.
    pub settings: String,
    /// The statement.
    pub sql: String,
}

impl AdaptedStatement {
    /// The statement with its settings, for a transaction of its own.
    #[must_use]
    pub fn alone(&self) -> String {
        format!("{}{}", self.settings, self.sql)
    }
}

/// A dump for the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapted {
    /// The statements, in the dump's order.
    pub statements: Vec<AdaptedStatement>,
    /// What was left out and why, for people.
    pub warnings: Vec<String>,
}

/// Settings of the dump that Relevo's own session has already, or that only matter to psql.
const SESSION_SETTINGS: [&str; 11] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "client_encoding",
    "standard_conforming_strings",
    "escape_string_warning",
    "check_function_bodies",
    "xmloption",
    "client_min_messages",
    "row_security",
];

/// Adapts a script of `pg_dump --schema-only` to the target.
#[must_use]
pub fn transform(script: &str, facts: &TargetFacts) -> Adapted {
    let mut transformer = Transformer::new(facts);
    for piece in split(script) {
        // Lines for psql guard psql against what a hostile server may put into a dump; nothing here runs psql.
        if let Piece::Statement(text) = piece {
            transformer.statement(text);
        }
    }
    transformer.finish()
}

/// Relevo's own guard, which says who may write on one node and nothing about another.
fn is_guard(statement: &Statement<'_>) -> bool {
    let names =
        |at: usize| matches!(statement.name(at).as_deref(), Some("relevo_guard" | "relevo_guard_ddl"));
    if statement.begins(&["create", "trigger"]) {
        return names(2);
    }
    if statement.begins(&["create", "event", "trigger"]) || statement.begins(&["alter", "event", "trigger"]) {
        return names(3);
    }
    let switched = ["enable", "disable"].iter().find_map(|word| statement.after(&[word, "trigger"]));
    statement.begins(&["alter", "table"]) && switched.is_some_and(names)
}

/// What becomes of a statement.
enum Fate {
    Keep,
    /// Left out, and nothing is lost.
    Drop,
    /// Left out for a reason: the statements of one reason share a warning.
    Miss(String),
    /// Put another text in its place, for a reason if there is one to give.
    Change(String, Option<String>),
}

/// `SET SESSION AUTHORIZATION grantor; GRANT …; RESET SESSION AUTHORIZATION;` belong together.
enum Authorization {
    Own,
    /// The statements since then.
    Other(String),
    /// The role is not there: what follows is left out.
    Missing,
}

struct Transformer<'f> {
    facts: &'f TargetFacts,
    adapted: Vec<AdaptedStatement>,
    /// Settings that change in the course of the dump (`default_tablespace`), by name.
    settings: BTreeMap<String, String>,
    authorization: Authorization,
    /// How often each reason to leave out or change something arose, and the first statement.
    missed: BTreeMap<String, (usize, String)>,
}

impl<'f> Transformer<'f> {
    fn new(facts: &'f TargetFacts) -> Self {
        Self {
            facts,
            adapted: Vec::new(),
            settings: BTreeMap::new(),
            authorization: Authorization::Own,
            missed: BTreeMap::new(),
        }
    }

    fn finish(self) -> Adapted {
        let warning = |(reason, (count, first)): (String, (usize, String))| match count {
            1 => format!("{reason}: {first}"),
            _ => format!("{reason} ({count} statements): {first}; …"),
        };
        Adapted { statements: self.adapted, warnings: self.missed.into_iter().map(warning).collect() }
    }

    fn statement(&mut self, text: &str) {
        let statement = Statement::new(text);
        if statement.begins(&["set"]) || statement.begins(&["reset"]) {
            self.setting(&statement);
            return;
        }
        if matches!(self.authorization, Authorization::Missing) {
            return;
        }
        if is_guard(&statement) {
            return;
        }
        match self.fate(&statement) {
            Fate::Keep => self.keep(statement.body().to_owned()),
            Fate::Drop => {}
            Fate::Miss(reason) => self.miss(reason, &statement),
            Fate::Change(sql, reason) => {
                if let Some(reason) = reason {
                    self.miss(reason, &statement);
                }
                self.keep(sql);
            }
        }
    }

    fn keep(&mut self, sql: String) {
        if let Authorization::Other(group) = &mut self.authorization {
            group.push_str(&sql);
            group.push('\n');
            return;
        }
        let settings =
            self.settings.iter().map(|(name, value)| format!("SET LOCAL {name} = {value};\n")).collect();
        self.adapted.push(AdaptedStatement { settings, sql });
    }

    fn miss(&mut self, reason: String, statement: &Statement<'_>) {
        self.missed.entry(reason).or_insert_with(|| (0, summary(statement.body()))).0 += 1;
    }

    fn setting(&mut self, statement: &Statement<'_>) {
        if statement.begins(&["set", "session", "authorization"]) {
            let role = statement.name(3).unwrap_or_default();
            self.authorization = match self.role_problem(&role, self.facts.superuser) {
                None => Authorization::Other(format!("{}\n", statement.body())),
                Some(reason) => {
                    self.miss(reason, statement);
                    Authorization::Missing
                }
            };
            return;
        }
        if statement.begins(&["reset", "session", "authorization"]) {
            if let Authorization::Other(mut group) =
                std::mem::replace(&mut self.authorization, Authorization::Own)
            {
                group.push_str(statement.body());
                self.keep(group);
            }
            return;
        }
        let Some(name) = statement.name(1) else { return };
        if SESSION_SETTINGS.contains(&name.as_str()) || !self.facts.settings.contains(&name) {
            return;
        }
        let body = statement.body();
        let value =
            statement.tokens.get(3).map_or("DEFAULT", |token| &body[token.start - statement.start()..]);
        let mut value = value.trim_end_matches(';').to_owned();
        if name == "default_tablespace" {
            let tablespace = statement.name(3).unwrap_or_default();
            if !tablespace.is_empty() && !self.facts.tablespaces.contains(&tablespace) {
                let reason = format!(
                    "tablespace {tablespace:?} does not exist on the target: its tables and indexes go to the \
                     default tablespace"
                );
                self.miss(reason, statement);
                "''".clone_into(&mut value);
            }
        }
        self.settings.insert(name, value);
    }

    fn fate(&self, statement: &Statement<'_>) -> Fate {
        if statement.begins(&["select"]) {
            return Self::fate_of_select(statement);
        }
        if statement.begins(&["create", "schema"]) {
            let exists = statement.name(2).is_some_and(|name| self.facts.schemas.contains(&name));
            return if exists { Fate::Drop } else { Fate::Keep };
        }
        if statement.begins(&["create", "policy"]) {
            return self.policy(statement);
        }
        if let Some(problem) = self.missing_role(statement).or_else(|| self.not_permitted(statement)) {
            return Fate::Miss(problem);
        }
        if statement.begins(&["alter", "table"])
            && let Some(method) = statement.last_after(&["set", "compression"])
            && !self.facts.compressions.contains(&method)
        {
            return Fate::Miss(format!(
                "left out, because the target was built without {method} compression"
            ));
        }
        if self.facts.version_num < 180_000 {
            return match before_18(statement) {
                Older::Same => Fate::Keep,
                Older::Instead(sql, reason) => Fate::Change(sql, reason),
                Older::Nothing(reason) => Fate::Miss(reason),
            };
        }
        Fate::Keep
    }

    /// Settings and statistics are all that a schema dump selects.
    fn fate_of_select(statement: &Statement<'_>) -> Fate {
        let function = statement.tokens.iter().find(|token| {
            token.is("set_config")
                || token.text.starts_with("pg_restore_")
                || token.text.starts_with("pg_clear_")
        });
        if function.is_some() { Fate::Drop } else { Fate::Keep }
    }

    /// Why a role that the statement names cannot be used, if so.
    fn missing_role(&self, statement: &Statement<'_>) -> Option<String> {
        if statement.begins(&["alter", "default", "privileges"]) {
            let owner = statement.last_after(&["for", "role"]);
            return owner.and_then(|role| self.role_problem(&role, true)).or_else(|| self.grantee(statement));
        }
        if statement.begins(&["alter"]) {
            return statement.last_after(&["owner", "to"]).and_then(|role| self.role_problem(&role, true));
        }
        if statement.begins(&["grant"]) || statement.begins(&["revoke"]) {
            return self.grantee(statement);
        }
        if statement.begins(&["create", "user", "mapping", "for"]) {
            return statement.name(4).and_then(|role| self.role_problem(&role, false));
        }
        None
    }

    fn grantee(&self, statement: &Statement<'_>) -> Option<String> {
        let role = statement.last_after(&["to"]).or_else(|| statement.last_after(&["from"]))?;
        self.role_problem(&role, false)
    }

    /// Why the role cannot be used on the target: `assume` when the session has to act for it.
    fn role_problem(&self, role: &str, assume: bool) -> Option<String> {
        if role == "public" || role == "current_user" || role == "session_user" {
            None
        } else if !self.facts.roles.contains(role) {
            Some(format!("left out, because role {role:?} does not exist on the target"))
        } else if assume && !self.facts.superuser && !self.facts.assumable_roles.contains(role) {
            Some(format!("left out, because the target's user may not act for role {role:?}"))
        } else {
            None
        }
    }

    /// Why somebody who is no superuser cannot run it.
    fn not_permitted(&self, statement: &Statement<'_>) -> Option<String> {
        if self.facts.superuser {
            return None;
        }
        let on_event_trigger = [
            &["create", "event", "trigger"][..],
            &["alter", "event", "trigger"],
            &["comment", "on", "event", "trigger"],
        ];
        if on_event_trigger.iter().any(|head| statement.begins(head)) {
            return Some("left out, because event triggers need a superuser on the target".to_owned());
        }
        let schema_exists = || statement.name(3).is_some_and(|name| self.facts.schemas.contains(&name));
        if statement.begins(&["comment", "on", "extension"])
            || (statement.begins(&["comment", "on", "schema"]) && schema_exists())
        {
            return Some(
                "left out, because only its owner can comment on what the target had already".to_owned(),
            );
        }
        None
    }

    /// A policy for roles of which the target lacks some holds for the others.
    fn policy(&self, statement: &Statement<'_>) -> Fate {
        let Some(first) = statement.after(&["to"]) else { return Fate::Keep };
        let tokens = &statement.tokens;
        let mut end = first;
        let mut roles = Vec::new();
        while let Some(token) = tokens.get(end) {
            roles.push(token);
            end += 1;
            if !tokens.get(end).is_some_and(|next| next.is_symbol(',')) {
                break;
            }
            end += 1;
        }
        let problem = |role: &str| self.role_problem(role, false);
        let problems: Vec<String> =
            roles.iter().filter_map(|t| t.name()).filter_map(|r| problem(&r)).collect();
        let Some(reason) = problems.first() else { return Fate::Keep };
        let kept: Vec<&str> = roles
            .iter()
            .filter(|token| token.name().is_some_and(|role| problem(&role).is_none()))
            .map(|token| token.text)
            .collect();
        if kept.is_empty() {
            return Fate::Miss(reason.clone());
        }
        let (body, offset) = (statement.body(), statement.start());
        let from = tokens.get(first).map_or(0, |token| token.start - offset);
        let to = tokens.get(end).map_or(body.len(), |token| token.start - offset);
        let changed = format!("{}{} {}", &body[..from], kept.join(", "), &body[to..]);
        Fate::Change(changed, Some(reason.clone()))
    }
}
