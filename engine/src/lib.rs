//! SeracDB's engine: SQL over the storage crate.
//!
//! What it does not know: gRPC, Flight, TLS, JWTs, tokens of sessions, command lines.
//!
//! ```text
//! SELECT   prepared → sql → tables → execute → scan (cold, hot) → output
//! UPDATE   prepared → sql (dml) → tables → write → scan (cold, hot) → storage: commit
//! ```

mod alter;
mod alter_constraints;
mod api_tokens;
mod audit;
mod audit_changes;
mod audit_log;
mod backpressure;
pub mod check;
mod comments;
mod constraints;
mod create_as;
mod create_like;
mod ddl;
mod discretion;
mod drops;
mod effective;
mod engine;
mod error;
mod execute;
mod explain;
mod functions;
mod give_way;
mod grants;
mod identity;
mod indexes;
mod information_schema;
mod ingest;
mod jobs;
mod json;
mod listing;
mod load;
mod memory;
mod merge;
mod metadata;
mod metrics;
mod naming;
mod origins;
mod output;
mod plans;
mod premises;
mod prepared;
mod returning;
mod returning_plan;
mod rights;
mod row_builder;
mod row_versions;
mod running;
mod scan;
mod session;
mod session_list;
mod shares;
mod show_create;
mod spans;
mod sql;
mod standing;
mod system;
mod system_jobs;
mod system_queries;
mod system_sessions;
mod system_tables;
mod system_users;
mod table_options;
mod table_rights;
mod tables;
mod temporary;
mod transaction;
mod turns;
mod unique;
mod unpacked;
mod upsert;
mod users;
mod views;
mod write;

pub use api_tokens::RefusedToken;
pub use engine::{Engine, EngineConfig, PruningConfig, Pushdown, SettingRow};
pub use error::{EngineError, ErrorKind, Result};
pub use execute::{Outcome, Rows};
pub use identity::{Principal, Role};
pub use ingest::{IfExists, IfMissing, IngestTarget};
pub use jobs::JobsConfig;
pub use metadata::TableInfo;
pub use origins::Origin;
pub use prepared::{Prepared, StatementKind};
pub use running::{HistoryConfig, UserLimits};
pub use seracdb_storage::catalog::TableKind;
pub use seracdb_storage::clock::{Clock, SystemClock};
pub use seracdb_storage::compact::FAN_IN_MIN;
pub use seracdb_storage::manifest::{CacheConfig, CacheTotals};
pub use seracdb_storage::s3_access::S3Access;
pub use seracdb_storage::spans::in_this_span;
pub use seracdb_storage::system_columns;
pub use session::Session;
pub use shares::{Holder, NoPlace, Shares};
pub use sql::limits::{DEPTH_MAX as STATEMENT_DEPTH_MAX, STACK_BYTES};
pub use standing::Standing;
pub use transaction::{End, InUse, SavepointId, Transaction, TransactionConfig, TransactionId};
pub use unpacked::unpacked_bytes;
