//! The engine: one store, one DataFusion session state, and the turns of statements that write.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionConfig;
use seracdb_storage::clock::{Clock, SystemClock};
use seracdb_storage::hot_size::FlushConfig;
use seracdb_storage::manifest::CacheTotals;
use seracdb_storage::steps::{NoWait, Pace};
use seracdb_storage::store::{StorageConfig, Store};
use tokio_util::sync::CancellationToken;

use crate::constraints::ConstraintCache;
use crate::error::{EngineError, Result};
use crate::functions::functions;
use crate::give_way;
use crate::jobs::{Jobs, JobsConfig};
use crate::json;
use crate::memory::FairPool;
use crate::plans::Plans;
use crate::running::{HistoryConfig, Running, UserLimits};
use crate::scan::{ColdTier, OBJECTS_URL};
use crate::session_list::SessionList;
use crate::sql::Limits;
use crate::sql::limits::DEPTH_MAX;
use crate::sql::names::CATALOG;
use crate::sql::planted::planted_panic;
use crate::sql::rules;
use crate::temporary::TemporaryNamespaces;
use crate::transaction::{TransactionConfig, Transactions};
use crate::turns::Turns;

/// Bytes of memory of a user for each row of a batch: with less than 512 MiB, batches have fewer than 8192 rows.
const MEMORY_PER_BATCH_ROW: usize = 64 << 10;
const BATCH_ROWS_MIN: usize = 256;
const BATCH_ROWS_MAX: usize = 8192;

/// Bytes that each part of a sort sets aside for merging, at least and at most.
const MERGE_BYTES_MIN: usize = 64 << 10;
const MERGE_BYTES_MAX: usize = 10 << 20;

/// Settings of the engine and of the storage below it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// The storage's own settings.
    pub storage: StorageConfig,
    /// Bytes that a statement may have.
    #[schemars(range(min = 1))]
    pub statement_bytes_max: usize,
    /// Levels that its expressions and queries may have in one another. At most 500: what a thread's stack has room
    /// for.
    #[schemars(range(min = 1, max = 500))]
    pub statement_depth_max: usize,
    /// Bytes of memory that queries may use together before they spill.
    #[schemars(range(min = 1))]
    pub query_memory_max: usize,
    /// Bytes of Bloom filters that are kept in memory.
    pub filter_memory_max: usize,
    /// Statements whose plans are kept for when they come again.
    pub plans_max: NonZeroUsize,
    /// What one user may have at the same time.
    pub user: UserLimits,
    /// What is remembered of statements that have ended, in memory.
    pub queries: HistoryConfig,
    /// Bytes of new rows of one ingest or INSERT … SELECT from which on they are written to files at once, past the hot
    /// tier.
    pub bulk_bytes_min: usize,
    /// Transactions over several statements.
    pub transaction: TransactionConfig,
    /// What the server does beside statements.
    pub jobs: JobsConfig,
    /// Ways of not reading cold rows. They change no result: switch one off only when you suspect it of a fault.
    pub pruning: PruningConfig,
    /// Where queries spill to. Without it: the folder spill in the data directory.
    #[schemars(example = &"/var/tmp/seracdb")]
    pub spill_dir: Option<PathBuf>,
    /// What `system.settings` and SHOW say of the settings of the whole server.
    #[serde(skip)]
    pub settings: Arc<[SettingRow]>,
    /// Whether there is a function that panics; no setting, but for tests.
    #[serde(skip)]
    pub planted_panic: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            storage: StorageConfig::default(),
            statement_bytes_max: 16 << 20,
            statement_depth_max: DEPTH_MAX,
            query_memory_max: 4 << 30,
            filter_memory_max: 64 << 20,
            user: UserLimits::default(),
            queries: HistoryConfig::default(),
            plans_max: NonZeroUsize::new(1024).expect("1024 is not 0"),
            bulk_bytes_min: 32 << 20,
            transaction: TransactionConfig::default(),
            jobs: JobsConfig::default(),
            pruning: PruningConfig::default(),
            spill_dir: None,
            settings: Arc::default(),
            planted_panic: false,
        }
    }
}

