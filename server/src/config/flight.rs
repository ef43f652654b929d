//! Settings of what is kept for clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[flight]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlightSection {
    /// Seconds for which a ticket that nobody fetches stays valid.
    #[schemars(range(min = 1))]
    pub ticket_idle_seconds: u64,
    /// Tickets not fetched yet at the same time. Further statements are refused. One user may have a quarter of them.
    #[schemars(range(min = 1))]
    pub tickets_max: usize,
    /// Seconds without use after which a prepared statement is forgotten.
    #[schemars(range(min = 1))]
    pub prepared_idle_seconds: u64,
    /// Prepared statements at the same time. Further ones are refused. One user may have a quarter of them.
    #[schemars(range(min = 1))]
    pub prepared_max: usize,
    /// Prepared statements of one session. Beyond that, the one that it has not used for the longest time is forgotten.
    #[schemars(range(min = 1))]
    pub prepared_session_max: usize,
    /// Bytes of parameters that may be bound to one prepared statement.
    pub bound_bytes_max: usize,
    /// Bytes of parameters that may be bound to all prepared statements together. Further ones are refused.
    pub bound_memory_max: usize,
    /// Bytes of memory for reading messages of clients, of all calls together. Large messages wait for each other when
    /// it is used up; one that needs more is read alone.
    #[schemars(range(min = 1))]
    pub decoding_bytes_max: u64,
    /// Seconds after which a result that is not read to its end is given up, with ABORTED "snapshot too old": until
    /// then it keeps alive the snapshot that it reads, and with it rows and files that nobody else needs.
    #[schemars(range(min = 1))]
    pub result_seconds_max: u64,
    /// Seconds for which a client may let a result wait, all in all. Then what is left of it is computed and waits in a
    /// file in engine.spill_dir, and keeps alive nothing else.
    pub spool_after_seconds: u64,
    /// Bytes of results that may wait in files. Results that find no room wait in memory, and keep their snapshot.
    pub spool_bytes_max: u64,
    /// Bytes of results of one user that may wait in files. Beyond, its clients have to read: a result of which its
    /// client takes nothing for spool_after_seconds ends with RESOURCE_EXHAUSTED, after the rows that wait already.
    pub spool_user_bytes_max: u64,
}

impl Default for FlightSection {
    fn default() -> Self {
        Self {
            ticket_idle_seconds: 300,
            tickets_max: 20_000,
            prepared_idle_seconds: 3600,
            prepared_max: 20_000,
            prepared_session_max: 1000,
            bound_bytes_max: 256 << 20,
            bound_memory_max: 1 << 30,
            decoding_bytes_max: 1 << 30,
            result_seconds_max: 3600,
            spool_after_seconds: 30,
            spool_bytes_max: 8 << 30,
            spool_user_bytes_max: 4 << 30,
        }
    }
}
