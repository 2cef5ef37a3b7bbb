//! Taking connection strings out of messages about what could not be understood.
//!
//! A URL with its password may stand in the wrong place: behind a misspelt option, as another setting's value. What
//! may not enter: connection strings that were understood; `relevo_connect` prints those without secrets.

use std::borrow::Cow;

/// What is shown instead.
const HIDDEN: &str = "<connection string>";

/// The text itself, or a stand-in when it looks like a connection string.
pub fn redact(text: &str) -> Cow<'_, str> {
    if is_telling(text) { Cow::Borrowed(HIDDEN) } else { Cow::Borrowed(text) }
}

/// The message without those of the given texts that look like connection strings, in whatever way it quotes them.
pub fn redact_all<'t>(message: &str, texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut telling: Vec<&str> = texts.into_iter().filter(|text| is_telling(text)).collect();
    // The longest first: one may be a part of another.
    telling.sort_by_key(|text| std::cmp::Reverse(text.len()));
    telling.iter().fold(message.to_owned(), |message, text| {
        let quoted = format!("{text:?}");
        let inner = quoted.trim_matches('"');
        message.replace(text, HIDDEN).replace(inner, HIDDEN)
    })
}

/// Whether the text may hold a password.
fn is_telling(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("://") || text.contains("passw") || (text.contains(':') && text.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_password_is_hidden_and_the_rest_is_shown() {
        for text in ["postgres://u:p@h/d", "host=h password=p", "u:p@h"] {
            assert_eq!(redact(text), HIDDEN);
        }
        for text in ["loud=very", "127.0.0.1:9187", "public.*", "64MiB"] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn a_message_shows_no_text_that_may_hold_a_password_however_it_is_quoted() {
        let odd = "postgres://u:p\"q@h/d";
        let message = format!("{odd} and {odd:?} and 'x'");
        let shown = redact_all(&message, [odd, "x"]);
        assert_eq!(shown, "<connection string> and \"<connection string>\" and 'x'");
    }
}
