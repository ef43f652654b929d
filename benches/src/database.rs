//! SQL without a network in between.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use seracdb_engine::{Engine, EngineConfig, Outcome, Role, Session};

/// An engine in this process, and a session of its root user.
pub(crate) struct Database {
    pub engine: Arc<Engine>,
    session: Session,
}

impl Database {
    /// Opens the data directory, making it when it is new.
    pub(crate) async fn open(dir: &Path) -> Self {
        Self::open_with(dir, EngineConfig::default()).await
    }

    /// The same with a configuration.
    pub(crate) async fn open_with(dir: &Path, mut config: EngineConfig) -> Self {
        config.storage.data_dir = dir.to_owned();
        let engine = Engine::open(config).await.expect("the engine opens");
        if !dir.join("made").exists() {
            engine.create_user("root", "pw", Role::System).await.expect("a user");
            std::fs::write(dir.join("made"), "").expect("a mark");
        }
        let session = Session::new(engine.authenticate("root", "pw").await.expect("the user"));
        Self { engine, session }
    }

    /// The first column where it is a BIGINT.
    pub(crate) async fn run(&self, sql: &str) -> Vec<i64> {
        let prepared = self.engine.prepare(&self.session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        match self.engine.execute(&self.session, &prepared, None).await.unwrap_or_else(|e| panic!("{sql}: {e}")) {
            Outcome::Changed(_) => Vec::new(),
            Outcome::Rows(rows) => {
                let batches: Vec<_> = rows.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
                let columns = batches.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<Int64Type>());
                columns.flat_map(|column| column.values().to_vec()).collect()
            }
        }
    }

    /// The time of a statement, as the mean of `count`.
    pub(crate) async fn time(&self, sql: &str, count: usize) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            self.run(sql).await;
        }
        start.elapsed() / count as u32
    }
}
