//! Tables of every kind that matters to folding.

use relevo_model::{Column, Relation, RelationId, ReplicaIdentity};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Small numbers, so that they meet.
    Int,
    /// Numbers that are equal although their texts differ.
    Numeric,
    /// Texts that need quoting in one way or another.
    Text,
    /// Values that are stored out of line, and not sent when they did not change.
    Toast,
    /// `int[]`
    Array,
    /// A composite with odd texts in it.
    Pair,
    /// `jsonb`
    Json,
    /// Ranges of one number each.
    Range,
}

/// How the source names a row.
pub enum Identity {
    Columns(&'static [usize]),
    Full,
}

/// A table. Its columns are `c0`, `c1` and so on.
pub struct Design {
    pub columns: &'static [Kind],
    /// Which of them are never NULL.
    pub required: &'static [usize],
    pub identity: Identity,
    /// What is unique on the source and the target, the identity included.
    pub unique: &'static [&'static [usize]],
    /// What follows the columns in CREATE TABLE, and behind it.
    pub clauses: &'static str,
    pub options: &'static str,
}

use Identity::{Columns, Full};
use Kind::{Array, Int, Json, Numeric, Pair, Range, Text, Toast};

pub const DESIGNS: [Design; 12] = [
    Design {
        columns: &[Int, Text, Toast],
        required: &[0],
        identity: Columns(&[0]),
        unique: &[&[0]],
        clauses: ", PRIMARY KEY (c0)",
        options: "",
    },
    Design {
        columns: &[Text, Int, Int, Toast],
        required: &[1, 0],
        identity: Columns(&[1, 0]),
        unique: &[&[1, 0], &[2]],
        clauses: ", PRIMARY KEY (c1, c0), UNIQUE (c2)",
        options: "",
    },
    Design {
        columns: &[Int, Int, Int, Int],
        required: &[0],
        identity: Columns(&[0]),
        unique: &[&[0], &[1], &[2, 3]],
        clauses: ", PRIMARY KEY (c0), UNIQUE (c1), UNIQUE (c2, c3)",
        options: "",
    },
    Design {
        columns: &[Numeric, Array, Pair, Json],
        required: &[0],
        identity: Columns(&[0]),
        unique: &[&[0]],
        clauses: ", PRIMARY KEY (c0)",
        options: "",
    },
    Design {
        columns: &[Toast, Int, Text],
        required: &[1],
        identity: Full,
        unique: &[&[1]],
        clauses: ", PRIMARY KEY (c1)",
        options: "",
    },
    Design {
        columns: &[Int, Numeric, Text],
        required: &[],
        identity: Full,
        unique: &[],
        clauses: "",
        options: "",
    },
    Design {
        columns: &[Int, Text, Int],
        required: &[0, 2],
        identity: Columns(&[2]),
        unique: &[&[0], &[2]],
        clauses: ", PRIMARY KEY (c0), UNIQUE (c2)",
        options: "",
    },
    Design {
        columns: &[Int, Text, Toast],
        required: &[0],
        identity: Columns(&[0]),
        unique: &[&[0]],
        clauses: ", PRIMARY KEY (c0)",
        options: "PARTITION BY HASH (c0)",
    },
    Design {
        columns: &[Int, Int, Toast],
        required: &[0],
        identity: Columns(&[0]),
        unique: &[&[0]],
        clauses: ", more text DEFAULT 'default', twice int GENERATED ALWAYS AS (c1 * 2) STORED, PRIMARY KEY (c0)",
        options: "",
    },
    Design {
        columns: &[Int, Range, Text],
        required: &[0],
        identity: Columns(&[0]),
        unique: &[&[0], &[1]],
        clauses: ", PRIMARY KEY (c0), EXCLUDE USING gist (c1 WITH &&)",
        options: "",
    },
    Design {
        columns: &[Array, Range, Int],
        required: &[0, 1],
        identity: Columns(&[0, 1]),
        unique: &[&[0, 1]],
        clauses: ", PRIMARY KEY (c0, c1)",
        options: "",
    },
    Design {
        columns: &[Int],
        required: &[0],
        identity: Columns(&[0]),
        unique: &[&[0]],
        clauses: ", PRIMARY KEY (c0)",
        options: "",
    },
];

