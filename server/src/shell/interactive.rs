//! The shell at a terminal: statements over several lines, history, Ctrl-C.

use std::io::Stdout;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use seracdb_client::Client;

use super::commands::Shell;
use super::output::{Format, Printer};
use super::statements::split;

/// Reads and runs until the end of input. `history`: a file to remember lines in.
pub(super) async fn run(client: &Client, format: Format, history: Option<PathBuf>) -> Result<(), String> {
    let mut editor = DefaultEditor::new().map_err(|error| format!("cannot use the terminal: {error}"))?;
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    println!("SeracDB {}. \\? for help.", env!("CARGO_PKG_VERSION"));
    let mut shell = Shell { client, printer: Printer::new(format, std::io::stdout()) };
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { "seracdb> " } else { "      -> " }) {
            Ok(line) => {
                text.push_str(&line);
                text.push('\n');
                if split(&text).complete {
                    remember(&mut editor, history.as_deref(), text.trim());
                    if run_text(&mut shell, &text).await.is_break() {
                        return Ok(());
                    }
                    text.clear();
                }
            }
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(format!("cannot read the terminal: {error}")),
        }
    }
}

fn remember(editor: &mut DefaultEditor, history: Option<&Path>, text: &str) {
    // Who else reads the file need not read passwords.
    if text.is_empty() || text.to_ascii_lowercase().contains("password") {
        return;
    }
    // A history that cannot be written is no reason to stop.
    let _ = editor.add_history_entry(text);
    if let Some(file) = history {
        let _ = editor.save_history(file);
    }
}

/// Runs the statements of a text; an error ends the text, not the shell. Breaks when one was to quit.
async fn run_text(shell: &mut Shell<'_, Stdout>, text: &str) -> ControlFlow<()> {
    for statement in split(text).statements {
        let result = tokio::select! {
            result = shell.run(statement) => result,
            // Dropping the call is what cancels it on the server.
            _ = tokio::signal::ctrl_c() => Err("cancelled".to_owned()),
        };
        match result {
            Ok(ControlFlow::Continue(())) => {}
            Ok(quit) => return quit,
            Err(message) => {
                eprintln!("{message}");
                break;
            }
        }
    }
    ControlFlow::Continue(())
}
