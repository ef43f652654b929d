//! Settings of logging.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::problem::Problem;

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// What is logged to stderr, in the syntax of tracing: "info", "warn,seracdb=debug".
    pub filter: String,
    /// The form of log lines: for people, or one JSON object per line.
    pub format: LogFormat,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogSection {
    pub(super) fn problems(&self) -> Option<Problem> {
        let unusable = EnvFilter::try_new(&self.filter).err()?;
        let expected = format!("a filter of tracing, as \"info\" or \"warn,seracdb=debug\" ({unusable})");
        Some(Problem::value("log.filter", self.filter.as_str(), &expected))
    }
}
