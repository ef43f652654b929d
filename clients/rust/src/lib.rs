//! Rust client of SeracDB.
//!
//! Thin and typed, over Arrow Flight SQL: results are Arrow record batches, errors keep their gRPC code. Any Flight SQL
//! client works with SeracDB; this one knows what the general ones do not, such as whether a statement is an update.
//!
//! ```no_run
//! # async fn example() -> seracdb_client::Result<()> {
//! use seracdb_client::Client;
//!
//! let client = Client::connect("grpc://127.0.0.1:50051", "root", "secret").await?;
//! client.update("CREATE TABLE readings (sensor BIGINT, value DOUBLE)").await?;
//! client.update("INSERT INTO readings VALUES (1, 20.5), (2, 21.0)").await?;
//! let batches = client.query("SELECT sensor, value FROM readings").await?.collect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not know: the engine, the storage, SQL.

/// The examples of the documents: they compile.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../../../docs/clients.md")]
    struct Clients;
}

mod client;
mod error;
mod resend;
mod rows;
mod statement;
mod tls;
mod transaction;
mod wire;

pub use client::{Client, IngestMode, TableEntry, TableKind};
pub use error::{Error, Result};
pub use rows::Rows;
pub use statement::{Kind, Statement};
pub use tls::Tls;
pub use tonic::Code;
pub use transaction::{Savepoint, Transaction};
