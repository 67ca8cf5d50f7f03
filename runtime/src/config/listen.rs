//! From `--host`, `--port`, `--interface` and `--protocol` to addresses to listen at, as `distributed.comm.addressing`.

use std::fmt;

/// Default port of a scheduler.
pub const DEFAULT_PORT: u16 = 8786;

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Whether connections are encrypted: `tls://`, else `tcp://`.
    pub tls: bool,
    /// Host name or IP address, without brackets; empty for all interfaces.
    pub host: String,
    /// Port; 0 for any free one.
    pub port: u16,
}

impl ListenAddress {
    /// `tcp` or `tls`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls { "tls" } else { "tcp" }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.scheme(), self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
        }
    }
}

/// Why no address can be made of the flags.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Lists of different lengths.
    #[error("--protocol and --port must both be lists of equal length")]
    UnequalLists,
    /// `--port`.
    #[error("--port {0:?} is not a port number")]
    Port(String),
    /// A port in the host and another in `--port`.
    #[error("port number given twice in options: host {host:?} and port {port}")]
    PortTwice {
        /// The host as given.
        host: String,
        /// The other port.
        port: u16,
    },
    /// IPv6 without brackets.
    #[error("invalid address {0:?}; maybe: ipv6 needs brackets like [::1]")]
    Address(String),
    /// Interface and host.
    #[error("can not specify both --interface {interface:?} and --host {host:?}")]
    HostAndInterface {
        /// The interface.
        interface: String,
        /// The host.
        host: String,
    },
    /// Neither tcp nor tls.
    #[error("protocol {0:?} is not supported; there are tcp and tls")]
    Protocol(String),
    /// Unencrypted although encryption is required.
    #[error(
        "encryption is required (distributed.comm.require-encryption, or a --tls-* flag), but {0} is not encrypted"
    )]
    Unencrypted(String),
    /// No such interface.
    #[error("{name:?} is not a valid network interface; valid network interfaces are: {valid}")]
    Interface {
        /// The interface as given.
        name: String,
        /// Those there are.
        valid: String,
    },
    /// An interface that only has IPv6 or no address.
    #[error("interface {0:?} does not have an IPv4 address")]
    NoIpv4(String),
    /// The system does not tell its interfaces.
    #[error("cannot list the network interfaces: {0}")]
    Interfaces(std::io::Error),
}

/// What the flags say.
#[derive(Clone, Copy, Debug)]
pub struct ListenRequest<'a> {
    /// `--host`.
    pub host: &'a str,
    /// `--port`.
    pub port: Option<&'a str>,
    /// `--interface`.
    pub interface: Option<&'a str>,
    /// `--protocol`.
    pub protocol: Option<&'a str>,
    /// Whether any `--tls-*` flag is given.
    pub tls_flags: bool,
    /// Whether unencrypted connections are refused.
    pub require_encryption: bool,
    /// `distributed.comm.default-scheme`.
    pub default_scheme: &'a str,
}

/// One address per element of the lists given.
pub fn resolve(request: &ListenRequest<'_>) -> Result<Vec<ListenAddress>, ListenError> {
    let hosts = split(Some(request.host).filter(|host| !host.is_empty()));
    let interfaces = split(request.interface);
    let protocols = split(request.protocol);
    let mut ports = split(request.port)
        .into_iter()
        .map(parse_port)
        .collect::<Result<Vec<_>, _>>()?;
    if ports.is_empty() && !hosts.iter().any(|host| has_port(host)) {
        ports.push(DEFAULT_PORT);
        ports.extend(std::iter::repeat_n(
            0,
            protocols.len().max(hosts.len()).saturating_sub(1),
        ));
    }
    if (protocols.len() > 1 || ports.len() > 1)
        && hosts.len() <= 1
        && protocols.len() != ports.len()
    {
        return Err(ListenError::UnequalLists);
    }
    let count = hosts
        .len()
        .max(interfaces.len())
        .max(protocols.len())
        .max(ports.len())
        .max(1);
    (0..count)
        .map(|i| {
            one(
                request,
                pick(&hosts, i)?.copied(),
                pick(&ports, i)?.copied(),
                pick(&interfaces, i)?.copied(),
                pick(&protocols, i)?.copied(),
            )
        })
        .collect()
}

