//! CREATE TABLE … AS: the rows of a query, as an ingest takes them.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::execute_stream;
use futures::{StreamExt, TryStreamExt};
use seracdb_storage::system_columns::is_system_column;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{IfExists, IfMissing, IngestTarget};
use crate::running::Run;
use crate::scan::LOCATION_COLUMNS;
use crate::session::Session;
use crate::sql::Statement;
use crate::sql::errors::from_datafusion;
use crate::sql::statement::CreateTableAs;

impl Engine {
    /// Creates a table with the rows of a query, as one commit; gives their number. Columns of SeracDB's own are left out: the new
    /// rows have others.
    pub(crate) async fn create_table_as(
        self: &Arc<Self>,
        session: &Session,
        create: &CreateTableAs,
        run: &Run,
    ) -> Result<u64> {
        let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
        let query = Statement::Query(create.query.clone());
        let tables = self.tables_for(session, &query)?;
        let is_there = create.temporary.then(|| tables.temporary.clone()).flatten();
        let namespace =
            is_there.as_deref().unwrap_or_else(|| create.name.namespace.as_deref().unwrap_or(&tables.namespace));
        if create.if_not_exists && tables.catalog().table(namespace, &create.name.table).is_some() {
            return Ok(0);
        }
        let prepared = self.prepare_over(&tables, query, "".into())?;
        let columns = Columns::of(create, prepared.schema())?;
        let state = run.planning(self.statement_state(run.stop()));
        let plan = prepared.plan_over(&state, &tables, vec![])?.plan;
        let plan = run.unless_stopped(state.create_physical_plan(&plan)).await?.map_err(failed)?;
        run.runs(&plan);
        let rows = run.until_stopped(execute_stream(plan, run.task(&state)).map_err(failed)?);
        let schema = Arc::clone(&columns.schema);
        let rows = rows.map_err(failed).map(move |batch| columns.of_rows(&batch?));
        let target = IngestTarget {
            namespace: create.name.namespace.clone(),
            table: create.name.table.clone(),
            temporary: create.temporary,
            kind: create.kind.into(),
            options: create.options.clone(),
            if_missing: IfMissing::Create,
            if_exists: if create.or_replace { IfExists::Replace } else { IfExists::Fail },
        };
        self.ingest_with(session, target, schema, rows.boxed(), run).await
    }
}

/// The columns of the query that become the table's.
struct Columns {
    places: Vec<usize>,
    schema: SchemaRef,
}

impl Columns {
    fn of(create: &CreateTableAs, query: &SchemaRef) -> Result<Self> {
        let kept = query.fields().iter().enumerate().filter(|(_, field)| !is_system_column(field.name()));
        let (places, mut fields): (Vec<usize>, Vec<Field>) =
            kept.map(|(place, field)| (place, field.as_ref().clone().with_nullable(true))).unzip();
        if places.is_empty() {
            return Err(EngineError::invalid("CREATE TABLE … AS: the query has no columns but SeracDB's own"));
        }
        if !create.columns.is_empty() {
            if create.columns.len() != places.len() {
                return Err(EngineError::invalid(format!(
                    "CREATE TABLE … AS names {} columns, but the query has {} (SeracDB's own are left out)",
                    create.columns.len(),
                    places.len()
                )));
            }
            fields = fields.into_iter().zip(&create.columns).map(|(field, name)| field.with_name(name)).collect();
        }
        Ok(Self { places, schema: Arc::new(Schema::new(fields)) })
    }

    /// Rows of the query, of the types that its plan gives.
    fn of_rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = self.places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let fields = self.schema.fields().iter().zip(&columns);
        let fields: Vec<Field> =
            fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true)).collect();
        let made = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        made.map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))
    }
}
