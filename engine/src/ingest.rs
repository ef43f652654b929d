//! Ingest: a stream of batches into a table, created or replaced on the way, as one atomic commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{CatalogChange, Privilege, Readers, TableKind, TableRecord};
use seracdb_storage::commit::{Commit, Expected, check_size};
use seracdb_storage::keys::Scope;
use seracdb_storage::system_columns::is_system_column;

use crate::audit;
use crate::constraints::Constraints;
use crate::ddl::{new_table, require};
use crate::discretion::told;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::Role;
use crate::load::Load;
use crate::rights::Object;
use crate::row_versions::{Writes, pieces};
use crate::running::{Beginning, Run, Way};
use crate::session::Session;
use crate::sql::coerce::bind_column;
use crate::sql::dml::require_column;
use crate::sql::errors::from_datafusion;
use crate::sql::types::{refuse_system_column, storable};
use crate::sql::{Statement, TableName};
use crate::tables::Tables;
use crate::temporary::is_temporary;
use crate::transaction::Transaction;
use crate::unique::KeyView;
use crate::unpacked::unpacked_bytes;
use crate::users::staged_changes;
use crate::write::user_columns;

/// Where an ingest stream goes and what to do when the table is (not) there.
#[derive(Debug, Clone)]
pub struct IngestTarget {
    /// Namespace; `None` = the session's.
    pub namespace: Option<String>,
    /// Table.
    pub table: String,
    /// A temporary one, of the session; it has no namespace.
    pub temporary: bool,
    /// Of what kind the table becomes when it is created; a temporary one is the session's in any case.
    pub kind: TableKind,
    /// What WITH says of a table that is created.
    pub options: BTreeMap<String, String>,
    /// When the table is not there.
    pub if_missing: IfMissing,
    /// When it is there.
    pub if_exists: IfExists,
}

/// What an ingest does when its table is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Create it from the stream's schema.
    Create,
    /// Fail with NotFound.
    Fail,
}

/// What an ingest does when its table exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Fail with AlreadyExists.
    Fail,
    /// Add the rows.
    Append,
    /// Drop it and create it again from the stream's schema.
    Replace,
}

/// The table that rows go to, and how it comes to be.
struct Destination {
    table: TableRecord,
    changes: Vec<CatalogChange>,
    /// For each user column, its place in the stream; `None` = what it is GENERATED as, its DEFAULT, or NULL.
    sources: Vec<Option<usize>>,
}

impl Engine {
    /// Loads a stream of batches into a table as one atomic commit; gives the number of rows. Columns are matched by
    /// name and cast where nothing is lost; columns that the stream does not have get their DEFAULT, or NULL.
    pub async fn ingest(
        self: &Arc<Self>,
        session: &Session,
        target: IngestTarget,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        if session.is_ambiguous() {
            return Err(EngineError::invalid(
                "the session has several transactions: say in the ingest which one it belongs to, or end the others",
            ));
        }
        self.room_for_writes().await?;
        // A client that says nothing of its one transaction means it.
        let session = &session.in_only_transaction().with_origin("ingest");
        let (destination, scope) = self.begin_load(session, &target, &schema)?;
        let table = &destination.table;
        let text = match is_temporary(&table.namespace) {
            true => format!("INGEST INTO {}", table.name),
            false => format!("INGEST INTO {}.{}", table.namespace, table.name),
        };
        let beginning = Beginning { way: Way::Ingest, label: "ingest", text: text.into() };
        let run = self.running.begin(session, beginning, self.stop())?;
        let loaded = self.load(session, session.transaction(), destination, scope, batches, &run).await;
        run.ending(loaded)
    }

    /// The same for a statement of the session that runs already.
    pub(crate) async fn ingest_with(
        self: &Arc<Self>,
        session: &Session,
        target: IngestTarget,
        schema: SchemaRef,
        batches: BoxStream<'static, Result<RecordBatch>>,
        run: &Run,
    ) -> Result<u64> {
        self.room_for_writes().await?;
        let (destination, scope) = self.begin_load(session, &target, &schema)?;
        self.load(session, session.transaction(), destination, scope, batches, run).await
    }

    /// Where rows go. Nothing is read after it: a slow client must not hold the snapshot.
    fn begin_load(&self, session: &Session, target: &IngestTarget, schema: &SchemaRef) -> Result<(Destination, Scope)> {
        let tables = self.tables_for(session, &Statement::ShowNamespaces)?;
        let destination = self.destination(session, &tables, target, schema)?;
        let scope = tables.scope(&destination.table);
        Ok((destination, scope))
    }

