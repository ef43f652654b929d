//! SeracDB's benchmarks: `make bench`, and at toy size `make bench-smoke`.
//!
//! Every line is a ratio within one run: ours against a peer or a limit of the machine, in alternating rounds, by their
//! medians. Absolute times are printed for orientation only.

mod as_user;
mod database;
mod ids;
mod jobs;
mod measure;
mod pruning;
mod rows;
mod versions;
mod writers;

use clap::Parser;
use measure::{Line, Size};

/// Runs the benchmarks and prints a table.
#[derive(Parser)]
struct Arguments {
    /// Toy sizes: do the programs still run?
    #[arg(long)]
    smoke: bool,
    /// Only the lines whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let size = if arguments.smoke { Size::SMOKE } else { Size::FULL };
    let wanted = |name: &str| name.contains(&arguments.only);
    println!("{}", Line::HEADER);
    if wanted("as user") {
        as_user::run(size).await;
    }
    if wanted("ids") {
        ids::run(size);
    }
    if wanted("jobs") {
        jobs::run(size).await;
    }
    if wanted("pruning") {
        pruning::run(size).await;
    }
    if wanted("rows") {
        rows::run(size).await;
    }
    if wanted("versions") {
        versions::run(size).await;
    }
    if wanted("writers") {
        writers::run(size).await;
    }
}
