//! The scheduler process.

use anyhow::Context as _;
use clap::Parser as _;
use oxidask_runtime::config::cli::{SchedulerArgs, SchedulerOptions};
use oxidask_runtime::config::process::{LifetimeFile, raise_open_files_limit};
use oxidask_runtime::config::tls::{self, TlsSettings};
use oxidask_runtime::config::{Config, SchedulerConfig, logging};
use oxidask_runtime::http;
use oxidask_runtime::net::server::{Server, ServerConfig};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for connections, requests and HTTP; the core has its own.
const IO_THREADS: usize = 2;
/// Log records kept for `Client.get_scheduler_logs` unless configured.
const LOG_LENGTH: usize = 10_000;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line for people; a backtrace tells them nothing.
            eprintln!("oxidask-scheduler: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let args = SchedulerArgs::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("io")
        .enable_all()
        .build()?;
    let end = runtime.block_on(run(args));
    // Helpers and open connections end with the process; nothing is worth waiting for.
    runtime.shutdown_background();
    end
}

async fn run(args: SchedulerArgs) -> anyhow::Result<()> {
    let config = Config::load()?;
    let mut settings = SchedulerConfig::new(&config)?;
    let options = args.resolve(&mut settings)?;
    let logs = logging::init(
        options.log_format,
        settings.log_length.unwrap_or(LOG_LENGTH),
        &config.tree,
    )
    .context("cannot start logging")?;
    for key in config.unknown_keys() {
        tracing::warn!("unknown configuration key {key}; ignored");
    }
    if let Err(error) = raise_open_files_limit() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let tls = TlsSettings::from_config(&settings)
        .map(|s| tls::build(&s))
        .transpose()?;
    let _pid_file = match &options.pid_file {
        Some(path) => Some(
            LifetimeFile::pid(path)
                .with_context(|| format!("cannot write --pid-file {}", path.display()))?,
        ),
        None => None,
    };

    let listeners = http::bind(&options.dashboard)
        .await
        .context("cannot serve HTTP on --dashboard-address")?;
    let http_options = http_options(&settings, &options)?;
    let dashboard = listeners
        .first()
        .and_then(|l| l.local_addr().ok())
        .map(|a| a.port());
    let link = settings.dashboard_link.clone();
    let mut server = Server::start(ServerConfig {
        config: settings,
        listen: options.listen,
        tls,
        logs,
        dashboard,
    })
    .await?;
    let view = serve_http(&server, listeners, &http_options);
    let _scheduler_file = match &options.scheduler_file {
        Some(path) => {
            let identity = view.identity().await;
            Some(
                LifetimeFile::scheduler(path, &identity)
                    .with_context(|| format!("cannot write --scheduler-file {}", path.display()))?,
            )
        }
        None => None,
    };
    announce(&server, dashboard, http_options.tls.is_some(), &link);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let reason = tokio::select! {
        reason = server.finished() => reason,
        _ = terminate.recv() => "signal-15".to_string(),
        _ = interrupt.recv() => "signal-2".to_string(),
    };
    server.close(&reason).await;
    tracing::info!("End scheduler");
    Ok(())
}

fn serve_http(
    server: &Server,
    listeners: Vec<tokio::net::TcpListener>,
    options: &http::HttpOptions,
) -> Arc<dyn http::StateView> {
    let backend = Arc::new(http::CtxBackend::new(server.ctx.clone()));
    let view: Arc<dyn http::StateView> = Arc::new(http::CoreView::new(
        server.ctx.core.clone(),
        backend,
        server.ctx.logs.clone(),
    ));
    for listener in listeners {
        let serving = http::serve(listener, view.clone(), options.clone());
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the HTTP server ended");
            }
        });
    }
    view
}

fn http_options(
    settings: &SchedulerConfig,
    options: &SchedulerOptions,
) -> anyhow::Result<http::HttpOptions> {
    let tls = match &settings.dashboard_tls_cert {
        Some(cert) => Some(tls::dashboard(cert, settings.dashboard_tls_key.as_deref())?),
        None => None,
    };
    Ok(http::HttpOptions {
        prefix: options.dashboard_prefix.clone(),
        dashboard: options.dashboard_pages,
        api: settings.http_api,
        namespace: settings.prometheus_namespace.clone(),
        graph_max_items: settings.dashboard_graph_max_items,
        tls,
    })
}

fn announce(server: &Server, dashboard: Option<u16>, https: bool, link: &str) {
    let bar = "-".repeat(47);
    tracing::info!("{bar}");
    for address in &server.addresses {
        tracing::info!("  Scheduler at: {address:>27}");
    }
    if let Some(port) = dashboard {
        let host = server
            .ctx
            .identity
            .address
            .rsplit_once(':')
            .map_or("", |(h, _)| h);
        let host = host.split_once("://").map_or(host, |(_, h)| h);
        let scheme = if https { "https" } else { "http" };
        let url = dashboard_url(link, scheme, host, port);
        tracing::info!("  dashboard at: {url:>27}");
    }
    tracing::info!("{bar}");
}

/// Fills `{scheme}`, `{host}`, `{port}` and `{VARIABLE}`s of the environment into `distributed.dashboard.link`.
fn dashboard_url(template: &str, scheme: &str, host: &str, port: u16) -> String {
    let mut url = String::new();
    let mut rest = template;
    while let Some((before, name, after)) = placeholder(rest) {
        url.push_str(before);
        match name {
            "scheme" => url.push_str(scheme),
            "host" => url.push_str(host),
            "port" => url.push_str(&port.to_string()),
            other => url.push_str(&std::env::var(other).unwrap_or_default()),
        }
        rest = after;
    }
    url + rest
}

/// Splits at the first `{name}`.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

#[cfg(test)]
mod tests {
    use super::dashboard_url;

    #[test]
    fn links_are_filled_in() {
        let url = |template| dashboard_url(template, "http", "h", 80);
        assert_eq!(url("{scheme}://{host}:{port}/status"), "http://h:80/status");
        assert_eq!(url("/proxy/{port}{OXIDASK_NO_SUCH}/x{"), "/proxy/80/x{");
    }
}
