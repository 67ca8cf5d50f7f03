//! The command line of `oxidask-scheduler`: the flags of `dask scheduler`, and a few of its own.

use super::listen::{self, ListenAddress, ListenRequest};
use super::scheduler::{Quantity, SchedulerConfig};
use super::{ConfigError, units};
use clap::{ArgAction, Parser, ValueEnum};
use std::path::PathBuf;

/// How log records are written to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text, as stock Dask writes it.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Launch a Dask scheduler.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "oxidask-scheduler",
    version = version_text(),
    about = "Launch a Dask scheduler",
    after_help = "Settings come from Dask's configuration files and DASK_* environment variables too; \
                  keys of this scheduler's own are under `oxidask`."
)]
pub struct SchedulerArgs {
    /// URI, IP or hostname of this server; a comma-separated list to listen at several
    #[arg(long, default_value = "")]
    pub host: String,
    /// Serving port [default: 8786]; a comma-separated list to listen at several
    #[arg(long)]
    pub port: Option<String>,
    /// Preferred network interface like 'eth0' or 'ib0'
    #[arg(long)]
    pub interface: Option<String>,
    /// Protocol: tcp or tls; a comma-separated list to listen at several
    #[arg(long)]
    pub protocol: Option<String>,
    /// CA cert(s) file for TLS (in PEM format)
    #[arg(long, value_name = "PATH", value_parser = existing_path)]
    pub tls_ca_file: Option<PathBuf>,
    /// Certificate file for TLS (in PEM format)
    #[arg(long, value_name = "PATH", value_parser = existing_path)]
    pub tls_cert: Option<PathBuf>,
    /// Private key file for TLS (in PEM format)
    #[arg(long, value_name = "PATH", value_parser = existing_path)]
    pub tls_key: Option<PathBuf>,
    /// Address on which to listen for the dashboard, metrics and health
    #[arg(long, default_value = ":8787")]
    pub dashboard_address: String,
    /// Serve the dashboard pages (the default)
    #[arg(long, overrides_with = "no_dashboard")]
    pub dashboard: bool,
    /// Serve metrics, health and JSON only
    #[arg(long, overrides_with = "dashboard")]
    pub no_dashboard: bool,
    /// Start a Jupyter server: not supported
    #[arg(long, overrides_with = "no_jupyter")]
    pub jupyter: bool,
    /// Do not start a Jupyter server (the default)
    #[arg(long, overrides_with = "jupyter")]
    pub no_jupyter: bool,
    /// Deprecated, ignored
    #[arg(long, hide = true, overrides_with = "no_show")]
    pub show: bool,
    /// Deprecated, ignored
    #[arg(long, hide = true, overrides_with = "show")]
    pub no_show: bool,
    /// Prefix for the dashboard's URLs
    #[arg(long, default_value = "")]
    pub dashboard_prefix: String,
    /// Deprecated, ignored
    #[arg(long, hide = true, action = ArgAction::Set, value_name = "BOOL")]
    pub use_xheaders: Option<String>,
    /// File to write the process id to
    #[arg(long, value_name = "PATH")]
    pub pid_file: Option<PathBuf>,
    /// File to write connection information to, for clients and workers on a shared file system
    #[arg(long, value_name = "PATH")]
    pub scheduler_file: Option<PathBuf>,
    /// Module to load in the Python process beside the scheduler, as "foo.bar" or "/path/to/foo.py"
    #[arg(long, value_name = "MODULE")]
    pub preload: Vec<String>,
    /// Time of inactivity after which to end, like "1h" or "30 minutes"
    #[arg(long)]
    pub idle_timeout: Option<String>,
    /// Format of log records on standard error
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Arguments for preloaded modules: whatever follows the first flag that is not known
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub preload_argv: Vec<String>,
}

fn existing_path(text: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(text).map_err(|error| format!("path {text:?}: {error}"))
}

/// `oxidask-scheduler, version …`: what `--version` prints after the name.
fn version_text() -> &'static str {
    concat!(
        env!("CARGO_PKG_VERSION"),
        " (wire-compatible with dask.distributed 2026.8)"
    )
}

