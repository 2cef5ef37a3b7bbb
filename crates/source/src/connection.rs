//! A replication connection between commands: log in, ask, create and drop slots, begin to stream.
//!
//! What may not enter: what happens while streaming (see `pump`), and decisions (see `verdict`).

use std::collections::BTreeMap;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message, RowDescriptionBody};
use postgres_protocol::message::frontend;
use relevo_connect::{Authenticated, ConnInfo, ConnectError, Place, ServerMessage, SessionSettings, Stream};
use relevo_model::{Side, SourceLsn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::auth::{self, Login};
use crate::frame::{Frame, Framed};
use crate::slot::SlotInfo;
use crate::verdict::PLUGIN;
use crate::{SourceError, sql};

/// A source that takes a connection and then says nothing must not be waited for for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What `IDENTIFY_SYSTEM` says (manual, *Streaming Replication Protocol*).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's system identifier, in decimal.
    pub system_id: String,
    /// The timeline.
    pub timeline: u32,
    /// Where the flushed WAL ends.
    pub current_lsn: SourceLsn,
    /// The database of this connection.
    pub database: String,
}

/// What to do with the snapshot that the server builds when it creates a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotSnapshot {
    /// Export it: other sessions can see exactly what was committed before the slot's start, until the next
    /// command on this connection.
    Export,
    /// Throw it away.
    Nothing,
}

/// How long a slot lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLifetime {
    /// Until it is dropped.
    Permanent,
    /// As long as the connection that made it.
    Temporary,
}

/// A slot that was just created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The slot sends every transaction that commits after this position, and the snapshot sees every one before.
    pub consistent_point: SourceLsn,
    /// The name for `SET TRANSACTION SNAPSHOT`.
    pub snapshot: Option<String>,
}

/// The rows of one command, as text.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// A column of the first row.
    pub(crate) fn get(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| name == column)?;
        self.rows.first()?.get(index)?.as_deref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn require(&self, command: &str, column: &str) -> Result<&str, SourceError> {
        self.get(column).ok_or_else(|| SourceError::protocol(format!("{command} gave no {column}")))
    }
}

/// A connection in the replication protocol, between commands.
///
/// When the future of a command is dropped, the connection is in the middle of that command: drop it too.
pub struct ReplicationConnection<S = Stream> {
    pub(crate) framed: Framed<S>,
    parameters: BTreeMap<String, String>,
    pid: i32,
    at: Place,
    /// How long the answer to a command may take that is quick for a server that lives.
    answer_limit: Duration,
}

impl ReplicationConnection {
    /// Dials the source and logs in. `application_name` is shown in `pg_stat_replication`.
    ///
    /// # Errors
    /// The server cannot be reached, does not let the role in, or does not answer within `connect_timeout`.
    pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Self, SourceError> {
        // Some warnings are no less than errors here (see the pump), whatever the role's settings hide.
        let settings = SessionSettings::for_values(application_name).with("client_min_messages", "warning");
        let session = relevo_connect::dial_each(info, Side::Source, |dialed| {
            let parameters = parameters(&settings, dialed.options.as_deref());
            async move {
                let login = Login {
                    at: dialed.at,
                    user: dialed.user,
                    database: dialed.database,
                    password: dialed.password,
                    binding: dialed.channel_binding_policy,
                    end_point: dialed.channel_binding,
                    parameters,
                };
                Self::log_in(dialed.stream, &login).await
            }
        });
        let mut session: Self = session.await?;
        if session.server_major() >= 17 {
            session.query(sql::NO_TRANSACTION_TIMEOUT).await?;
        }
        Ok(session)
    }
}

