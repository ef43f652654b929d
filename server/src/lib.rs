//! The SeracDB server: Arrow Flight SQL in front of the engine, and the command line.
//!
//! The only crate that knows Flight, gRPC, HTTP, credentials, tokens and settings from files or the environment.
//! What it does not know: SQL, storage, files of tables. It asks [`seracdb_engine::Engine`].
//!
//! A SELECT passes `flight/mod.rs` → `flight/command.rs` → `flight/query.rs` → engine → `flight/stream.rs`;
//! an UPDATE passes `flight/mod.rs` → `flight/command.rs` → `flight/update.rs` → engine.

mod auth;
pub mod cli;
pub mod config;
mod cookies;
mod credentials;
mod expiring;
mod flight;
mod grants;
mod http;
mod in_flight;
mod jwt;
pub mod lifecycle;
mod lockout;
mod metrics;
mod now_and_then;
mod queries;
mod refusal;
mod request_id;
mod self_signed;
mod serving;
mod sessions;
mod shell;
mod transfer;
mod transport;
