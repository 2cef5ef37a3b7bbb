//! A listener with limits: so many connections at once, and none that is silent for long.
//!
//! Without them a client that opens connections and sends nothing would use up the process' file descriptors,
//! which the flow needs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_openssl::SslStream;

use super::listen::Socketed;
use super::tls::Tls;

/// Scrapers, a few people and their browsers.
const CONNECTIONS: usize = 64;

/// A client that neither sends nor takes anything for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct LimitedListener {
    socket: Socketed,
    tls: Option<Tls>,
    places: Arc<Semaphore>,
}

impl LimitedListener {
    pub fn new(socket: Socketed, tls: Option<Tls>) -> Self {
        Self { socket, tls, places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    async fn plain(&mut self) -> Plain {
        // axum's own accept survives a lack of file descriptors.
        match &mut self.socket {
            Socketed::Tcp(listener) => Plain::Tcp(Listener::accept(listener).await.0),
            Socketed::Unix { listener, .. } => Plain::Unix(Listener::accept(listener).await.0),
        }
    }

    /// `None`: there is no memory for TLS.
    async fn dressed(&self, plain: Plain) -> Option<Dressed> {
        match &self.tls {
            None => Some(Dressed::Plain(plain)),
            Some(tls) => SslStream::new(tls.begin().await?, plain).ok().map(Box::new).map(Dressed::Tls),
        }
    }
}

impl Listener for LimitedListener {
    type Io = LimitedStream;
    /// Nobody asks who it is.
    type Addr = ();

    async fn accept(&mut self) -> (LimitedStream, ()) {
        loop {
            // The semaphore is never closed.
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            let plain = self.plain().await;
            if let Some(stream) = self.dressed(plain).await {
                let patience = Box::pin(sleep(PATIENCE));
                return (LimitedStream { stream, patience, _place: place }, ());
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection as the system has it.
#[derive(Debug)]
enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection with what is around it.
enum Dressed {
    Plain(Plain),
    Tls(Box<SslStream<Plain>>),
}

/// Calls a method of whichever stream it is.
macro_rules! on_either {
    ($streams:ident, $self:expr, $first:ident, $second:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            $streams::$first($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            $streams::$second($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

macro_rules! delegates {
    ($streams:ident, $first:ident, $second:ident) => {
        impl AsyncRead for $streams {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                on_either!($streams, self, $first, $second, stream => stream.poll_read(context, buffer))
            }
        }

        impl AsyncWrite for $streams {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                on_either!($streams, self, $first, $second, stream => stream.poll_write(context, bytes))
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                on_either!($streams, self, $first, $second, stream => stream.poll_flush(context))
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                on_either!($streams, self, $first, $second, stream => stream.poll_shutdown(context))
            }
        }
    };
}

delegates!(Plain, Tcp, Unix);
delegates!(Dressed, Plain, Tls);

/// A connection that ends when nothing moves on it.
pub(super) struct LimitedStream {
    stream: Dressed,
    patience: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl LimitedStream {
    /// Passes on what came of reading or writing, unless nothing has for too long.
    fn judge<T>(&mut self, poll: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.patience.as_mut().reset(Instant::now() + PATIENCE);
            return poll;
        }
        ready!(self.patience.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &poll {
            // Such as a handshake that came to nothing.
            tracing::debug!("a connection to the HTTP server was lost: {error}");
        }
        self.judge(poll, context)
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(poll, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
