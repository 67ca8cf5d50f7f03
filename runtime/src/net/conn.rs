//! One connection on the io side: whole messages over TCP or TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::stream::Detached;
use crate::protocol::handshake::{self, HandshakeError};
use crate::protocol::{DecodeError, FrameDecoder, FrameError, Limits, Message, Value};

/// A socket, plain or encrypted.
pub(super) enum Socket {
    Plain(TcpStream),
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Server(s) => Pin::new(s).poll_read(cx, buf),
            Self::Client(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Server(s) => Pin::new(s).poll_write(cx, buf),
            Self::Client(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Server(s) => Pin::new(s).poll_flush(cx),
            Self::Client(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Server(s) => Pin::new(s).poll_shutdown(cx),
            Self::Client(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no Dask messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message cannot be understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The first message is no handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer took too long.
    #[error("no {0} within {1:?}")]
    Timeout(&'static str, Duration),
}

/// A connection that has shaken hands.
pub struct Connection {
    socket: Socket,
    decoder: FrameDecoder,
    /// The other end.
    pub peer: SocketAddr,
}

impl Connection {
    /// Exchanges handshakes.
    ///
    /// # Errors
    /// If the peer is no Dask peer, or says nothing for `timeout`.
    pub(super) async fn handshake(
        socket: Socket,
        peer: SocketAddr,
        limits: Limits,
        timeout: Duration,
    ) -> Result<Self, ConnError> {
        let mut conn = Self {
            socket,
            decoder: FrameDecoder::new(limits),
            peer,
        };
        let exchange = async {
            conn.write_message(&handshake::encode()).await?;
            let message = conn.read().await?;
            handshake::check(&message.decode()?)?;
            Ok(())
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(())) => Ok(conn),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(ConnError::Timeout("handshake", timeout)),
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// [`ConnError::Closed`] at the end of the stream.
    pub async fn read(&mut self) -> Result<Message, ConnError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            if self.socket.read_buf(self.decoder.read_buf()).await? == 0 {
                return Err(ConnError::Closed);
            }
        }
    }

    /// Completes when the peer closes or breaks the connection; what arrives meanwhile is kept.
    pub async fn closed(&mut self) {
        loop {
            match self.socket.read_buf(self.decoder.read_buf()).await {
                Ok(0) | Err(_) => return,
                // A peer that goes on sending while it waits for an answer is held back by its own socket.
                Ok(_) if self.decoder.read_buf().len() > (1 << 20) => {
                    std::future::pending::<()>().await
                }
                Ok(_) => {}
            }
        }
    }

    /// Writes one value as a message.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn write(&mut self, value: &Value) -> Result<(), ConnError> {
        self.write_message(&Message::encode(value)).await
    }

    /// Writes a message.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn write_message(&mut self, message: &Message) -> Result<(), ConnError> {
        for mut chunk in message.to_chunks() {
            while chunk.has_remaining() {
                self.socket.write_buf(&mut chunk).await?;
            }
        }
        self.socket.flush().await?;
        Ok(())
    }

    /// Gives the socket to the core thread.
    ///
    /// # Errors
    /// If the socket cannot be taken off this runtime.
    pub(super) fn detach(self) -> io::Result<Detached> {
        let unread = self.decoder.into_unread();
        match self.socket {
            Socket::Plain(s) => Ok(Detached {
                socket: s.into_std()?,
                tls: None,
                unread,
            }),
            Socket::Server(s) => {
                let (socket, tls) = s.into_inner();
                Ok(Detached {
                    socket: socket.into_std()?,
                    tls: Some(Box::new(tls)),
                    unread,
                })
            }
            Socket::Client(_) => Err(io::Error::other(
                "an outgoing connection cannot be registered",
            )),
        }
    }

    /// Closes the connection in good order.
    pub async fn shutdown(mut self) {
        let _ = self.socket.shutdown().await;
    }
}

/// Sets what Dask sets on every socket: no delay, and keep-alive probes so that a dead peer is noticed in `timeout`.
pub(super) fn tune(socket: &TcpStream, timeout: Duration) -> io::Result<()> {
    let sock = socket2::SockRef::from(socket);
    sock.set_tcp_nodelay(true)?;
    let secs = timeout.as_secs().max(3);
    let idle = (secs / 4).max(2);
    let interval = (secs.saturating_sub(idle) / 10).max(1);
    let idle = secs.saturating_sub(interval * 10).max(2);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(interval))
        .with_retries(10);
    sock.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    sock.set_tcp_user_timeout(Some(Duration::from_secs(secs)))?;
    Ok(())
}