/// Startup parameters; they count before `options`, which may hold others.
fn parameters(settings: &SessionSettings, options: Option<&str>) -> Vec<(String, String)> {
    let mut parameters = settings.parameters.clone();
    parameters.push(("application_name".to_owned(), settings.application_name.clone()));
    parameters.extend(options.map(|options| ("options".to_owned(), options.to_owned())));
    parameters
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationConnection<S> {
    /// Logs in over a stream that is already encrypted, if it is to be.
    ///
    /// # Errors
    /// The server does not let the role in.
    pub async fn log_in(stream: S, login: &Login) -> Result<Authenticated<Self>, ConnectError> {
        let mut framed = Framed::new(stream);
        let greeting = auth::log_in(&mut framed, login).await?;
        let state = greeting.state();
        Ok(Authenticated {
            session: Self {
                framed,
                parameters: greeting.parameters,
                pid: greeting.pid,
                at: login.at.clone(),
                answer_limit: ANSWER_LIMIT,
            },
            state,
        })
    }

    /// How long the source may be silent when it is asked something that is quickly answered; a minute if this is not
    /// called. What may take long (making a slot, waiting for one) has no limit.
    pub(crate) fn set_answer_limit(&mut self, limit: Duration) {
        self.answer_limit = limit;
    }

    /// The process that serves this connection.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.pid
    }

    /// The end of the flow and the server that was reached, for messages.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.at
    }

    /// The server is a physical standby, as far as it has said.
    #[must_use]
    pub fn in_hot_standby(&self) -> bool {
        self.parameter("in_hot_standby") == Some("on")
    }

    /// A parameter that the server reports, such as `server_version`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's major version, such as 15; 0 when it cannot be told.
    #[must_use]
    pub fn server_major(&self) -> u32 {
        let version = self.parameter("server_version").unwrap_or_default();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_default()
    }

    /// `IDENTIFY_SYSTEM`.
    ///
    /// # Errors
    /// The command fails.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, SourceError> {
        const COMMAND: &str = "IDENTIFY_SYSTEM";
        let rows = self.query(COMMAND).await?;
        let bad =
            |column: &str| SourceError::protocol(format!("{COMMAND} gave a {column} that cannot be read"));
        Ok(SystemIdentity {
            system_id: rows.require(COMMAND, "systemid")?.to_owned(),
            timeline: rows.require(COMMAND, "timeline")?.parse().map_err(|_| bad("timeline"))?,
            current_lsn: rows.require(COMMAND, "xlogpos")?.parse().map_err(|_| bad("xlogpos"))?,
            database: rows.require(COMMAND, "dbname")?.to_owned(),
        })
    }

    /// `CREATE_REPLICATION_SLOT … [TEMPORARY] LOGICAL pgoutput`. The server waits for the transactions that run now to end.
    ///
    /// # Errors
    /// The command fails: no slot is free (53400), the name is taken (42710), `wal_level` is not `logical` (55000).
    pub async fn create_slot(
        &mut self,
        name: &str,
        lifetime: SlotLifetime,
        snapshot: SlotSnapshot,
    ) -> Result<CreatedSlot, SourceError> {
        let slot = sql::identifier(name);
        let temporary = if lifetime == SlotLifetime::Temporary { " TEMPORARY" } else { "" };
        // 14 does not know the list in parentheses; later versions prefer it.
        let option = match (self.server_major() >= 15, snapshot) {
            (true, SlotSnapshot::Export) => "(SNAPSHOT 'export')",
            (true, SlotSnapshot::Nothing) => "(SNAPSHOT 'nothing')",
            (false, SlotSnapshot::Export) => "EXPORT_SNAPSHOT",
            (false, SlotSnapshot::Nothing) => "NOEXPORT_SNAPSHOT",
        };
        let command = format!("CREATE_REPLICATION_SLOT {slot}{temporary} LOGICAL {PLUGIN} {option}");
        let rows = self.query_patiently(&command).await?;
        let point = rows.require(&command, "consistent_point")?;
        Ok(CreatedSlot {
            consistent_point: point
                .parse()
                .map_err(|_| SourceError::protocol(format!("{command} gave consistent_point {point:?}")))?,
            snapshot: rows.get("snapshot_name").map(str::to_owned),
        })
    }

    /// `DROP_REPLICATION_SLOT`; with `wait`, once nobody uses the slot any more. `false`: there was none.
    ///
    /// # Errors
    /// The command fails: without `wait`, somebody uses the slot (55006).
    pub async fn drop_slot(&mut self, name: &str, wait: bool) -> Result<bool, SourceError> {
        let slot = sql::identifier(name);
        let answer = match wait {
            true => self.query_patiently(&format!("DROP_REPLICATION_SLOT {slot} WAIT")).await,
            false => self.query(&format!("DROP_REPLICATION_SLOT {slot}")).await,
        };
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("42704") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `SHOW`: the present value of a setting.
    ///
    /// # Errors
    /// There is no such setting (42704).
    pub async fn show(&mut self, setting: &str) -> Result<String, SourceError> {
        let command = format!("SHOW {}", sql::identifier(setting));
        let rows = self.query(&command).await?;
        Ok(rows.require(&command, setting)?.to_owned())
    }

    /// Looks at a slot; `None`: there is no slot of that name.
    ///
    /// # Errors
    /// The query fails.
    pub async fn inspect_slot(&mut self, name: &str) -> Result<Option<SlotInfo>, SourceError> {
        let rows = self.query(&sql::inspect_slot(name)).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        SlotInfo::from_columns(|column| rows.get(column)).map(Some)
    }

    /// Ends the connection in order.
    ///
    /// # Errors
    /// The link breaks, which ends the connection as well.
    pub async fn close(mut self) -> Result<(), SourceError> {
        frontend::terminate(self.framed.output());
        self.framed.send().await
    }

    /// Sends `START_REPLICATION …` and waits for the stream to begin.
    pub(crate) async fn start_replication(&mut self, command: &str) -> Result<(), SourceError> {
        let limit = self.answer_limit;
        timeout(limit, self.begin_stream(command))
            .await
            .unwrap_or(Err(SourceError::Silent { silence: limit }))
    }

    async fn begin_stream(&mut self, command: &str) -> Result<(), SourceError> {
        self.ask(command).await?;
        let mut failed = None;
        loop {
            match self.next(command).await? {
                Frame::CopyBoth => return Ok(()),
                Frame::Message(Message::ErrorResponse(body)) => failed = Some(server_message(body.fields())?),
                Frame::Message(Message::ReadyForQuery(_)) => {
                    return Err(match failed {
                        Some(error) => SourceError::server(command, error),
                        None => SourceError::protocol(format!("{command} did not begin to stream")),
                    });
                }
                Frame::Message(_) => {}
                Frame::CopyData(_) => return Err(SourceError::protocol("CopyData before CopyBothResponse")),
            }
        }
    }

    /// One simple query that is quickly answered. After an error of the server the connection can be used again; after
    /// any other, silence included, it cannot.
    pub(crate) async fn query(&mut self, command: &str) -> Result<Rows, SourceError> {
        let limit = self.answer_limit;
        timeout(limit, self.query_patiently(command))
            .await
            .unwrap_or(Err(SourceError::Silent { silence: limit }))
    }

    /// One simple query, however long it takes.
    async fn query_patiently(&mut self, command: &str) -> Result<Rows, SourceError> {
        self.ask(command).await?;
        let (mut rows, mut failed) = (Rows::default(), None);
        loop {
            match self.next(command).await? {
                Frame::Message(Message::RowDescription(body)) => rows.columns = columns(&body)?,
                Frame::Message(Message::DataRow(body)) => rows.rows.push(row(&body)?),
                Frame::Message(Message::ErrorResponse(body)) => failed = Some(server_message(body.fields())?),
                Frame::Message(Message::CommandComplete(_) | Message::EmptyQueryResponse) => {}
                Frame::Message(Message::ReadyForQuery(_)) => {
                    return match failed {
                        Some(error) => Err(SourceError::server(headline(command), error)),
                        None => Ok(rows),
                    };
                }
                _ => {
                    return Err(SourceError::protocol(format!(
                        "an unexpected answer to {}",
                        headline(command)
                    )));
                }
            }
        }
    }

    async fn ask(&mut self, command: &str) -> Result<(), SourceError> {
        frontend::query(command, self.framed.output()).map_err(|source| SourceError::Io {
            doing: "writing a command (does a name hold a zero byte?)",
            source,
        })?;
        self.framed.send().await
    }

    /// The next frame that belongs to a command: what may come at any time is dealt with here. A fatal error, after
    /// which the server says nothing more, ends the command.
    async fn next(&mut self, command: &str) -> Result<Frame, SourceError> {
        loop {
            match self.framed.next().await? {
                Some(Frame::Message(Message::NoticeResponse(body))) => {
                    tracing::info!(notice = %server_message(body.fields())?, "the source says");
                }
                Some(Frame::Message(Message::ParameterStatus(body))) => {
                    if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                        self.parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                Some(Frame::Message(Message::NotificationResponse(_))) => {}
                Some(Frame::Message(Message::ErrorResponse(body))) => {
                    let error = server_message(body.fields())?;
                    if matches!(error.severity.as_str(), "FATAL" | "PANIC") {
                        return Err(SourceError::server(headline(command), error));
                    }
                    return Ok(Frame::Message(Message::ErrorResponse(body)));
                }
                Some(frame) => return Ok(frame),
                None => return Err(SourceError::Closed { doing: "waiting for the answer to a command" }),
            }
        }
    }
}

impl<S> std::fmt::Debug for ReplicationConnection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicationConnection").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// The fields of an ErrorResponse or NoticeResponse.
pub(crate) fn server_message(fields: ErrorFields<'_>) -> Result<ServerMessage, SourceError> {
    ServerMessage::from_fields(fields).map_err(|source| SourceError::BadFrame { tag: 'E', source })
}

/// A command in a few words, for messages.
fn headline(command: &str) -> String {
    let line = command.trim_start().lines().next().unwrap_or_default();
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn columns(body: &RowDescriptionBody) -> Result<Vec<String>, SourceError> {
    let bad = |source| SourceError::BadFrame { tag: 'T', source };
    body.fields().map(|field| Ok(field.name().to_owned())).collect().map_err(bad)
}

fn row(body: &DataRowBody) -> Result<Vec<Option<String>>, SourceError> {
    let bad = |source| SourceError::BadFrame { tag: 'D', source };
    let buffer = body.buffer();
    let value = |range: Option<std::ops::Range<usize>>| {
        Ok(range.and_then(|range| buffer.get(range)).map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    };
    body.ranges().map(value).collect().map_err(bad)
}