    /// Takes the rows of an ingest, and commits or stages them.
    async fn load(
        self: &Arc<Self>,
        session: &Session,
        transaction: Option<Arc<Transaction>>,
        destination: Destination,
        scope: Scope,
        mut batches: BoxStream<'static, Result<RecordBatch>>,
        run: &Run,
    ) -> Result<u64> {
        let mut load = Load::new(self, &destination.table, scope)?;
        let (constraints, state) = (self.constraints(&destination.table)?, self.statement_state(run.stop()));
        // What is gathered is the user's memory, and refused when there is too much: a client may take long to send more.
        let gathered = run.memory("ingest");
        while let Some(batch) = run.unless_stopped(batches.try_next()).await?? {
            if let Some(transaction) = &transaction {
                // It is in use as long as rows come.
                transaction.require_open()?;
            }
            run.count(&batch);
            check_size(unpacked_bytes(&batch))?;
            for piece in pieces(&batch) {
                let columns = destination.columns(&piece, &constraints, &state)?;
                load.push(columns, piece.num_rows()).await?;
                gathered.try_resize(load.waiting_bytes()).map_err(|error| from_datafusion(error, &[]))?;
            }
        }
        // It may have taken long, and rights be others by now.
        if destination.changes.is_empty() {
            let tables = self.tables_for(session, &Statement::ShowNamespaces)?;
            tables.require_right(Object::Table(&destination.table), Privilege::Insert)?;
        }
        let writes = load.finish().await?;
        let rows = writes.rows();
        if !writes.keys.is_empty() {
            let tables = self.tables_for(session, &Statement::ShowNamespaces)?;
            self.require_keys(&tables, &Arc::new(destination.table.clone()), scope).await?;
        }
        match transaction {
            Some(transaction) => self.stage_loaded(session, &transaction, destination, scope, writes).await?,
            None => self.commit_loaded(session, destination, scope, writes).await?,
        }
        Ok(rows)
    }

    async fn stage_loaded(
        &self,
        session: &Session,
        transaction: &Transaction,
        loaded: Destination,
        scope: Scope,
        mut writes: Writes,
    ) -> Result<()> {
        let _alone = transaction.changing().await;
        transaction.require_writable("an ingest")?;
        let (snapshot, mut staged) = transaction.view()?;
        let Destination { table, changes, .. } = loaded;
        let changes = self.resting_on_actor(session, &snapshot, &staged, changes)?;
        let entries = staged_changes(session, &mut staged, changes)?;
        // It may be another one by now.
        match staged.catalog.table_by_id(table.id) {
            None => {
                let dropped = format!("table '{}.{}' was dropped", table.namespace, table.name);
                return Err(EngineError::not_found(dropped));
            }
            Some(now) if now.rules > table.rules => {
                return Err(EngineError::new(
                    ErrorKind::Aborted,
                    format!(
                        "table '{}.{}' got a constraint during the ingest: send it again",
                        table.namespace, table.name
                    ),
                ));
            }
            Some(_) => {}
        }
        KeyView::new(&snapshot, staged.scope(scope), scope).settle(&table, &mut writes).await?;
        staged.write(&table, writes);
        self.stage(transaction, staged)?;
        audit::save(&self.store, entries).await
    }

    async fn commit_loaded(
        self: &Arc<Self>,
        session: &Session,
        loaded: Destination,
        scope: Scope,
        writes: Writes,
    ) -> Result<()> {
        let Destination { table, mut changes, .. } = loaded;
        if !changes.is_empty() {
            changes.insert(0, self.same_actor(session)?);
        }
        let replaces = changes.iter().any(|change| matches!(change, CatalogChange::DropTable { .. }));
        // Alone where rows have unique keys: what is seen of these holds until the commit, but for transactions that end now.
        let _entered = self.turns.enter(table.id).await;
        let _alone = match writes.keys.is_empty() {
            true => None,
            false => Some(self.turns.take(scope, true).await),
        };
        let snapshot = self.store.snapshot();
        let keys = KeyView::new(&snapshot, None, scope).settled(&table, writes.keys).await?;
        let commit = Commit {
            audit: audit::of_changes(session, snapshot.catalog(), &changes),
            snapshot,
            expects: vec![Expected::of(&table)],
            catalog: changes,
            writes: writes.writes,
            keys: keys.clone(),
            files: writes.files,
            name: None,
        };
        match self.store.commit(commit).await {
            Ok(_) if replaces => self.remove_dropped_later(),
            Ok(_) => {}
            // The client has sent these values.
            Err(StorageError::KeyConflict { .. }) if let Some(error) = self.taken_meanwhile(&table, &keys, true) => {
                return Err(error);
            }
            Err(StorageError::Conflict | StorageError::KeyConflict { .. }) => {
                let name = format!("{}.{}", table.namespace, table.name);
                return Err(EngineError::new(
                    ErrorKind::Aborted,
                    format!("table '{name}' was changed or dropped during the ingest: send it again"),
                ));
            }
            Err(error) => return Err(told(session.principal(), self.store.snapshot().catalog(), error.into())),
        }
        Ok(())
    }

