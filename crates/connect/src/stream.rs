//! The byte stream to a server, plain or encrypted, over TCP or a Unix socket. Knows nothing of who is at the
//! other end.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_openssl::SslStream;

/// The socket itself.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Whether bytes wait to be read.
    pub(crate) fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let socket = match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        };
        socket.peek(&mut byte).is_ok_and(|count| count > 0)
    }
}

/// An open, not yet authenticated stream to a server.
#[derive(Debug)]
pub struct Stream(pub(crate) Inner);

#[derive(Debug)]
pub(crate) enum Inner {
    Plain(Socket),
    Tls(Box<SslStream<Socket>>),
}

impl Stream {
    /// Whether what goes over it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self.0, Inner::Tls(_))
    }
}

/// Calls one method of whichever stream it is.
macro_rules! either {
    ($stream:expr, $kind:ident, $inner:ident => $call:expr) => {
        match $stream {
            $kind::A($inner) => $call,
            $kind::B($inner) => $call,
        }
    };
}

enum Pinned<A, B> {
    A(A),
    B(B),
}

impl Socket {
    fn pinned(self: Pin<&mut Self>) -> Pinned<Pin<&mut TcpStream>, Pin<&mut UnixStream>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pinned::A(Pin::new(stream)),
            Self::Unix(stream) => Pinned::B(Pin::new(stream)),
        }
    }
}

impl Stream {
    fn pinned(self: Pin<&mut Self>) -> Pinned<Pin<&mut Socket>, Pin<&mut SslStream<Socket>>> {
        match &mut self.get_mut().0 {
            Inner::Plain(socket) => Pinned::A(Pin::new(socket)),
            Inner::Tls(stream) => Pinned::B(Pin::new(stream.as_mut())),
        }
    }
}

macro_rules! async_io {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                either!(self.pinned(), Pinned, stream => stream.poll_read(cx, buf))
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                either!(self.pinned(), Pinned, stream => stream.poll_write(cx, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                either!(self.pinned(), Pinned, stream => stream.poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                self.vectored()
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self.pinned(), Pinned, stream => stream.poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self.pinned(), Pinned, stream => stream.poll_shutdown(cx))
            }
        }
    };
}

async_io!(Socket);
async_io!(Stream);

impl Socket {
    fn vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

impl Stream {
    fn vectored(&self) -> bool {
        match &self.0 {
            Inner::Plain(socket) => socket.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
