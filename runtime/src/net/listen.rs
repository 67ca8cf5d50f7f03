//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::conn::{Connection, Socket, tune};
use super::rpc::{self, Ctx};

/// Pause after the kernel refuses a connection (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds a listening socket.
///
/// # Errors
/// If the address is taken or not ours.
pub async fn bind(host: &str, port: u16, backlog: u32) -> io::Result<TcpListener> {
    let mut last = io::Error::new(
        io::ErrorKind::AddrNotAvailable,
        format!("{host} has no address"),
    );
    let host = if host.is_empty() {
        "0.0.0.0"
    } else {
        host.trim_matches(['[', ']'])
    };
    for address in tokio::net::lookup_host((host, port)).await? {
        match bind_one(address, backlog) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.min(i32::MAX as u32) as i32)?;
    TcpListener::from_std(socket.into())
}

/// Serves one listening socket until the process ends.
pub async fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, ctx: Arc<Ctx>) {
    let open = Arc::new(Semaphore::new(ctx.config.max_connections.max(1)));
    loop {
        let Ok(permit) = open.clone().acquire_owned().await else {
            return;
        };
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, ctx) = (tls.clone(), ctx.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(tcp, peer, tls, ctx).await {
                tracing::info!(%peer, error = %error, "connection closed");
            }
            drop(permit);
        });
    }
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    ctx: Arc<Ctx>,
) -> Result<(), super::conn::ConnError> {
    tune(&tcp, ctx.config.tcp_timeout.duration())?;
    let timeout = ctx.config.connect_timeout.duration();
    let socket = match tls {
        None => Socket::Plain(tcp),
        Some(config) => {
            let accept = tokio_rustls::TlsAcceptor::from(config).accept(tcp);
            match tokio::time::timeout(timeout, accept).await {
                Ok(stream) => Socket::Server(Box::new(stream?)),
                Err(_) => return Err(super::conn::ConnError::Timeout("TLS handshake", timeout)),
            }
        }
    };
    let conn = Connection::handshake(socket, peer, ctx.limits, timeout).await?;
    rpc::serve(conn, ctx).await
}