/// A setting as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Its path, as `server.listen`.
    pub name: String,
    /// What it is; `None` = nothing.
    pub value: Option<String>,
    /// What it is when nobody sets it.
    pub default: Option<String>,
    /// Where it comes from: `default`, a file, a variable or a flag.
    pub source: String,
    /// The environment variable that sets it.
    pub variable: String,
    /// What it is for.
    pub description: String,
}

/// Which ways of not reading cold rows are used: all of them, unless one is suspected of a fault. Results never depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PruningConfig {
    /// By the bounds of files and row groups.
    pub bounds: bool,
    /// By Bloom filters.
    pub bloom: bool,
    /// By the bounds of pages.
    pub page_index: bool,
    /// Filtering while files are decoded: "keys" (queries by key), "always", "never".
    pub pushdown: Pushdown,
}

impl Default for PruningConfig {
    fn default() -> Self {
        Self { bounds: true, bloom: true, page_index: true, pushdown: Pushdown::Keys }
    }
}

/// When filters are applied while files are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pushdown {
    /// For queries by key.
    Keys,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The engine: one per data directory.
#[derive(Clone)]
pub struct Engine {
    pub(crate) store: Arc<Store>,
    pub(crate) state: Arc<SessionState>,
    pub(crate) limits: Limits,
    pub(crate) plans: Arc<Plans>,
    pub(crate) running: Arc<Running>,
    pub(crate) temporary: Arc<TemporaryNamespaces>,
    pub(crate) sessions: Arc<SessionList>,
    pub(crate) turns: Arc<Turns>,
    /// What tables say of their values.
    pub(crate) constraints: ConstraintCache,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) transaction_config: TransactionConfig,
    pub(crate) bulk_bytes_min: usize,
    pub(crate) flush: FlushConfig,
    pub(crate) settings: Arc<[SettingRow]>,
    pub(crate) jobs: Arc<Jobs>,
    /// When what this engine runs is to stop; `None` when that is of each statement its own.
    stop: Option<CancellationToken>,
    cold: Arc<ColdTier>,
    spill_dir: PathBuf,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the data directory, making it when it is not there, and recovers.
    /// A directory in use by another process is `Unavailable`.
    pub async fn open(config: EngineConfig) -> Result<Arc<Self>> {
        Self::open_at(config, Arc::new(SystemClock)).await
    }

    /// The same with a clock of the caller's.
    pub async fn open_at(config: EngineConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        Self::open_paced(config, clock, Arc::new(NoWait)).await
    }

    /// The same with the pace at which flushes and compactions make their steps, for tests that stop there.
    pub async fn open_paced(config: EngineConfig, clock: Arc<dyn Clock>, pace: Arc<dyn Pace>) -> Result<Arc<Self>> {
        let store = Store::open_on(&config.storage, clock, None, pace).await?;
        let spill_dir = config.spill_dir.clone().unwrap_or_else(|| config.storage.data_dir.join("spill"));
        let runtime = runtime(&config, &spill_dir, &store)?;
        let running = Running::new(config.user, config.queries, Arc::clone(&runtime), Arc::clone(store.clock()));
        crate::spans::carry_to_tasks();
        let cold = Arc::new(ColdTier::new(config.filter_memory_max, config.pruning));
        let mut state = rules::state_builder();
        state.scalar_functions().get_or_insert_default().extend(functions(&store).into_iter().chain(json::functions()));
        state.expr_planners().get_or_insert_default().push(Arc::new(json::JsonOperators));
        if config.planted_panic {
            state.scalar_functions().get_or_insert_default().push(Arc::new(planted_panic()));
        }
        let state = state
            .with_config(session_config(&config).with_extension(Arc::clone(&cold)))
            .with_runtime_env(runtime)
            .with_query_planner(Arc::new(give_way::Planner))
            .build();
        let depth_max = config.statement_depth_max.min(DEPTH_MAX);
        let limits = Limits { statement_bytes_max: config.statement_bytes_max, depth_max, ..Limits::default() };
        let (turns, transactions) = (Arc::default(), Arc::default());
        let (state, transaction_config) = (Arc::new(state), config.transaction);
        let plans = Arc::new(Plans::new(config.plans_max));
        let jobs = Jobs::open(Arc::clone(&store), &config.jobs, &config.storage)?;
        Ok(Arc::new(Self {
            store,
            state,
            limits,
            plans,
            running: Arc::new(running),
            temporary: Arc::default(),
            sessions: Arc::default(),
            turns,
            constraints: ConstraintCache::default(),
            transactions,
            transaction_config,
            bulk_bytes_min: config.bulk_bytes_min,
            flush: config.storage.flush,
            settings: config.settings,
            jobs,
            stop: None,
            cold,
            spill_dir,
        }))
    }

    /// The same engine for one statement, that ends early once `stop` fires: also one that computes for long without
    /// giving rows, which dropping what waits for it does not stop. CANCEL QUERY fires it.
    pub fn until(&self, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { stop: Some(stop), ..self.clone() })
    }

    /// When the statement that begins is to stop.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone().unwrap_or_default()
    }

    /// Where results go that memory has no room for.
    pub fn spill_dir(&self) -> &Path {
        &self.spill_dir
    }

    /// The time of its clock, in ns since the Unix epoch.
    pub fn now_ns(&self) -> i64 {
        self.store.clock().now_ns()
    }

    /// What all scans of cold files have skipped and read since the start, by the names that EXPLAIN ANALYZE has for it.
    pub fn scan_totals(&self) -> [(&'static str, u64); 8] {
        self.cold.totals()
    }

    /// How often the manifest cache was asked since the start, and what it took to answer.
    pub fn manifest_cache_totals(&self) -> CacheTotals {
        self.store.manifest_cache_totals()
    }

    /// Waits until the storage takes no more commits. Before [`Engine::close`] that means that a write has failed: what
    /// is durable is then unknown, and the process should end.
    pub async fn storage_ended(&self) {
        self.store.ended().await;
    }

    /// Whether the storage takes no more commits.
    pub fn has_storage_ended(&self) -> bool {
        self.store.has_ended()
    }

    /// Stops: waits for the commits in flight and closes RocksDB.
    pub async fn close(&self) -> Result<()> {
        // What runs ends when the store does, at its next step.
        self.jobs.stop();
        self.store.close().await;
        self.jobs.ended().await;
        Ok(())
    }
}

