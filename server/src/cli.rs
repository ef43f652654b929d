//! The command line: `seracdb serve`, `sql`, `import`, `export`, `check`, `config` and `tls`. Variables of the environment are read
//! here, and nowhere else.

mod check;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::config::{self, Loaded, LogFormat, LogSection};
use crate::lifecycle;
use crate::self_signed::{self, SelfSigned};
use crate::shell::{self, Connection, Format, Script};
use crate::transfer::{self, Export, Import};

/// The variable with the password of `root` for a new data directory.
const ROOT_PASSWORD: &str = "SERACDB_ROOT_PASSWORD";

/// The variable by which tests ask for the SQL function `planted_panic`; nothing in a release build.
const PLANTED_PANIC: &str = "SERACDB_PLANTED_PANIC";

/// SeracDB: a Flight SQL database.
#[derive(Parser)]
#[command(name = "seracdb", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server until SIGTERM or SIGINT.
    Serve(Serve),
    /// Runs SQL on a server: a shell, or what -c, -f or a pipe gives.
    Sql(Sql),
    /// Checks a data directory that no server has open: files, rows, manifests, catalog. Changes nothing. Exit code 0: all is
    /// well, 1: something is not, 2: it could not be looked.
    Check(check::Check),
    /// Imports files into a table: Parquet, CSV or Arrow IPC. Each is imported as a whole and once, however often it is asked
    /// for, also when this command or the server was interrupted.
    Import {
        #[command(flatten)]
        login: Login,
        #[command(flatten)]
        import: Import,
    },
    /// Exports the rows of a table or query to a file: Parquet, CSV or Arrow IPC.
    #[command(allow_missing_positional = true)]
    Export {
        #[command(flatten)]
        login: Login,
        #[command(flatten)]
        export: Export,
    },
    /// Says what the settings are.
    #[command(subcommand)]
    Config(Config),
    /// Makes certificates.
    #[command(subcommand)]
    Tls(Tls),
}

#[derive(Subcommand)]
enum Config {
    /// Prints a file with all settings, their defaults, and what they are for.
    Default,
    /// Prints the settings that `serve` would have with these flags, each with where it comes from.
    Show(Serve),
    /// Says everything that is wrong with the settings that `serve` would have with these flags.
    Check(Serve),
}

#[derive(Subcommand)]
enum Tls {
    /// Makes a CA and certificates of it for a server and a client, for trying out. Its key is kept nowhere: for more
    /// certificates, make new ones.
    SelfSigned(SelfSigned),
}

#[derive(Args, Default)]
struct Serve {
    /// TOML file of settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the data (server.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address and port of Flight SQL; port 0 takes a free one (server.listen).
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Address and port of /healthz; port 0 takes a free one (http.listen).
    #[arg(long, value_name = "ADDR:PORT")]
    http_listen: Option<String>,
    /// Where cold files go, file:///… or s3://bucket/prefix (server.object_store).
    #[arg(long, value_name = "URL")]
    object_store: Option<String>,
    /// Takes the object store from the data directory that owns it, once that one's lease has ended. For one start, when
    /// the other is gone for good (server.take_over).
    #[arg(long)]
    take_over: bool,
    /// The server's certificate as PEM; with it, Flight SQL is spoken over TLS only (server.tls.cert_file).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The certificate's key as PEM (server.tls.key_file).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// CA as PEM: clients have to show a certificate of it (server.tls.client_ca_file, server.tls.require_client_cert).
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// Listens without TLS where other machines can reach it (server.insecure).
    #[arg(long)]
    insecure: bool,
}

/// Where and as whom to log in.
#[derive(Args)]
#[group(skip)]
struct Login {
    /// The server.
    #[arg(long, default_value = "grpc://127.0.0.1:50051")]
    uri: String,
    /// User to log in as.
    #[arg(long, default_value = "root")]
    user: String,
    /// The user's password. Other users of this machine can see it: prefer the variable or the file.
    #[arg(long, env = "SERACDB_PASSWORD", hide_env_values = true)]
    password: Option<SecretString>,
    /// File whose first line is the password; wins over the others.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// CA of the server's certificate as PEM, instead of those of this machine; for grpc+tls://.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate to show to the server, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of that certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name that the server's certificate is for, when it is not that of the URI.
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
}

