//! What the engine's settings cannot be, beyond their types.

use seracdb_engine::{EngineConfig, FAN_IN_MIN};

use super::problem::Problem;

/// What is wrong with values that are each of their type.
pub(super) fn problems(engine: &EngineConfig) -> Vec<Problem> {
    let storage = &engine.storage;
    let mut found = Vec::new();
    if let Some((url, reason)) = storage.object_store.as_deref().zip(storage.object_store_refusal()) {
        let expected = format!("file:///folder or s3://bucket/prefix ({reason})");
        found.push(Problem::value("server.object_store", url, &expected));
    }
    let fan_in = storage.compaction.fan_in;
    if fan_in < FAN_IN_MIN {
        let expected = format!("a whole number, at least {FAN_IN_MIN}");
        found.push(Problem::value("compaction.fan_in", fan_in, &expected));
    }
    let (total, backlog) = (storage.flush.total_bytes_max, storage.flush.backlog_bytes_max);
    if backlog < total {
        // The one that somebody has set is the one to change.
        let is_default = backlog == EngineConfig::default().storage.flush.backlog_bytes_max;
        let (key, value, expected) = match is_default {
            true => ("flush.total_bytes_max", total, format!("at most flush.backlog_bytes_max, which is {backlog}")),
            false => ("flush.backlog_bytes_max", backlog, format!("at least flush.total_bytes_max, which is {total}")),
        };
        found.push(Problem::value(key, value, &expected));
    }
    found
}