    fn destination(
        &self,
        session: &Session,
        tables: &Tables,
        target: &IngestTarget,
        schema: &SchemaRef,
    ) -> Result<Destination> {
        let (mut name, mut create) =
            (TableName { namespace: target.namespace.clone(), table: target.table.clone() }, None);
        if target.temporary {
            let (namespace, change) = self.temporary_namespace(session)?;
            name.namespace = Some(namespace.to_string());
            create = Some(change);
        }
        let namespace = match target.if_exists {
            // A new table never replaces a temporary one that happens to have its name.
            IfExists::Append => tables.namespace_of(&name).to_owned(),
            _ => name.namespace.clone().unwrap_or_else(|| tables.namespace.clone()),
        };
        if is_temporary(&namespace) && !tables.is_visible(&namespace) && !target.temporary {
            return Err(EngineError::not_found(format!("unknown namespace '{namespace}'")));
        }
        let there = TableName { namespace: Some(namespace.clone()), table: target.table.clone() };
        if tables.view(&there).is_some() {
            return Err(EngineError::invalid(format!("'{namespace}.{}' is a view: rows go into tables", target.table)));
        }
        let found = tables.catalog().table(&namespace, &target.table);
        let found = found.filter(|table| tables.sees(Object::Table(table)));
        match (found, target.if_exists, target.if_missing) {
            (Some(table), IfExists::Append, _) => {
                tables.require_right(Object::Table(table), Privilege::Insert)?;
                Destination::existing(table, &name, schema)
            }
            (Some(_), IfExists::Fail, _) => Err(EngineError::new(
                ErrorKind::AlreadyExists,
                format!("table '{namespace}.{}' exists already: ingest in append or replace mode", target.table),
            )),
            (None, _, IfMissing::Fail) => Err(tables.record(&name).err().unwrap_or_else(|| {
                EngineError::not_found(format!("table '{namespace}.{}' does not exist", target.table))
            })),
            (found, _, _) => {
                if !target.temporary {
                    require(self, session, Role::Service, "an ingest that creates a table")?;
                }
                if let Some(table) = found {
                    tables.require_owner(Object::Table(table), "an ingest that replaces a table")?;
                }
                if target.temporary && found.is_none() {
                    self.check_one_more_temporary(session, tables.catalog())?;
                }
                let drop = found.map(|table| CatalogChange::DropTable {
                    id: table.id,
                    namespace: table.namespace.clone(),
                    name: table.name.clone(),
                    views: Readers::Keep,
                });
                let before = create.unwrap_or_else(|| tables.same_namespace(&namespace));
                let before = [before].into_iter().chain(drop).collect();
                self.created(session, &namespace, target, schema, before)
            }
        }
    }

    /// A new table with the stream's columns, after what has to be changed before.
    fn created(
        &self,
        session: &Session,
        namespace: &str,
        target: &IngestTarget,
        schema: &SchemaRef,
        mut changes: Vec<CatalogChange>,
    ) -> Result<Destination> {
        let mut fields = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            refuse_system_column(field.name())?;
            if fields.iter().any(|known: &Field| known.name() == field.name()) {
                return Err(EngineError::invalid(format!("column '{}' is there twice", field.name())));
            }
            fields.push(Field::new(field.name(), storable(field.data_type())?, true));
        }
        let kind = if target.temporary { TableKind::Shared } else { target.kind };
        let record = new_table(self, session, namespace, &target.table, kind, &fields, &target.options)?;
        changes.push(CatalogChange::CreateTable(record.clone()));
        Ok(Destination { table: record, changes, sources: (0..fields.len()).map(Some).collect() })
    }
}

impl Destination {
    /// A table that is there, its columns matched by name.
    fn existing(table: &TableRecord, name: &TableName, schema: &SchemaRef) -> Result<Self> {
        let columns = user_columns(table.schema());
        let mut sources = vec![None; columns.len()];
        for (place, field) in schema.fields().iter().enumerate() {
            if is_system_column(field.name()) {
                refuse_system_column(field.name())?;
            }
            let column = require_column(field.name(), &columns, name)?;
            if sources[column].replace(place).is_some() {
                return Err(EngineError::invalid(format!("column '{}' is there twice", field.name())));
            }
        }
        Ok(Self { table: table.clone(), changes: vec![], sources })
    }

    /// A batch as the table's user columns.
    fn columns(&self, batch: &RecordBatch, constraints: &Constraints, state: &SessionState) -> Result<Vec<ArrayRef>> {
        let column = |(place, (name, data_type)): (usize, &(String, DataType)), source: &Option<usize>| match source {
            Some(_) if constraints.generated_names().contains(name) => {
                Err(EngineError::invalid(format!("column '{name}' is GENERATED: leave it out")))
            }
            Some(source) => bind_column(batch.column(*source), data_type, &format!("column '{name}'")),
            None => constraints.default_values(|| state, place, batch.num_rows()),
        };
        let columns = user_columns(self.table.schema());
        columns.iter().enumerate().zip(&self.sources).map(|(target, source)| column(target, source)).collect()
    }
}