impl Design {
    pub fn name(number: usize) -> String {
        format!("d{number}")
    }

    pub fn create(&self, number: usize) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(n, kind)| {
                let required = if self.required.contains(&n) { " NOT NULL" } else { "" };
                format!("c{n} {}{required}", kind.sql_type())
            })
            .collect();
        let name = Self::name(number);
        let table = format!("CREATE TABLE {name} ({}{}) {}", columns.join(", "), self.clauses, self.options);
        if self.options.is_empty() {
            return table;
        }
        let part = |n| {
            format!("CREATE TABLE {name}_{n} PARTITION OF {name} FOR VALUES WITH (MODULUS 3, REMAINDER {n})")
        };
        [table, part(0), part(1), part(2)].join(";\n")
    }

    pub fn select(&self, number: usize) -> String {
        let columns: Vec<String> = (0..self.columns.len()).map(|n| format!("c{n}::text")).collect();
        let more = if self.clauses.contains("more") { ", more, twice::text" } else { "" };
        format!("SELECT {}{more} FROM {}", columns.join(", "), Self::name(number))
    }

    pub fn insert(&self, number: usize, row: &[Option<String>]) -> String {
        let quote = |value: &Option<String>| match value {
            Some(text) => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
            None => "NULL".into(),
        };
        let (names, values): (Vec<String>, Vec<String>) =
            row.iter().enumerate().map(|(n, value)| (format!("c{n}"), quote(value))).unzip();
        format!("INSERT INTO {} ({}) VALUES ({});\n", Self::name(number), names.join(", "), values.join(", "))
    }

    pub fn relation(&self, number: usize) -> Relation {
        let in_identity = |n: usize| match self.identity {
            Columns(columns) => columns.contains(&n),
            Full => true,
        };
        Relation {
            id: RelationId(10_000 + u32::try_from(number).unwrap()),
            schema: "public".into(),
            name: Self::name(number),
            replica_identity: match self.identity {
                Columns(_) => ReplicaIdentity::Default,
                Full => ReplicaIdentity::Full,
            },
            columns: (0..self.columns.len())
                .map(|n| Column {
                    name: format!("c{n}"),
                    identity: in_identity(n),
                    type_oid: 25,
                    type_modifier: -1,
                    type_name: None,
                })
                .collect(),
        }
    }

    /// A value for a column; the same seed gives the same value.
    pub fn value(&self, column: usize, seed: u8) -> Option<String> {
        let nullable = !self.required.contains(&column);
        if nullable && seed.is_multiple_of(5) {
            return None;
        }
        Some(self.columns[column].value(seed))
    }
}

impl Kind {
    fn sql_type(self) -> &'static str {
        match self {
            Int => "int",
            Numeric => "numeric",
            Text => "text",
            Toast => "text",
            Array => "int[]",
            Pair => "pair",
            Json => "jsonb",
            Range => "int4range",
        }
    }

    fn value(self, seed: u8) -> String {
        const TEXTS: [&str; 12] =
            ["", "a", "b c", "\"", "\\", "a,b", "(x)", "{y}", "\t\n\r", "NULL", "\\N", "'\"\\,()'ä"];
        let n = usize::from(seed);
        match self {
            Int => format!("{n}"),
            Numeric => format!("{}.{}", n / 3, &"000"[..n % 3 + 1]),
            Text => TEXTS[n % TEXTS.len()].to_owned() + &"x".repeat(n / 60),
            Toast if n.is_multiple_of(3) => format!("{n}\"\\,").repeat(900),
            Toast => format!("short {n}"),
            Array if n.is_multiple_of(4) => format!("{{{{{n},2}},{{3,4}}}}"),
            Array => format!("{{{n},NULL}}"),
            Pair => {
                let text = ["x", "\"a b\"", "\"c,d\"", "\"e\"\"f\"", "\"g\\\\h\"", "\"\"", ""][n % 7];
                format!("({},{text})", n / 7)
            }
            Json => format!("{{\"k\": \"v\\\"{n}\", \"list\": [{n}, null]}}"),
            Range => format!("[{n},{})", n + 1),
        }
    }

    /// What a unique key compares.
    pub fn comparable(self, text: &str) -> String {
        match self {
            Numeric => text.trim_end_matches('0').to_owned(),
            _ => text.to_owned(),
        }
    }
}
