//! `seracdb check`: looks at a data directory that no server has open, and says what of it is not as it should be.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use seracdb_engine::check::{Progress, Report, Totals, check};

use super::{Serve, load, with_causes};

/// How often a terminal is told how far it is.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Something is not as it should be.
const FINDINGS: u8 = 1;
/// It could not be looked.
const NOT_LOOKED: u8 = 2;

#[derive(Args)]
pub(super) struct Check {
    /// TOML file of settings, as for `serve`.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Directory of the data (server.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where cold files are, file:///… or s3://bucket/prefix (server.object_store).
    #[arg(long, value_name = "URL")]
    object_store: Option<String>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

/// The report is on stdout and in the exit code: 0 when all is well, 1 when something is not, 2 when nobody could look.
pub(super) fn run(arguments: Check) -> ExitCode {
    let json = arguments.json;
    match look(arguments) {
        Ok(report) => {
            match json {
                true => println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default()),
                false => print!("{}", text(&report)),
            }
            if report.clean { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) }
        }
        Err(message) => {
            eprintln!("seracdb: {message}");
            ExitCode::from(NOT_LOOKED)
        }
    }
}

fn look(arguments: Check) -> Result<Report, String> {
    let Check { config, data_dir, object_store, .. } = arguments;
    // It listens nowhere, so that the address of the server does not matter.
    let config = load(Serve { config, data_dir, object_store, insecure: true, ..Serve::default() })?.config.engine;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    let progress = Arc::new(Progress::default());
    runtime.block_on(async {
        let told = std::io::stderr().is_terminal().then(|| tokio::spawn(tell(Arc::clone(&progress))));
        let report = check(&config, &progress).await.map_err(|error| with_causes(&*error));
        if let Some(told) = told {
            told.abort();
            eprint!("\r\x1b[K");
        }
        report
    })
}

async fn tell(progress: Arc<Progress>) {
    loop {
        let Totals { files, bytes, cold_rows, hot_rows, .. } = progress.totals();
        eprint!("\r\x1b[K{files} files, {}, {} rows read", shown_bytes(bytes), cold_rows + hot_rows);
        // A terminal that is gone needs no progress.
        let _ = std::io::stderr().flush();
        tokio::time::sleep(TOLD_EVERY).await;
    }
}

fn text(report: &Report) -> String {
    let Totals { tables, scopes, files, bytes, cold_rows, hot_rows } = report.read;
    let mut lines = vec![format!(
        "read {tables} tables in {scopes} parts: {cold_rows} row versions in {files} files of {}, {hot_rows} in RocksDB",
        shown_bytes(bytes)
    )];
    lines.extend(report.notes.iter().map(|note| format!("note: {}: {}", note.place, note.what)));
    let mut last = None;
    for finding in &report.findings {
        if last.replace(finding.invariant) != Some(finding.invariant) {
            lines.push(format!("NOT SO: {}", finding.invariant.promise()));
        }
        lines.push(format!("  {}: {}", finding.place, finding.what));
    }
    for (invariant, count) in &report.more {
        lines.push(format!("  and {count} more against: {}", invariant.promise()));
    }
    lines.push(match report.findings.len() {
        0 => "all is as it should be".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    });
    lines.join("\n") + "\n"
}

fn shown_bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
