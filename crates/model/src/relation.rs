//! What the source says about a table before it sends rows of it.

use std::fmt;

/// The OID of a relation on the source. It means nothing on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(pub u32);

/// How the old row of an update or delete is identified
/// (manual, *ALTER TABLE … REPLICA IDENTITY*; `pg_class.relreplident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// `d`: the primary key, if there is one.
    Default,
    /// `n`: nothing; updates and deletes of the table are not replicated.
    Nothing,
    /// `f`: all columns.
    Full,
    /// `i`: the columns of a chosen unique index.
    Index,
}

/// A type that is not built in, as the protocol's Type message names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TypeName {
    /// The schema that the type is in on the source.
    pub schema: String,
    /// The type's name.
    pub name: String,
}

/// One column of a relation, in the order of the tuples that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column's name. Columns are matched with the target's by name, never by position.
    pub name: String,
    /// Whether the column is part of the replica identity.
    pub identity: bool,
    /// The OID of the column's type on the source.
    pub type_oid: u32,
    /// The type modifier (`atttypmod`), -1 when there is none.
    pub type_modifier: i32,
    /// The name of the type when a Type message gave one, which it does for every type that is not built in.
    pub type_name: Option<TypeName>,
}

/// A table on the source, as the protocol's Relation message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The OID on the source.
    pub id: RelationId,
    /// The schema; never empty (the protocol's empty name stands for `pg_catalog` and is spelled out here).
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// How old rows are identified.
    pub replica_identity: ReplicaIdentity,
    /// The published columns.
    pub columns: Vec<Column>,
}

impl Relation {
    /// The schema and name.
    #[must_use]
    pub fn qualified_name(&self) -> QualifiedName {
        QualifiedName { schema: self.schema.clone(), name: self.name.clone() }
    }
}

/// A table by schema and name, which are the same on both ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// The schema.
    pub schema: String,
    /// The table's name.
    pub name: String,
}

impl fmt::Display for QualifiedName {
    /// `schema.table`, for messages to people; not quoted for SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl fmt::Display for Relation {
    /// `schema.table`, for messages to people; not quoted for SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}
