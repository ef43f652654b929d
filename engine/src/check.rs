//! Checking a data directory that no server has open.

use std::error::Error;
use std::sync::Arc;

pub use seracdb_storage::check::{About, Finding, Invariant, Note, Progress, Report, Totals};
use seracdb_storage::clock::{Clock, SystemClock};

use crate::engine::EngineConfig;
use crate::jobs;

/// Looks at every promise that can be looked at; nothing is changed.
///
/// Errors: there is no data directory, a server has it open, or something cannot be opened at all.
pub async fn check(config: &EngineConfig, progress: &Progress) -> Result<Report, Box<dyn Error + Send + Sync>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(seracdb_storage::check::check(&config.storage, &clock, progress, jobs::check_record).await?)
}