fn session_config(engine: &EngineConfig) -> SessionConfig {
    // A sort needs a few batches in memory at least: where a user has little, batches are small.
    let memory = engine.user.memory_max.min(engine.query_memory_max);
    let batch_rows = (memory / MEMORY_PER_BATCH_ROW).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX);
    let mut config = SessionConfig::new()
        .with_batch_size(batch_rows)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    options.catalog.default_catalog = CATALOG.into();
    // Clients know no views.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.optimizer.expand_views_at_output = true;
    options.execution.parquet.schema_force_view_types = false;
    // `x IS TRUE` is never NULL, which only logical plans know: the schemas that would be compared differ in it.
    options.execution.skip_physical_aggregate_schema_check = true;
    // What a sort sets aside for merging is a small part of what one user has, or few sorts would take all.
    let for_merging = memory / (64 * options.execution.target_partitions);
    options.execution.sort_spill_reservation_bytes = for_merging.clamp(MERGE_BYTES_MIN, MERGE_BYTES_MAX);
    // Sessions are pinned to UTC; clients convert.
    options.execution.time_zone = Some("+00:00".into());
    config
}

fn runtime(config: &EngineConfig, spill: &Path, store: &Store) -> Result<Arc<RuntimeEnv>> {
    let internal = |e: datafusion::error::DataFusionError| EngineError::internal(format!("query runtime: {e}"));
    std::fs::create_dir_all(spill).map_err(|e| EngineError::internal(format!("{}: {e}", spill.display())))?;
    let largest = NonZeroUsize::new(3).expect("3 is not 0");
    let all = FairPool::new("all users".to_owned(), "limits.query_memory_max", config.query_memory_max);
    let pool = TrackConsumersPool::new(all, largest);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill.to_owned()])),
        )
        .build_arc()
        .map_err(internal)?;
    let url = url::Url::parse(OBJECTS_URL).map_err(|e| EngineError::internal(e.to_string()))?;
    runtime.register_object_store(&url, Arc::clone(store.object_reader()));
    Ok(runtime)
}
