//! The HTTP port: `/healthz` for load balancers and scripts.

use std::future::Future;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

/// Serves until `stop` completes.
pub(crate) async fn serve(
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new().route("/healthz", get(async || "ok"));
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
}
