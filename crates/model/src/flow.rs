//! The name of a flow, from which slot, publication and application names derive.

use std::fmt;
use std::str::FromStr;

/// The name of one source → target flow: lower-case letters, digits and underscores, 1 to 48 characters.
///
/// The limits are those of replication slot names (manual, *Replication Slots*: lower case letters, numbers,
/// underscore; 63 bytes) less the prefix and suffixes that Relevo adds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowName(String);

/// The text cannot name a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowNameError(String);

impl fmt::Display for FlowNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(
            f,
            "{name:?} cannot name a flow: expected 1 to {} lower-case letters, digits or underscores",
            FlowName::MAX_LEN
        )
    }
}

impl std::error::Error for FlowNameError {}

impl FlowName {
    /// The greatest length in characters.
    pub const MAX_LEN: usize = 48;

    /// The name that a flow between these two databases gets when nobody names it.
    ///
    /// It is derived from what the databases are, not from the URLs that reach them, so that a flow keeps its
    /// name when a host gets another address, and two flows between the same servers never share one.
    /// Arguments: each side's system identifier and database name.
    #[must_use]
    pub fn derive(source: (&str, &str), target: (&str, &str)) -> Self {
        let readable: String = source
            .1
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .take(24)
            .collect();
        let mut hash = Fnv::new();
        for part in [source.0, source.1, target.0, target.1] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        Self(format!("{readable}_{:016x}", hash.0))
    }

    /// The name as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The replication slot on the source.
    #[must_use]
    pub fn slot(&self) -> String {
        format!("relevo_{}", self.0)
    }

    /// The publication for tables whose every change is replicated.
    #[must_use]
    pub fn publication(&self) -> String {
        format!("relevo_{}", self.0)
    }

    /// The publication for tables without a replica identity: inserts and truncates only, so that an UPDATE
    /// or DELETE on the source does not begin to fail because Relevo is there.
    #[must_use]
    pub fn insert_only_publication(&self) -> String {
        format!("relevo_{}_inserts", self.0)
    }

    /// The key of the advisory lock that one apply session at a time holds on the target.
    #[must_use]
    pub fn lock_key(&self) -> i64 {
        let mut hash = Fnv::new();
        hash.update(b"relevo flow ");
        hash.update(self.0.as_bytes());
        i64::from_ne_bytes(hash.0.to_ne_bytes())
    }
}

impl fmt::Display for FlowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FlowName {
    type Err = FlowNameError;

    fn from_str(text: &str) -> Result<Self, FlowNameError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FlowNameError(text.to_owned()))
        }
    }
}

/// FNV-1a, 64 bits: the derived names outlive the program, so they must not depend on the hash function that
/// a version of the standard library happens to have.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_name_is_a_valid_name_whatever_the_database_is_called() {
        for database in
            ["shop", "Größe \"x\"", "", "a-very-long-database-name-that-goes-on-and-on-and-on-and-on"]
        {
            let name = FlowName::derive(("7123", database), ("7999", database));
            assert_eq!(name.as_str().parse::<FlowName>().as_ref(), Ok(&name), "{database:?}");
            assert!(name.insert_only_publication().len() <= 63);
        }
    }

    #[test]
    fn derived_names_differ_with_every_part() {
        let base = FlowName::derive(("1", "a"), ("2", "b"));
        for other in [
            FlowName::derive(("9", "a"), ("2", "b")),
            FlowName::derive(("1", "x"), ("2", "b")),
            FlowName::derive(("1", "a"), ("9", "b")),
            FlowName::derive(("1", "a"), ("2", "x")),
            FlowName::derive(("1", "a"), ("2b", "")),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_derived_name_never_changes_between_versions_of_relevo() {
        assert_eq!(FlowName::derive(("1", "shop"), ("2", "shop")).as_str(), "shop_86620be7c28593a2");
    }

    #[test]
    fn what_cannot_name_a_slot_is_refused() {
        for name in ["", "Shop", "a-b", "é", &"x".repeat(49)] {
            assert!(name.parse::<FlowName>().is_err(), "{name:?}");
        }
    }
}
