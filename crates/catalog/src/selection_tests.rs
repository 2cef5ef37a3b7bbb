//! Patterns that must and must not match, and the wildcard against its definition.

use proptest::prelude::*;

use super::*;
use crate::compare::tests::plain;

fn matches(pattern: &str, schema: &str, name: &str) -> bool {
    pattern.parse::<Pattern>().unwrap().matches(&TableName::new(schema, name))
}

#[test]
fn patterns_match_both_parts() {
    assert!(matches("public.*", "public", "orders"));
    assert!(matches("*.*", "Odd Schema", "t.x"));
    assert!(matches("sales_?.o*s", "sales_1", "orders"));
    assert!(!matches("public.*", "publics", "orders"));
    assert!(!matches("public.order", "public", "orders"));
    assert!(!matches("public.Orders", "public", "orders"));
    assert!(matches("größe.?", "größe", "ß"));
}

#[test]
fn quoted_parts_may_hold_dots_and_quotes() {
    assert!(matches(r#""Odd Schema"."t.x""#, "Odd Schema", "t.x"));
    assert!(matches(r#"public."a""b""#, "public", "a\"b"));
    assert!(matches(r#"public."a.*""#, "public", "a.b"));
    assert!(matches(r#"Odd Schema.t"#, "Odd Schema", "t"));
}

#[test]
fn what_is_no_pattern_is_refused_with_the_reason() {
    for (text, reason) in [
        ("orders", "names no schema"),
        ("", "names no schema"),
        ("a.b.c", "more than one dot"),
        (".orders", "empty part"),
        ("public.", "empty part"),
        ("\"a.b", "not closed"),
    ] {
        let error = text.parse::<Pattern>().unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("public.*"), "{text:?}: {error}");
    }
}

#[test]
fn exclude_wins_and_no_include_means_everything() {
    let table = TableName::new("public", "sessions");
    assert!(Selection::default().matches(&table));
    assert!(!Selection::parse(["public.*"], ["public.s*"]).unwrap().matches(&table));
    assert!(!Selection::parse(["other.*"], [""; 0]).unwrap().matches(&table));
    assert!(Selection::parse([""; 0], ["other.*"]).unwrap().matches(&table));
    assert!(Selection::parse(["public"], [""; 0]).is_err());
}

#[test]
fn a_partition_goes_where_its_root_goes() {
    let leaf = |root| TableInfo {
        name: TableName::new("other", "leaf"),
        partition_root: Some(TableName::new("public", root)),
        ..plain()
    };
    let selection = Selection::parse(["public.*"], ["public.sessions"]).unwrap();
    assert!(selection.includes(&leaf("orders")));
    assert!(!selection.includes(&leaf("sessions")));
    assert!(!selection.includes(&TableInfo { partition_root: None, ..leaf("orders") }));
}

#[test]
fn includes_that_match_nothing_are_found() {
    let selection = Selection::parse(["public.*", "pubic.t"], [""; 0]).unwrap();
    let tables = [TableName::new("public", "t")];
    let unmatched: Vec<String> = selection.unmatched(&tables).map(ToString::to_string).collect();
    assert_eq!(unmatched, ["pubic.t"]);
}

#[test]
fn many_stars_do_not_take_exponential_time() {
    let pattern = "a*".repeat(2_000) + "b";
    assert!(!wildcard(&pattern, &"a".repeat(20_000)));
}

/// The definition, by recursion: too slow for long texts, but plain to see.
fn by_definition(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|n| by_definition(rest, &text[n..])),
        Some(('?', rest)) => !text.is_empty() && by_definition(rest, &text[1..]),
        Some((c, rest)) => text.first() == Some(c) && by_definition(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn the_wildcard_does_what_its_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        prop_assert_eq!(wildcard(&pattern, &text), by_definition(&chars(&pattern), &chars(&text)));
    }

    #[test]
    fn a_quoted_name_matches_itself(schema in "[^*?]{1,12}", name in "[^*?]{1,12}") {
        let table = TableName::new(schema, name);
        let pattern: Pattern = table.quoted().parse().unwrap();
        prop_assert!(pattern.matches(&table));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*") {
        let _ = text.parse::<Pattern>();
    }
}

#[test]
fn a_flow_that_was_begun_has_the_tables_that_it_has_recorded_but_for_excluded_ones() {
    let table = |name: &str| TableInfo { name: TableName::new("public", name), ..plain() };
    let part = |name: &str| TableInfo {
        partition_root: Some(TableName::new("public", "p")),
        is_partition: true,
        ..table(name)
    };
    let all = ["t", "later", "gone", "p"].map(table);
    let all: Vec<TableInfo> = all.into_iter().chain([part("p_1"), part("p_2")]).collect();
    let recorded = ["t", "gone", "p_1", "dropped"].map(|name| TableName::new("public", name));
    let patterns = Selection::parse(&["public.later"], &["public.gone"]).unwrap();
    let selection = patterns.of_recorded(&all, &recorded.into_iter().collect());
    let chosen: Vec<&str> =
        all.iter().filter(|table| selection.includes(table)).map(|table| table.name.name.as_str()).collect();
    assert_eq!(chosen, ["t", "p", "p_1", "p_2"]);
    assert!(selection.is_exact() && !selection.is_everything());
}
