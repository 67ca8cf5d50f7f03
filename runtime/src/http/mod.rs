//! The scheduler's HTTP server: health, metrics, JSON, HTML details, the event stream and the dashboard.
//!
//! It knows the scheduler only through [`StateView`]. Paths are those of the stock scheduler; the dashboard's own data is
//! under `/oxidask/`. All links in pages are relative, so that any prefix and any proxy in front works.

mod api;
mod backend;
mod collect;
mod core_view;
mod dashboard;
mod eventstream;
mod html;
mod info;
mod json;
mod listener;
mod metrics;
mod process;
mod relay;
mod router;
pub mod view;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use backend::CtxBackend;
pub use core_view::{Backend, CoreView, Ticks};
pub use listener::bind;
pub use view::StateView;

use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Prefix of all paths (`--dashboard-prefix`), without slashes at its ends; empty for none.
    pub prefix: String,
    /// Serve the dashboard's pages.
    pub dashboard: bool,
    /// Serve `/api/v1`.
    pub api: bool,
    /// Prefix of metric names (`distributed.dashboard.prometheus.namespace`).
    pub namespace: Option<String>,
    /// Largest graph shown.
    pub graph_max_items: usize,
    /// HTTPS, if configured.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            dashboard: true,
            api: true,
            namespace: Some("dask".to_owned()),
            graph_max_items: 5000,
            tls: None,
        }
    }
}

/// Serves until dropped.
pub async fn serve(
    listener: TcpListener,
    view: Arc<dyn StateView>,
    options: HttpOptions,
) -> io::Result<()> {
    let connections = listener::Connections::accept_from(listener, options.tls.clone());
    axum::serve(connections, router::router(view, options)).await
}