#[derive(Args)]
struct Sql {
    #[command(flatten)]
    login: Login,
    /// SQL to run; several statements are separated by ';'.
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    command: Option<String>,
    /// File of SQL to run.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Form of results.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Runs what the command line says; errors are on stderr and in the exit code.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(arguments) => serve(arguments),
        Command::Sql(arguments) => sql(arguments),
        Command::Check(arguments) => return check::run(arguments),
        Command::Import { login, import } => connection(login).and_then(|login| transfer::import(&login, &import)),
        Command::Export { login, export } => connection(login).and_then(|login| transfer::export(&login, &export)),
        Command::Config(command) => config(command),
        Command::Tls(Tls::SelfSigned(arguments)) => self_signed::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("seracdb: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The settings of a server that is started like this.
fn load(arguments: Serve) -> Result<Loaded, String> {
    let yes = || "true".to_owned();
    let flags = [
        ("--data-dir", "server.data_dir", arguments.data_dir),
        ("--listen", "server.listen", arguments.listen),
        ("--http-listen", "http.listen", arguments.http_listen),
        ("--object-store", "server.object_store", arguments.object_store),
        ("--take-over", "server.take_over", arguments.take_over.then(yes)),
        ("--tls-cert", "server.tls.cert_file", arguments.tls_cert),
        ("--tls-key", "server.tls.key_file", arguments.tls_key),
        ("--tls-client-ca", "server.tls.require_client_cert", arguments.tls_client_ca.is_some().then(yes)),
        ("--tls-client-ca", "server.tls.client_ca_file", arguments.tls_client_ca),
        ("--insecure", "server.insecure", arguments.insecure.then(yes)),
    ];
    let flags: Vec<_> = flags.into_iter().filter_map(|(flag, path, value)| Some((flag, path, value?))).collect();
    // Other programs' variables may be no Unicode; those are not ours.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    config::load(arguments.config.as_deref(), variables, &flags).map_err(|error| error.to_string())
}

fn config(command: Config) -> Result<(), String> {
    match command {
        Config::Default => print!("{}", config::default_file()),
        Config::Show(arguments) => print!("{}", config::merged_file(&load(arguments)?)),
        Config::Check(arguments) => {
            load(arguments)?;
            println!("the settings can be used");
        }
    }
    Ok(())
}

fn serve(arguments: Serve) -> Result<(), String> {
    let loaded = load(arguments)?;
    let shown = loaded.shown();
    let mut config = loaded.config;
    config.engine.settings = shown.into();
    config.engine.planted_panic = cfg!(debug_assertions) && std::env::var_os(PLANTED_PANIC).is_some();
    let root_password = std::env::var(ROOT_PASSWORD).ok().filter(|password| !password.is_empty());
    log_to_stderr(&config.log)?;
    lifecycle::log_panics();
    lifecycle::serve(config, root_password.map(SecretString::from)).map_err(|e| with_causes(&e))
}

/// An error and what caused it: who starts a server sees what its clients must not.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn log_to_stderr(config: &LogSection) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| format!("setting 'log.filter' is '{}': {error}", config.filter))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

fn connection(login: Login) -> Result<Connection, String> {
    let password = match (login.password_file, login.password) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            SecretString::from(text.lines().next().unwrap_or_default())
        }
        (None, Some(password)) => password,
        (None, None) => {
            return Err("no password: set SERACDB_PASSWORD, or give --password-file or --password".to_owned());
        }
    };
    let tls = seracdb_client::Tls {
        ca_file: login.tls_ca,
        cert_file: login.tls_cert,
        key_file: login.tls_key,
        server_name: login.tls_server_name,
    };
    Ok(Connection { uri: login.uri, user: login.user, password, tls })
}

fn sql(arguments: Sql) -> Result<(), String> {
    let script = match (arguments.command, arguments.file) {
        (Some(text), _) => Script::Text(text),
        (None, Some(path)) => {
            Script::Text(std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?)
        }
        (None, None) => Script::Stdin { history: std::env::home_dir().map(|home| home.join(".seracdb_history")) },
    };
    shell::run(&connection(arguments.login)?, script, arguments.format)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
