//! Tests by what they promise. One binary, because each would link all of DataFusion.

mod concurrency;
mod durability;
mod flight_client;
mod slt;
mod tidy;
mod versions;
