//! Connections to PostgreSQL servers: connection strings as libpq reads them, passwords, TLS, and the choice among
//! several hosts. It knows no replication protocol and no SQL beyond what a login needs.
//!
//! - [`ConnInfo`] is a connection string, understood.
//! - [`connect_sql`] opens an SQL session ([`SqlSession`], a tokio-postgres client).
//! - [`CopyOut`] are the rows of a COPY, in pieces of bounded length.
//! - [`dial_each`] is for whoever speaks the protocol itself: it reaches servers and applies libpq's rules about what
//!   to try next, and leaves the login to its caller. [`dial()`] only reaches one.
//! - [`ConnectError`] says what went wrong, at which server, and what to do; [`classify`], [`kind`] and [`describe`]
//!   do so for the errors of an open session.
//!
//! What differs from libpq: `connect_timeout` is 10 s when not given; TCP keepalives and `tcp_user_timeout` are set
//! so that a dead link is noticed within about half a minute; a lost or starting server makes the next host be
//! tried; a revocation list that is named must be readable; GSSAPI, service files, `require_auth` and `requirepeer`
//! are refused, not ignored.

mod adapter;
mod attempts;
mod copy_out;
mod dial;
mod diverting;
mod error;
mod home;
mod host;
mod info;
mod libpq;
mod options;
mod parse;
mod password;
mod replica;
mod secret;
mod server_error;
mod session;
mod settings;
mod startup;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub use attempts::{Authenticated, ServerState, dial, dial_each};
pub use copy_out::CopyOut;
pub use dial::Dialed;
pub use error::{ConnectError, InvalidConnInfo};
pub use host::{Host, HostName, Place};
pub use info::ConnInfo;
pub use libpq::LibpqFiles;
pub use options::{ChannelBinding, SslCertMode, SslMode, SslNegotiation, TargetSessionAttrs};
pub use replica::{RIGHTS_SCHEMA, ReplicaRole, act_as_replica, grant_replica_role};
pub use secret::Secret;
pub use server_error::{ServerMessage, classify, describe, kind};
pub use session::{Canceller, SqlSession, connect_sql};
pub use startup::{SessionSettings, VALUE_SETTINGS};
pub use stream::Stream;
