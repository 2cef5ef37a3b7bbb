//! Whether every value of one type, in its text form, is a value of another type.
//!
//! Types are compared by what `format_type` prints: OIDs of types that are not built in differ between servers.

/// How a source column's type goes into a target column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The same type.
    Same,
    /// Another type that takes every value as it is written.
    Wider,
    /// Some values may not fit, or would come to mean something else.
    Uncertain,
}

/// A type as `format_type` prints it, taken apart: `numeric(10,2)[]` is base `numeric`, modifiers 10 and 2, array.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    base: String,
    modifiers: Vec<i32>,
    array: bool,
}

fn parse(type_sql: &str) -> Parsed {
    let (element, array) = match type_sql.strip_suffix("[]") {
        Some(element) => (element, true),
        None => (type_sql, false),
    };
    let plain = |base: &str| Parsed { base: base.to_owned(), modifiers: Vec::new(), array };
    // A quoted name is that of a user's type: it may hold anything, and its modifiers mean what it likes.
    if element.contains('"') {
        return plain(element);
    }
    let Some((before, rest)) = element.split_once('(') else { return plain(element) };
    let Some((inside, after)) = rest.split_once(')') else { return plain(element) };
    let modifiers: Result<Vec<i32>, _> = inside.split(',').map(|number| number.trim().parse()).collect();
    match modifiers {
        // `timestamp(3) with time zone` has its modifier inside the name.
        Ok(modifiers) => Parsed { base: format!("{before}{after}"), modifiers, array },
        Err(_) => plain(element),
    }
}

/// How values of the type `source` go into the type `target`.
pub(crate) fn fit(source: &str, target: &str) -> Fit {
    if source == target {
        return Fit::Same;
    }
    let (source, target) = (parse(source), parse(target));
    // Whatever a value is, text without a limit holds what is written of it.
    if !target.array && target.modifiers.is_empty() && is_text(&target.base) {
        return Fit::Wider;
    }
    if source.array == target.array && widens(&source, &target) { Fit::Wider } else { Fit::Uncertain }
}

fn is_text(base: &str) -> bool {
    matches!(base, "text" | "character varying")
}

fn widens(source: &Parsed, target: &Parsed) -> bool {
    let modifier = |of: &Parsed| of.modifiers.first().copied();
    // A modifier that is missing on the target is no limit.
    let not_narrower = || match (modifier(source), modifier(target)) {
        (_, None) => true,
        (Some(from), Some(to)) => to >= from,
        (None, Some(_)) => false,
    };
    match (source.base.as_str(), target.base.as_str()) {
        ("smallint", "integer" | "bigint") | ("integer", "bigint") | ("real", "double precision") => true,
        ("smallint", "numeric") => integer_digits(target).is_none_or(|digits| digits >= 5),
        ("integer", "numeric") => integer_digits(target).is_none_or(|digits| digits >= 10),
        ("bigint", "numeric") => integer_digits(target).is_none_or(|digits| digits >= 19),
        ("numeric", "numeric") => match (source.modifiers.as_slice(), target.modifiers.as_slice()) {
            (_, []) => true,
            ([p1, s1], [p2, s2]) => s2 >= s1 && p2 - s2 >= p1 - s1,
            _ => false,
        },
        // `character(n)` is written with its padding, so n characters are needed. In `character` they would be
        // compared without it.
        ("character varying" | "character", "character varying") | ("character", "character") => {
            not_narrower()
        }
        ("text" | "character varying" | "character", "text") => true,
        ("text", "character varying") => target.modifiers.is_empty(),
        ("bit varying" | "bit", "bit varying") => not_narrower(),
        // Without a modifier a time keeps six digits.
        (from, to) if from == to && (from.starts_with("timestamp") || from.starts_with("time ")) => {
            modifier(target).unwrap_or(6) >= modifier(source).unwrap_or(6)
        }
        ("date", "timestamp without time zone") | ("cidr", "inet") | ("jsonb", "json") => true,
        _ => false,
    }
}

/// How many digits a numeric type holds before the point; `None` when there is no limit.
fn integer_digits(numeric: &Parsed) -> Option<i32> {
    match numeric.modifiers.as_slice() {
        [precision, scale] => Some(precision - scale),
        [precision] => Some(*precision),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_format_type_prints_is_taken_apart() {
        let parsed = parse("timestamp(3) with time zone[]");
        assert_eq!(
            (parsed.base.as_str(), parsed.modifiers.as_slice(), parsed.array),
            ("timestamp with time zone", &[3][..], true)
        );
        assert_eq!(parse("numeric(10,2)").modifiers, [10, 2]);
        assert_eq!(parse("public.\"odd(1)\"").modifiers, [0; 0]);
        assert_eq!(parse("public.geometry(Point,4326)").base, "public.geometry(Point,4326)");
    }

    #[test]
    fn types_that_take_every_value() {
        for (source, target) in [
            ("smallint", "integer"),
            ("integer", "bigint"),
            ("bigint", "numeric"),
            ("bigint", "numeric(21,2)"),
            ("character varying(10)", "text"),
            ("character varying(10)", "character varying(11)"),
            ("character(10)", "character varying(10)"),
            ("numeric(10,2)", "numeric(12,3)"),
            ("numeric(10,2)", "numeric"),
            ("timestamp(3) with time zone", "timestamp with time zone"),
            ("time(0) without time zone", "time(6) without time zone"),
            ("bit(3)", "bit varying"),
            ("integer[]", "bigint[]"),
            ("public.mood", "text"),
            ("integer[]", "text"),
            ("jsonb", "json"),
        ] {
            assert_eq!(fit(source, target), Fit::Wider, "{source} into {target}");
        }
    }

    #[test]
    fn types_that_do_not() {
        for (source, target) in [
            ("bigint", "integer"),
            ("bigint", "numeric(20,2)"),
            ("text", "character varying(10)"),
            ("character varying", "character varying(10)"),
            ("character varying(10)", "character varying(9)"),
            ("numeric", "numeric(10,2)"),
            ("numeric(10,2)", "numeric(10,3)"),
            ("timestamp with time zone", "timestamp(3) with time zone"),
            ("timestamp without time zone", "timestamp with time zone"),
            ("json", "jsonb"),
            ("integer", "bigint[]"),
            ("integer[]", "bigint"),
            ("a.mood", "b.mood"),
            ("bit(3)", "bit(4)"),
            ("text", "character"),
            ("double precision", "numeric"),
            ("money", "numeric"),
        ] {
            assert_eq!(fit(source, target), Fit::Uncertain, "{source} into {target}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_without_a_panic(a in ".*", b in ".*") {
            prop_assert_eq!(fit(&a, &a), Fit::Same);
            fit(&a, &b);
        }

        #[test]
        fn numerics_fit_exactly_when_both_parts_do(p1 in 1..40_i32, s1 in 0..20_i32, p2 in 1..40_i32, s2 in 0..20_i32) {
            let wider = fit(&format!("numeric({p1},{s1})"), &format!("numeric({p2},{s2})")) != Fit::Uncertain;
            prop_assert_eq!(wider, s2 >= s1 && p2 - s2 >= p1 - s1);
        }
    }
}
