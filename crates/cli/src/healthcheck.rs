//! `relevo healthcheck`: asks the HTTP endpoint of the `relevo run` on this machine how it is, for containers and service
//! managers that have no other program to ask with.
//!
//! What may not enter: databases, and a judgement of its own. What the endpoint says is what counts.

use relevo_telemetry::Listen;
use serde_json::Value;
use tokio::time::timeout;

use crate::args::HealthcheckArgs;
use crate::error::CliError;
use crate::output;
use crate::settings::{File, HealthSettings};

/// What is asked for: the path, and the key of the answer that says yes.
#[derive(Debug, Clone, Copy)]
struct Question {
    path: &'static str,
    word: &'static str,
}

const ALIVE: Question = Question { path: "/healthz", word: "alive" };
const READY: Question = Question { path: "/readyz", word: "ready" };

/// Prints `alive` or `ready`.
///
/// # Errors
/// [`CliError::Failed`]: it is not, nobody answers in time, or who answers is not Relevo.
pub async fn run(args: &HealthcheckArgs, file: &File) -> Result<(), CliError> {
    let HealthSettings { entrance, limit } = file.health(args)?;
    let question = if args.ready { READY } else { ALIVE };
    let url = match (&entrance.listen, &entrance.tls) {
        (Listen::Tcp(address), None) => format!("http://{address}{}", question.path),
        (Listen::Tcp(address), Some(_)) => format!("https://{address}{}", question.path),
        (socket @ Listen::Unix(_), _) => format!("{} of {socket}", question.path),
    };
    let answer = match timeout(limit, relevo_telemetry::ask(&entrance, question.path)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Err(CliError::failed(format!(
                "nobody answers at {url}: {error}; if relevo run listens elsewhere, say where \
                 (--http-listen, RELEVO_HTTP_LISTEN or http.listen)"
            ))
            .of_kind("not_running"));
        }
        Err(_) => {
            let text = format!("no answer from {url} within {} s", limit.as_secs_f64());
            return Err(CliError::failed(text).of_kind("no_answer"));
        }
    };
    match judge(question, &answer) {
        Verdict::Yes => output::print(&format!("{}\n", question.word)),
        Verdict::No(why) => {
            Err(CliError::failed(format!("not {}: {why}", question.word)).of_kind("not_healthy"))
        }
        Verdict::Stranger => Err(CliError::failed(format!(
            "what answers at {url} is not relevo run: expected a JSON object with {:?}",
            question.word
        ))
        .of_kind("not_relevo")),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    /// And why.
    No(String),
    /// Somebody else listens there.
    Stranger,
}

fn judge(question: Question, answer: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(answer);
    let Some((_, body)) = text.split_once("\r\n\r\n") else { return Verdict::Stranger };
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    match document[question.word].as_bool() {
        Some(true) => Verdict::Yes,
        Some(false) => Verdict::No(reason(&document)),
        None => Verdict::Stranger,
    }
}

fn reason(document: &Value) -> String {
    let reasons = document["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    match document["heartbeat_age_seconds"].as_f64() {
        Some(age) => format!("the main loop has not gone round for {}", output::seconds(age)),
        None if reasons.is_empty() => "it does not say why".to_owned(),
        None => reasons,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn the_endpoints_own_word_decides() {
        assert_eq!(judge(ALIVE, &answer(r#"{"alive":true,"heartbeat_age_seconds":0.1}"#)), Verdict::Yes);
        assert_eq!(
            judge(ALIVE, &answer(r#"{"alive":false,"heartbeat_age_seconds":75.0}"#)),
            Verdict::No("the main loop has not gone round for 1 min 15 s".to_owned())
        );
        assert_eq!(judge(READY, &answer(r#"{"ready":true,"reasons":[]}"#)), Verdict::Yes);
        assert_eq!(
            judge(READY, &answer(r#"{"ready":false,"reasons":["the flow is copying","1 of 2 tables"]}"#)),
            Verdict::No("the flow is copying; 1 of 2 tables".to_owned())
        );
    }

    #[test]
    fn who_is_not_relevo_is_not_believed() {
        for body in ["", "OK", "{}", "[true]", r#"{"ready":true}"#, r#"{"alive":"true"}"#] {
            assert_eq!(judge(ALIVE, &answer(body)), Verdict::Stranger, "{body:?}");
        }
        assert_eq!(judge(ALIVE, b"SSH-2.0-OpenSSH_9.2\r\n"), Verdict::Stranger);
    }
}
