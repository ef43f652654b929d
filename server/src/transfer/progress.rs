//! How far an import or export is: a bar at a terminal, else nothing.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::rows;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// A bar on stderr, until it is dropped.
#[derive(Debug, Clone)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of something by name, and how much there is of it where that is known.
    pub(super) fn new(name: &str, total: Option<u64>) -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(name.to_owned());
        let template = match total {
            Some(_) => "{prefix} [{bar:30}] {percent}% {msg}, {elapsed}",
            None => "{spinner} {prefix} {msg}, {elapsed}",
        };
        // A template of ours that were wrong is no reason not to import.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// So far it is.
    pub(super) fn reached(&self, at: u64, count: u64) {
        self.0.set_position(at);
        if !self.0.is_hidden() {
            self.0.set_message(rows(count));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}
