//! Accepting HTTP connections: a bound on their number, and TLS without letting a slow handshake hold up others.

use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// HTTP connections at once; further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 512;
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Binds every address; a busy port is replaced by a free one with a warning, as stock does.
pub async fn bind(addresses: &[(String, u16)]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for (host, port) in addresses {
        let listener = match TcpListener::bind((host.as_str(), *port)).await {
            Ok(listener) => listener,
            Err(error) if *port != 0 => {
                let listener = TcpListener::bind((host.as_str(), 0)).await?;
                let actual = listener.local_addr()?.port();
                tracing::warn!(
                    "Port {port} is already in use ({error}). Perhaps you already have a cluster running? \
                     Hosting the HTTP server on port {actual} instead"
                );
                listener
            }
            Err(error) => return Err(error),
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Connections ready to be served.
pub(super) struct Connections {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    local: io::Result<SocketAddr>,
}

impl Connections {
    /// Starts accepting; ends when this value is dropped.
    pub(super) fn accept_from(
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let local = listener.local_addr();
        let (sender, ready) = mpsc::channel(16);
        tokio::spawn(accept_loop(listener, tls.map(TlsAcceptor::from), sender));
        Self { ready, local }
    }
}

async fn accept_loop(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        match &tls {
            None => {
                let connection = Connection {
                    stream: Stream::Plain(stream),
                    _permit: permit,
                };
                if ready.send((connection, peer)).await.is_err() {
                    return;
                }
            }
            Some(acceptor) => {
                tokio::spawn(handshake(
                    acceptor.clone(),
                    stream,
                    peer,
                    permit,
                    ready.clone(),
                ));
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let connection = Connection {
                stream: Stream::Tls(Box::new(stream)),
                _permit: permit,
            };
            let _ = ready.send((connection, peer)).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "HTTPS handshake failed"),
        Err(_) => tracing::debug!(%peer, "HTTPS handshake timed out"),
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The loop ends only with this receiver; should it die, there is nothing more to serve.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.local {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}

/// One HTTP connection, counted as long as it lives.
pub(super) struct Connection {
    stream: Stream,
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
