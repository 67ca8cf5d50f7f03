//! Connections to workers and nannies, kept and reused.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use super::conn::{ConnError, Connection, Socket, tune};
use crate::protocol::{Limits, Value};

/// Idle connections kept to one address.
const IDLE_A_PEER: usize = 4;
/// Idle connections kept in all.
const IDLE_TOTAL: usize = 512;

/// Why a call to a peer failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address cannot be read.
    #[error("{0:?} is not an address of the form tcp://host:port or tls://host:port")]
    Address(String),
    /// TLS is not configured.
    #[error("cannot connect to {0}: no TLS certificates are configured")]
    NoTls(String),
    /// No connection.
    #[error("Timed out trying to connect to {address}: {error}")]
    Connect {
        /// The peer.
        address: String,
        /// Why.
        error: ConnError,
    },
    /// The connection broke.
    #[error("lost the connection to {address}: {error}")]
    Lost {
        /// The peer.
        address: String,
        /// Why.
        error: ConnError,
    },
}

/// A message to be written after the reply, if the reply satisfies the function.
type Ack<'a> = (&'a Value, fn(&Value) -> bool);

/// The pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    idle: Mutex<HashMap<String, Vec<Connection>>>,
    tls: Option<Arc<rustls::ClientConfig>>,
    limits: Limits,
    connect_timeout: Duration,
    tcp_timeout: Duration,
}

impl Pool {
    /// An empty pool.
    pub fn new(
        tls: Option<Arc<rustls::ClientConfig>>,
        limits: Limits,
        connect_timeout: Duration,
        tcp_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            idle: Mutex::default(),
            tls,
            limits,
            connect_timeout,
            tcp_timeout,
        }))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Connection>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection: an idle one, or a new one.
    async fn take(&self, address: &str) -> Result<(Connection, bool), CallError> {
        let idle = self.idle().get_mut(address).and_then(Vec::pop);
        match idle {
            Some(conn) => Ok((conn, true)),
            None => Ok((self.connect(address).await?, false)),
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// If the peer cannot be reached in time.
    pub async fn connect(&self, address: &str) -> Result<Connection, CallError> {
        let timeout = self.0.connect_timeout;
        let attempt = self.connect_once(address);
        match tokio::time::timeout(timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Connect {
                address: address.to_string(),
                error: ConnError::Timeout("connection", timeout),
            }),
        }
    }

    async fn connect_once(&self, address: &str) -> Result<Connection, CallError> {
        let wrong = || CallError::Address(address.to_string());
        let lost = |error: ConnError| CallError::Connect {
            address: address.to_string(),
            error,
        };
        let (scheme, rest) = address.split_once("://").ok_or_else(wrong)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, port))
            .await
            .map_err(|e| lost(e.into()))?;
        tune(&tcp, self.0.tcp_timeout).map_err(|e| lost(e.into()))?;
        let peer: SocketAddr = tcp.peer_addr().map_err(|e| lost(e.into()))?;
        let socket = match scheme {
            "tcp" => Socket::Plain(tcp),
            "tls" => {
                let config = self
                    .0
                    .tls
                    .clone()
                    .ok_or_else(|| CallError::NoTls(address.to_string()))?;
                let name = rustls_pki_types::ServerName::IpAddress(peer.ip().into());
                let tls = tokio_rustls::TlsConnector::from(config)
                    .connect(name, tcp)
                    .await;
                Socket::Client(Box::new(tls.map_err(|e| lost(e.into()))?))
            }
            _ => return Err(wrong()),
        };
        Connection::handshake(socket, peer, self.0.limits, self.0.connect_timeout)
            .await
            .map_err(lost)
    }

    fn give_back(&self, address: &str, conn: Connection) {
        let mut idle = self.idle();
        let total: usize = idle.values().map(Vec::len).sum();
        let list = idle.entry(address.to_string()).or_default();
        if list.len() < IDLE_A_PEER && total < IDLE_TOTAL {
            list.push(conn);
        }
    }

    /// Drops the idle connections to a peer that is gone.
    pub fn forget(&self, address: &str) {
        self.idle().remove(address);
    }

    /// One request and its reply.
    ///
    /// # Errors
    /// If the peer cannot be reached or closes the connection before it answers.
    pub async fn call(&self, address: &str, request: &Value) -> Result<Value, CallError> {
        self.exchange(address, request, None).await
    }

    /// As [`Pool::call`], for requests that are only safe once; `ack` is written after the reply if it says so.
    ///
    /// # Errors
    /// As [`Pool::call`].
    pub async fn exchange(
        &self,
        address: &str,
        request: &Value,
        ack: Option<Ack<'_>>,
    ) -> Result<Value, CallError> {
        let lost = |error: ConnError| CallError::Lost {
            address: address.to_string(),
            error,
        };
        let (mut conn, mut reused) = self.take(address).await?;
        loop {
            match ask(&mut conn, request).await {
                Ok(reply) => {
                    if let Some((value, wanted)) = ack
                        && wanted(&reply)
                    {
                        conn.write(value).await.map_err(lost)?;
                    }
                    self.give_back(address, conn);
                    return Ok(reply);
                }
                // The peer may have closed an idle connection: that says nothing about the peer.
                Err(_) if reused => {
                    conn = self.connect(address).await?;
                    reused = false;
                }
                Err(e) => return Err(lost(e)),
            }
        }
    }
}

async fn ask(conn: &mut Connection, request: &Value) -> Result<Value, ConnError> {
    conn.write(request).await?;
    Ok(conn.read().await?.decode()?)
}
