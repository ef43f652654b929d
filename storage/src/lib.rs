//! SeracDB's storage: row versions in RocksDB, batch files in Parquet, one commit point over both.
//!
//! What it does not know: SQL, who may do what, DataFusion, Flight.
//!
//! A write goes [`store::Store::commit`] → `committer` → `commit_state::CommitState` → RocksDB. A read takes
//! [`store::Store::snapshot`] and asks it for a [`snapshot::ScopeView`]: files, the positions masked in them, and the
//! generations of hot rows, which [`hot::HotCursor`] reads. [`flush`] moves rows from one tier to the other.

pub mod audit;
pub mod bloom;
mod bounds;
mod bucket;
pub mod bulk;
pub mod catalog;
mod catalog_export;
pub mod check;
pub mod clock;
pub mod commit;
pub mod commit_names;
mod commit_records;
mod commit_state;
mod committer;
pub mod compact;
#[cfg(test)]
mod constraint_tests;
pub mod delete_log;
pub mod delete_vector;
mod error;
pub mod evolution;
#[cfg(test)]
mod faulty_bucket;
pub mod file_index;
pub mod flush;
#[cfg(test)]
mod golden_tests;
pub mod history;
pub mod hot;
pub mod hot_cache;
pub mod hot_size;
pub mod jobs;
pub mod key_codec;
pub mod keys;
pub mod lease;
mod lost_keys;
pub mod manifest;
mod metrics;
pub mod objects;
pub mod ownership;
pub mod paths;
mod probe;
mod progress;
pub mod records;
mod recovery;
mod renewal;
mod rocks;
pub mod row_codec;
pub mod s3_access;
pub mod schema;
mod scope_files;
pub mod scope_place;
pub mod segment;
#[cfg(test)]
mod simulation;
pub mod snapshot;
pub mod spans;
pub mod steps;
pub mod store;
pub mod system_columns;
#[cfg(test)]
mod take_over_tests;
mod tally;
#[cfg(test)]
mod test_table;
mod touched_keys;
pub mod unique;
mod verify;

pub use error::{Result, StorageError};
pub use progress::{Progress, Throttle};
pub use tally::HotScope;
