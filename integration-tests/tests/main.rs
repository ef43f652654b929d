//! Tests by what they promise. One binary, because each would link all of DataFusion.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")]

mod concurrency;
mod durability;
mod flight_client;
mod jobs_interrupted;
mod pruning;
mod scenarios;
mod slt;
mod tidy;
mod tls;
mod transactions;
mod versions;
