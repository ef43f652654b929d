//! `seracdb sql`: runs statements on a server and prints results. A client like any other: it knows Flight SQL through
//! the client crate only.

mod commands;
mod interactive;
mod output;
mod statements;

use std::future::Future;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use seracdb_client::{Client, Tls};
use tonic::Code;

use self::commands::Shell;
pub(crate) use self::commands::sql_type;
pub(crate) use self::output::Format;
use self::output::Printer;
use self::statements::split;

/// Where and as whom to connect.
pub(crate) struct Connection {
    pub(crate) uri: String,
    pub(crate) user: String,
    pub(crate) password: SecretString,
    pub(crate) tls: Tls,
}

/// Where the statements come from.
pub(crate) enum Script {
    /// From this text.
    Text(String),
    /// From a person at a terminal, whose lines are remembered in `history`; else everything that stdin gives.
    Stdin { history: Option<PathBuf> },
}

/// Runs a script. The first error ends it, and is the message to show.
pub(crate) fn run(connection: &Connection, script: Script, format: Format) -> Result<(), String> {
    connection.run(|client| async move {
        match script {
            Script::Text(text) => run_text(&client, &text, format).await,
            Script::Stdin { history } if std::io::stdin().is_terminal() => {
                interactive::run(&client, format, history).await
            }
            Script::Stdin { .. } => {
                let mut text = String::new();
                let read = std::io::stdin().read_to_string(&mut text);
                read.map_err(|error| format!("cannot read stdin: {error}"))?;
                run_text(&client, &text, format).await
            }
        }
    })
}

impl Connection {
    /// Connects, does something, and ends the session.
    pub(crate) fn run<F: Future<Output = Result<(), String>>>(
        &self,
        what: impl FnOnce(Client) -> F,
    ) -> Result<(), String> {
        // A worker beside this thread: the connection has to answer the server's probes while a person types.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
        runtime.block_on(async {
            let password = self.password.expose_secret();
            let client = Client::connect_with(&self.uri, &self.user, password, &self.tls);
            let client = client.await.map_err(|e| said(&e))?;
            let result = what(client.clone()).await;
            // The session also ends by itself; an error here must not hide one of what was done.
            let _ = client.close().await;
            result
        })
    }
}

/// What is said of an error. Where the server's log says more, with the name that it has for the call.
fn said(error: &seracdb_client::Error) -> String {
    match (error.code(), error.request_id()) {
        (Code::Internal | Code::Unavailable | Code::DataLoss, Some(id)) => format!("{error} (request {id})"),
        _ => error.to_string(),
    }
}

async fn run_text(client: &Client, text: &str, format: Format) -> Result<(), String> {
    let mut shell = Shell { client, printer: Printer::new(format, std::io::stdout()) };
    for statement in split(text).statements {
        if shell.run(statement).await?.is_break() {
            break;
        }
    }
    Ok(())
}