fn split(list: Option<&str>) -> Vec<&str> {
    list.map(|list| list.split(',').map(str::trim).collect())
        .unwrap_or_default()
}

/// Element `i`; a single element stands for all.
fn pick<T>(list: &[T], i: usize) -> Result<Option<&T>, ListenError> {
    match list {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        many => many.get(i).map(Some).ok_or(ListenError::UnequalLists),
    }
}

fn parse_port(text: &str) -> Result<u16, ListenError> {
    text.parse().map_err(|_| ListenError::Port(text.to_owned()))
}

/// Whether a colon and a digit follow each other, stock's test for "the host names a port".
fn has_port(host: &str) -> bool {
    host.as_bytes()
        .windows(2)
        .any(|pair| pair[0] == b':' && pair[1].is_ascii_digit())
}

fn one(
    request: &ListenRequest<'_>,
    host: Option<&str>,
    port: Option<u16>,
    interface: Option<&str>,
    protocol: Option<&str>,
) -> Result<ListenAddress, ListenError> {
    let found;
    let host = match (interface, host) {
        (Some(interface), Some(host)) => {
            return Err(ListenError::HostAndInterface {
                interface: interface.into(),
                host: host.into(),
            });
        }
        (Some(interface), None) => {
            found = interface_ipv4(interface)?;
            found.as_str()
        }
        (None, host) => host.unwrap_or(""),
    };
    let protocol = protocol.map(|p| p.trim_end_matches("://"));
    let (scheme, location) = match host.rsplit_once("://") {
        Some((scheme, location)) => (protocol.unwrap_or(scheme), location),
        None if request.tls_flags || request.require_encryption => {
            (protocol.unwrap_or("tls"), host)
        }
        None => (protocol.unwrap_or(request.default_scheme), host),
    };
    let tls = match scheme {
        "tcp" => false,
        "tls" => true,
        other => return Err(ListenError::Protocol(other.to_owned())),
    };
    let (host_name, own_port) = split_host_port(location)?;
    if let (Some(own), Some(port)) = (own_port, port)
        && own != 0
        && port != 0
        && own != port
    {
        return Err(ListenError::PortTwice {
            host: host.to_owned(),
            port,
        });
    }
    let address = ListenAddress {
        tls,
        host: host_name.to_owned(),
        port: own_port.or(port).unwrap_or(0),
    };
    if request.require_encryption && !tls {
        return Err(ListenError::Unencrypted(address.to_string()));
    }
    Ok(address)
}

/// Splits `host:port`, `host`, `[v6]:port` or `[v6]`.
pub fn split_host_port(location: &str) -> Result<(&str, Option<u16>), ListenError> {
    let bad = || ListenError::Address(location.to_owned());
    let (host, port) = if let Some(rest) = location.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
        match tail {
            "" => (host, None),
            tail => (host, Some(tail.strip_prefix(':').ok_or_else(bad)?)),
        }
    } else {
        match location.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err(bad()),
            Some((host, port)) => (host, Some(port)),
            None => (location, None),
        }
    };
    match port {
        None | Some("") => Ok((host, None)),
        Some(port) => Ok((host, Some(parse_port(port)?))),
    }
}

fn interface_ipv4(name: &str) -> Result<String, ListenError> {
    let addresses =
        nix::ifaddrs::getifaddrs().map_err(|errno| ListenError::Interfaces(errno.into()))?;
    let mut names: Vec<String> = Vec::new();
    for entry in addresses {
        if entry.interface_name == name
            && let Some(ip) = entry
                .address
                .as_ref()
                .and_then(|address| address.as_sockaddr_in())
        {
            return Ok(ip.ip().to_string());
        }
        if !names.contains(&entry.interface_name) {
            names.push(entry.interface_name);
        }
    }
    if names.iter().any(|known| known == name) {
        Err(ListenError::NoIpv4(name.to_owned()))
    } else {
        Err(ListenError::Interface {
            name: name.to_owned(),
            valid: names.join(", "),
        })
    }
}