/// What is wrong with a command line that parses.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A feature of the stock scheduler that is not there.
    #[error("{0}")]
    Unsupported(String),
    /// The addresses make no sense.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// `--idle-timeout`.
    #[error("--idle-timeout: {0}")]
    IdleTimeout(units::UnitError),
    /// `--dashboard-address`.
    #[error("--dashboard-address {0:?}: expected `host:port`, `:port` or a port")]
    DashboardAddress(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Everything the command line asks for, checked and merged with the configuration.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Where to listen for clients and workers.
    pub listen: Vec<ListenAddress>,
    /// Where to serve HTTP: `(host, port)`, host never empty; a busy port falls back to any free one.
    pub dashboard: Vec<(String, u16)>,
    /// Whether the dashboard's pages are served.
    pub dashboard_pages: bool,
    /// Prefix of all HTTP paths, without slashes at the ends; empty for none.
    pub dashboard_prefix: String,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// File for the connection information.
    pub scheduler_file: Option<PathBuf>,
    /// Format of log records.
    pub log_format: LogFormat,
}

impl SchedulerArgs {
    /// Checks the flags and merges those that override configuration into `config`.
    pub fn resolve(&self, config: &mut SchedulerConfig) -> Result<SchedulerOptions, CliError> {
        self.check_supported()?;
        if !self.preload.is_empty() {
            config.preload = self.preload.clone();
            config.preload_argv = self.preload_argv.clone();
        }
        if let Some(text) = self.idle_timeout.as_deref().filter(|text| !text.is_empty()) {
            config.idle_timeout = Some(Quantity(
                units::parse_timedelta(text).map_err(CliError::IdleTimeout)?,
            ));
        }
        self.apply_tls(config);
        let request = ListenRequest {
            host: &self.host,
            port: self.port.as_deref(),
            interface: self.interface.as_deref(),
            protocol: self.protocol.as_deref(),
            tls_flags: self.tls_given(),
            require_encryption: config.require_encryption == Some(true),
            default_scheme: &config.default_scheme,
        };
        Ok(SchedulerOptions {
            listen: listen::resolve(&request)?,
            dashboard: dashboard_addresses(&self.dashboard_address)?,
            dashboard_pages: !self.no_dashboard,
            dashboard_prefix: self.dashboard_prefix.trim_matches('/').to_owned(),
            pid_file: self.pid_file.clone(),
            scheduler_file: self.scheduler_file.clone(),
            log_format: self.log_format,
        })
    }

    fn tls_given(&self) -> bool {
        self.tls_ca_file.is_some() || self.tls_cert.is_some() || self.tls_key.is_some()
    }

    fn apply_tls(&self, config: &mut SchedulerConfig) {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        for (flag, setting) in [
            (&self.tls_ca_file, &mut config.tls_ca_file),
            (&self.tls_cert, &mut config.tls_cert),
            (&self.tls_key, &mut config.tls_key),
        ] {
            if let Some(path) = flag {
                *setting = Some(text(path));
            }
        }
        // Stock: unless configured, encryption is required as soon as a TLS flag is given.
        config.require_encryption.get_or_insert(self.tls_given());
    }

    fn check_supported(&self) -> Result<(), CliError> {
        if self.jupyter {
            return Err(CliError::Unsupported(
                "--jupyter is not supported: this scheduler is not a Python process. Start `jupyter server` beside it, \
                 with DASK_SCHEDULER_ADDRESS set to its address"
                    .into(),
            ));
        }
        if let Some(argument) = self
            .preload_argv
            .first()
            .filter(|_| self.preload.is_empty())
        {
            return Err(CliError::Unsupported(format!(
                "unexpected argument {argument:?}; see --help"
            )));
        }
        Ok(())
    }
}

