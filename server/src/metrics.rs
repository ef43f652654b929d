//! Figures for those who watch the server: what it counts itself, beside the engine's and the storage's.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use seracdb_engine::Engine;

/// What all names begin with.
const PREFIX: &str = "seracdb";

/// What a scrape is answered with.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What is counted since the start. Clones count together. No label says who it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerMetrics {
    logins_refused: Family<[(&'static str, &'static str); 1], Counter>,
    lockouts: Counter,
}

impl ServerMetrics {
    /// A login was refused, for this reason.
    pub(crate) fn login_refused(&self, reason: &'static str) {
        self.logins_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// Somebody has to wait after a wrong password.
    pub(crate) fn locked_out(&self) {
        self.lockouts.inc();
    }

    /// All that there is to see of a server.
    pub(crate) fn registry(&self, engine: &Arc<Engine>) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let Self { logins_refused, lockouts } = self.clone();
        registry.register("logins_refused", "Logins that were refused, by reason", logins_refused);
        registry.register("lockouts", "Wrong passwords after which one has to wait", lockouts);
        engine.register_metrics(&mut registry);
        registry
    }
}

/// The figures as Prometheus reads them.
pub(crate) fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_text::encode(&mut text, registry)?;
    Ok(text)
}
