//! `seracdb`: the server and its SQL shell.

use std::process::ExitCode;

fn main() -> ExitCode {
    seracdb::cli::run()
}