/// `"8787"`, `":8787"`, `"host:8787"`, or several of them with commas; no host means all interfaces.
fn dashboard_addresses(text: &str) -> Result<Vec<(String, u16)>, CliError> {
    let bad = || CliError::DashboardAddress(text.to_owned());
    text.split(',')
        .map(|part| {
            let part = part.trim();
            if let Ok(port) = part.parse() {
                return Ok(("0.0.0.0".to_owned(), port));
            }
            let (host, port) = match part.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
                    (host, port.parse().map_err(|_| bad())?)
                }
                Some(_) => return Err(bad()),
                None => (part, 0),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok((
                if host.is_empty() { "0.0.0.0" } else { host }.to_owned(),
                port,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn resolve(args: &[&str]) -> Result<(SchedulerOptions, SchedulerConfig), CliError> {
        let args = SchedulerArgs::try_parse_from(
            std::iter::once("dask-scheduler").chain(args.iter().copied()),
        )
        .map_err(|error| CliError::Unsupported(error.to_string()))?;
        let mut config = SchedulerConfig::new(&Config::from_user(super::super::Tree::empty_map()))?;
        Ok((args.resolve(&mut config)?, config))
    }

    fn addresses(args: &[&str]) -> Vec<String> {
        resolve(args)
            .unwrap()
            .0
            .listen
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn addresses_are_stock_s() {
        assert_eq!(addresses(&[]), ["tcp://:8786"]);
        assert_eq!(addresses(&["--port", "0"]), ["tcp://:0"]);
        assert_eq!(addresses(&["--host", "1.2.3.4"]), ["tcp://1.2.3.4:8786"]);
        assert_eq!(
            addresses(&["--host", "tcp://1.2.3.4:9000"]),
            ["tcp://1.2.3.4:9000"]
        );
        assert_eq!(
            addresses(&["--host", "[::1]", "--port", "1"]),
            ["tcp://[::1]:1"]
        );
        assert_eq!(addresses(&["--protocol", "tls"]), ["tls://:8786"]);
        assert_eq!(addresses(&["--protocol", "tls://"]), ["tls://:8786"]);
        assert_eq!(
            addresses(&["--protocol", "tcp,tls", "--port", "8786,8787"]),
            ["tcp://:8786", "tls://:8787"]
        );
        assert_eq!(
            addresses(&["--protocol", "tcp,tls"]),
            ["tcp://:8786", "tls://:0"]
        );
        assert_eq!(addresses(&["--interface", "lo"]), ["tcp://127.0.0.1:8786"]);
        assert_eq!(
            addresses(&["--tls-ca-file", "/etc/hostname"]),
            ["tls://:8786"]
        );
    }

    #[test]
    fn contradictions_are_errors() {
        for args in [
            &["--host", "tcp://1.2.3.4:9000", "--port", "1"][..],
            &["--port", "1,2"],
            &["--port", "x"],
            &["--port", "70000"],
            &["--host", "a", "--interface", "lo"],
            &["--interface", "no-such-interface"],
            &["--protocol", "ucx"],
            &["--host", "::1"],
            &["--jupyter"],
            &["stray"],
            &["--tls-cert", "/nonexistent"],
            &["--idle-timeout", "5 foos"],
            &["--dashboard-address", "a:b"],
        ] {
            assert!(resolve(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn preloaded_modules_have_arguments() {
        let (_, config) = resolve(&["--preload", "foo.py", "--port", "0", "--word", "x"]).unwrap();
        assert_eq!(config.preload, ["foo.py"]);
        assert_eq!(config.preload_argv, ["--word", "x"]);
        assert!(resolve(&["--word", "x"]).is_err());
    }

    #[test]
    fn flags_override_configuration() {
        let (options, config) =
            resolve(&["--idle-timeout", "2 minutes", "--tls-key", "/etc/hostname"]).unwrap();
        assert_eq!(config.idle_timeout, Some(Quantity(120.0)));
        assert_eq!(config.require_encryption, Some(true));
        assert!(options.dashboard_pages);
        assert_eq!(resolve(&[]).unwrap().1.require_encryption, Some(false));
        assert!(
            !resolve(&["--no-dashboard", "--no-jupyter", "--no-show"])
                .unwrap()
                .0
                .dashboard_pages
        );
    }

    #[test]
    fn dashboard_addresses_are_stock_s() {
        let all = |text| dashboard_addresses(text).unwrap();
        assert_eq!(all(":8787"), [("0.0.0.0".to_owned(), 8787)]);
        assert_eq!(all("8787"), [("0.0.0.0".to_owned(), 8787)]);
        assert_eq!(
            all("foo:1,:2"),
            [("foo".to_owned(), 1), ("0.0.0.0".to_owned(), 2)]
        );
        assert_eq!(all("[::1]:3"), [("::1".to_owned(), 3)]);
    }
}
