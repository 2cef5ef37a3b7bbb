//! The token that clients must show, when there is one. What may not enter: what is answered to whom has it.
//!
//! Of the token only its SHA-256 is kept, and only those are compared, in a time that does not depend on where they differ.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use openssl::base64::decode_block;
use openssl::memcmp;
use openssl::sha::sha256;
use serde_json::json;

use super::watched::{Watched, warn_if_open};
use crate::TelemetryError;

/// Shorter ones can be guessed.
const LEAST_BYTES: usize = 16;

/// What makes it possible to tell the token from others.
pub(super) struct Token {
    digest: [u8; 32],
}

impl Token {
    /// Reads the file, now and whenever it changes.
    ///
    /// # Errors
    /// [`TelemetryError::File`].
    pub(super) fn watch(path: &Path) -> Result<Arc<Watched<Self>>, TelemetryError> {
        warn_if_open("http.token_file", path);
        let file: PathBuf = path.to_owned();
        Watched::new(vec![path.to_owned()], move || Self::read(&file))
    }

    fn read(path: &Path) -> Result<Self, TelemetryError> {
        let bad = |detail: String| TelemetryError::file("http.token_file", path, detail);
        let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let token = text.trim_ascii_end();
        if token.len() < LEAST_BYTES {
            return Err(bad(format!(
                "the token has {} characters, and with fewer than {LEAST_BYTES} it can be guessed: openssl rand -hex 32 \
                 makes a good one",
                token.len()
            )));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(bad(
                "the token has spaces, line breaks or characters that a header cannot carry: openssl rand -hex 32 makes \
                 a good one"
                    .to_owned(),
            ));
        }
        Ok(Self { digest: sha256(token) })
    }

    fn is(&self, shown: &[u8]) -> bool {
        memcmp::eq(&sha256(shown), &self.digest)
    }
}

/// Lets nobody in without the token, but for `/healthz`, which says nothing of the flow, and the bare yes or no of
/// `/readyz`: whoever starts and stops containers asks these, and has no place for a secret.
pub(super) fn protect(app: Router, token: Option<Arc<Watched<Token>>>) -> Router {
    match token {
        None => app,
        Some(token) => app.layer(from_fn_with_state(token, guard)).layer(map_response(super::with_headers)),
    }
}

async fn guard(State(token): State<Arc<Watched<Token>>>, request: Request, next: Next) -> Response {
    let (is_healthz, is_readyz) = (request.uri().path() == "/healthz", request.uri().path() == "/readyz");
    let shown = shown(request.headers());
    let is_known = match &shown {
        Some(shown) => token.current().await.is(shown),
        None => false,
    };
    if is_healthz || is_known {
        return next.run(request).await;
    }
    if is_readyz {
        let answer = next.run(request).await;
        let ready = answer.status().is_success();
        return (answer.status(), Json(json!({ "ready": ready }))).into_response();
    }
    refused(if shown.is_some() { "this is not the token" } else { "a token is asked for" })
}

fn refused(why: &str) -> Response {
    let way_out = "send the content of the server's http.token_file: Authorization: Bearer TOKEN, or as the password \
                   of any user";
    let mut response =
        (StatusCode::UNAUTHORIZED, Json(json!({ "error": format!("{why}: {way_out}") }))).into_response();
    // Programs send the first; the second makes a browser ask.
    for scheme in ["Bearer realm=\"relevo\"", "Basic realm=\"relevo\", charset=\"UTF-8\""] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    }
    response
}

/// What the client shows: a bearer token (RFC 6750), or the password of basic authentication (RFC 7617).
fn shown(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let both = decode_block(rest).ok()?;
    let colon = both.iter().position(|byte| *byte == b':')?;
    both.get(colon + 1..).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Token, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        Token::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_token_itself_is_the_token() {
        let token = of("0123456789abcdef\n").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef\n", "0123456789abcdef0"] {
            assert!(!token.is(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn a_token_that_is_no_good_is_refused_and_not_shown() {
        for (text, part) in
            [("", "0 characters"), ("secret\n", "6 characters"), ("secret secret secret", "spaces")]
        {
            let error = of(text).err().unwrap();
            assert!(error.contains("http.token_file") && error.contains(part), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let gone = Token::read(Path::new("/nowhere/token")).err().unwrap().to_string();
        assert!(gone.contains("/nowhere/token"), "{gone}");
    }

    #[test]
    fn it_may_be_shown_in_two_ways() {
        let shown = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            shown(&headers).map(|bytes| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(shown("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(shown("bearer  abc "), Some("abc".to_owned()));
        // me:to:ken, and no user at all.
        assert_eq!(shown("Basic bWU6dG86a2Vu"), Some("to:ken".to_owned()));
        assert_eq!(shown("Basic OmFiYw=="), Some("abc".to_owned()));
        for value in ["Bearer", "abc", "Digest abc", "Basic !!!", "Basic YWJj", "Basic ", "Basic"] {
            assert_eq!(shown(value), None, "{value}");
        }
    }
}
