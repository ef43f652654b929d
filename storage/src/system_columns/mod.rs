//! The system columns of every table, and the only code that assigns them.
//!
//! | column     | type            | assigned                                                                |
//! |------------|-----------------|-------------------------------------------------------------------------|
//! | `_id`      | BIGINT          | at INSERT, by [`IdSequence`]; kept by UPDATE and DELETE                  |
//! | `_updated` | TIMESTAMP(ns)   | by the committer from [`CommitClock`], one value for all rows of a commit |
//! | `_deleted` | BOOLEAN         | false by INSERT and UPDATE, true by DELETE                               |
//!
//! Invariants:
//! 1. A [`RowId`] never given out before comes only from [`IdSequence`]; a [`CommitTs`] only from [`CommitClock`].
//!    Every other value of these types was read back from storage.
//! 2. Both rise strictly, over threads, restarts and steps of the clock. No order is taken from a clock.
//! 3. The names of the columns are written nowhere else. `tidy.rs` of the integration tests proves it.

mod commit_clock;
mod snowflake;

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::{Deserialize, Serialize};

pub use commit_clock::CommitClock;
pub use snowflake::{IdSequence, NodeNumber, SNOWFLAKE_EPOCH_MS, tick_at, tick_of, ticks_in, time_ms_of};

/// Name of the row id column.
pub const ID: &str = "_id";
/// Name of the commit timestamp column.
pub const UPDATED: &str = "_updated";
/// Name of the deletion mark column.
pub const DELETED: &str = "_deleted";

/// Parquet field ids of the system columns; user columns start at [`FIRST_USER_COLUMN_ID`].
pub const ID_COLUMN_ID: u32 = 1;
/// See [`ID_COLUMN_ID`].
pub const UPDATED_COLUMN_ID: u32 = 2;
/// See [`ID_COLUMN_ID`].
pub const DELETED_COLUMN_ID: u32 = 3;
/// The lowest column id a user's column may have.
pub const FIRST_USER_COLUMN_ID: u32 = 16;

/// Whether a column of this name belongs to the system, in any letter case: a quoted `"_ID"` would only confuse.
pub fn is_system_column(name: &str) -> bool {
    [ID, UPDATED, DELETED].iter().any(|system| name.eq_ignore_ascii_case(system))
}

/// The identity of a row: a Snowflake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowId(i64);

impl RowId {
    /// A row id that was stored before.
    pub fn stored(value: i64) -> Self {
        Self(value)
    }

    /// The value a client sees.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// The version of a row: the timestamp of the commit that wrote it, in ns since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitTs(i64);

impl CommitTs {
    /// Above every commit.
    pub const MAX: Self = Self(i64::MAX);

    /// A commit timestamp that was stored before.
    pub fn stored(ns: i64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the Unix epoch.
    pub fn get(self) -> i64 {
        self.0
    }

    /// What is earlier than this one and later than every commit before it, or as late.
    pub(crate) fn before(self) -> Self {
        Self(self.0 - 1)
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The field of the row id column.
pub fn id_field() -> Field {
    Field::new(ID, DataType::Int64, false)
}

/// The field of the commit timestamp column.
pub fn updated_field() -> Field {
    Field::new(UPDATED, DataType::Timestamp(TimeUnit::Nanosecond, None), false)
}

/// The field of the deletion mark column.
pub fn deleted_field() -> Field {
    Field::new(DELETED, DataType::Boolean, false)
}

/// The row id column of these rows.
pub fn id_array(ids: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(ids))
}

/// The commit timestamp column of these versions.
pub fn updated_array(updated: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(updated))
}

/// The deletion mark column of these versions.
pub fn deleted_array(deleted: Vec<bool>) -> ArrayRef {
    Arc::new(BooleanArray::from(deleted))
}
