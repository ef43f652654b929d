//! The namespace `information_schema`: DataFusion's tables over what this session sees, with comments and what DataFusion does not know
//! of columns, and ours of views.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::kernels::numeric::add;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::{ExecutionPlan, collect};
use futures::FutureExt;
use seracdb_storage::catalog::ViewRecord;
use seracdb_storage::unique::UniqueKey;

use crate::error::{EngineError, Result};
use crate::rights::Object;
use crate::row_builder::{NUMBER, Rows, TEXT, schema};
use crate::scan::{Exposure, external};
use crate::session::INFORMATION_SCHEMA;
use crate::sql::names::{CATALOG, TableName};
use crate::sql::suggest;
use crate::system::{SYSTEM_SCHEMA, SystemTable, system_tables};
use crate::tables::Tables;

/// The tables that there are: not DataFusion's settings, which name files of the server.
pub(crate) const INFORMATION_TABLES: [&str; 9] = [
    "check_constraints",
    "columns",
    "key_column_usage",
    "parameters",
    "routines",
    "schemata",
    "table_constraints",
    "tables",
    "views",
];

/// The last column of the tables that have one.
const COMMENT: &str = "comment";
/// DataFusion knows none.
const COLUMN_DEFAULT: &str = "column_default";
/// Whether a column is GENERATED, and as what.
const GENERATED: [&str; 2] = ["is_generated", "generation_expression"];
/// DataFusion counts it from 0.
const ORDINAL_POSITION: &str = "ordinal_position";

/// A table by name.
pub(crate) fn table(tables: &Tables, name: &str) -> DfResult<Arc<dyn TableProvider>> {
    let ours = match name {
        "views" => Some(views(tables)),
        "table_constraints" => Some(table_constraints(tables)),
        "key_column_usage" => Some(key_column_usage(tables)),
        "check_constraints" => Some(check_constraints(tables)),
        _ => None,
    };
    if let Some(rows) = ours {
        let rows = rows.map_err(external)?;
        return Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?));
    }
    let provider = InformationSchemaProvider::new(Arc::new(Listing(Arc::new(tables.clone()))));
    let found = match INFORMATION_TABLES.contains(&name) {
        true => provider.table(name).now_or_never().transpose()?.flatten(),
        false => None,
    };
    let found = found.ok_or_else(|| {
        let unknown = suggest::unknown("table", name, INFORMATION_TABLES);
        external(EngineError::not_found(format!("{unknown} in {INFORMATION_SCHEMA}")))
    })?;
    Ok(match Of::named(name) {
        Some(of) => Arc::new(WithComments::new(tables, found, of)),
        None => found,
    })
}

/// All views, with the text of their queries where the user owns them: it names what is below them.
fn views(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema(&[
        ("table_catalog", TEXT, false),
        ("table_schema", TEXT, false),
        ("table_name", TEXT, false),
        ("view_definition", TEXT, true),
        ("check_option", TEXT, false),
        ("is_updatable", TEXT, false),
        (COMMENT, TEXT, true),
    ]));
    for view in tables.views() {
        let query = tables.owns(Object::View(view)).then_some(view.query.as_str());
        let name = [CATALOG, &view.namespace, &view.name].map(Some);
        let texts = name.into_iter().chain([query, Some("NONE"), Some("NO"), view.comment.as_deref()]);
        texts.enumerate().for_each(|(column, text)| rows.text(column, text));
    }
    rows.finish()
}

/// The unique keys and checks of all tables.
fn table_constraints(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema(&[
        ("constraint_catalog", TEXT, false),
        ("constraint_schema", TEXT, false),
        ("constraint_name", TEXT, false),
        ("table_catalog", TEXT, false),
        ("table_schema", TEXT, false),
        ("table_name", TEXT, false),
        ("constraint_type", TEXT, false),
        ("is_deferrable", TEXT, false),
        ("initially_deferred", TEXT, false),
        ("enforced", TEXT, false),
        ("nulls_distinct", TEXT, true),
    ]));
    for table in tables.stored() {
        let keys = table.unique.iter().map(|key| match (key.primary, key.nulls_equal) {
            (true, _) => (&key.name, "PRIMARY KEY", None),
            (false, nulls_equal) => (&key.name, "UNIQUE", Some(if nulls_equal { "NO" } else { "YES" })),
        });
        for (name, kind, nulls) in keys.chain(table.checks.iter().map(|check| (&check.name, "CHECK", None))) {
            let texts = [CATALOG, &table.namespace, name, CATALOG, &table.namespace, &table.name, kind];
            let texts = texts.into_iter().chain(["NO", "NO", "YES"]).map(Some).chain([nulls]);
            texts.enumerate().for_each(|(column, text)| rows.text(column, text));
        }
    }
    rows.finish()
}

/// What holds of every row of tables, as it was written.
fn check_constraints(tables: &Tables) -> Result<RecordBatch> {
    let columns = ["constraint_catalog", "constraint_schema", "constraint_name", "check_clause"];
    let mut rows = Rows::new(schema(&columns.map(|name| (name, TEXT, false))));
    for table in tables.stored() {
        for check in &table.checks {
            let texts = [CATALOG, &table.namespace, &check.name, &check.expr];
            texts.into_iter().enumerate().for_each(|(column, text)| rows.text(column, Some(text)));
        }
    }
    rows.finish()
}

/// The columns of unique keys, numbered within each.
fn key_column_usage(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema(&[
        ("constraint_catalog", TEXT, false),
        ("constraint_schema", TEXT, false),
        ("constraint_name", TEXT, false),
        ("table_catalog", TEXT, false),
        ("table_schema", TEXT, false),
        ("table_name", TEXT, false),
        ("column_name", TEXT, false),
        ("ordinal_position", NUMBER, false),
        ("position_in_unique_constraint", NUMBER, true),
    ]));
    for table in tables.stored() {
        for key in UniqueKey::of_table(table) {
            for (place, column) in (1..).zip(key.names()) {
                let name =
                    [CATALOG, &table.namespace, &key.record.name, CATALOG, &table.namespace, &table.name, column];
                name.into_iter().enumerate().for_each(|(column, text)| rows.text(column, Some(text)));
                rows.number(7, Some(place));
                rows.number(8, None);
            }
        }
    }
    rows.finish()
}

/// What the rows of a table are of.
#[derive(Debug, Clone, Copy)]
enum Of {
    Columns,
    Schemata,
    Tables,
}

impl Of {
    fn named(table: &str) -> Option<Self> {
        match table {
            "columns" => Some(Self::Columns),
            "schemata" => Some(Self::Schemata),
            "tables" => Some(Self::Tables),
            _ => None,
        }
    }

    /// What was said of what a row is of. `names`: of its columns with these names.
    fn comment<'a>(self, tables: &'a Tables, name_in: &dyn Fn(&str) -> String) -> Option<&'a str> {
        let catalog = tables.catalog();
        if matches!(self, Self::Schemata) {
            return catalog.namespace(&name_in("schema_name"))?.comment.as_deref();
        }
        let (namespace, name) = (name_in("table_schema"), name_in("table_name"));
        let (table, view) = (catalog.table(&namespace, &name), catalog.view(&namespace, &name));
        match self {
            Self::Columns => {
                let column = name_in("column_name");
                table
                    .and_then(|table| table.column_comment(&column))
                    .or_else(|| view.and_then(|view| view.column_comment(&column)))
            }
            _ => table.and_then(|table| table.comment.as_deref()).or_else(|| view.and_then(|v| v.comment.as_deref())),
        }
    }
}

/// One of DataFusion's tables with a column of comments.
#[derive(Debug)]
struct WithComments {
    tables: Arc<Tables>,
    inner: Arc<dyn TableProvider>,
    of: Of,
    schema: SchemaRef,
}

impl WithComments {
    fn new(tables: &Tables, inner: Arc<dyn TableProvider>, of: Of) -> Self {
        let mut fields = inner.schema().fields().to_vec();
        if matches!(of, Of::Columns) {
            let [is_generated, expression] = GENERATED;
            fields.push(Arc::new(Field::new(is_generated, DataType::Utf8, false)));
            fields.push(Arc::new(Field::new(expression, DataType::Utf8, true)));
        }
        fields.push(Arc::new(Field::new(COMMENT, DataType::Utf8, true)));
        Self { tables: Arc::new(tables.clone()), inner, of, schema: Arc::new(Schema::new(fields)) }
    }

    fn commented(&self, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let comment = |row: usize| {
            let name_in = |column: &str| {
                let column = batch.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
                column.map_or_else(String::new, |column| column.value(row).to_owned())
            };
            self.of.comment(&self.tables, &name_in)
        };
        let comments: StringArray = (0..batch.num_rows()).map(comment).collect();
        let column = |row: usize| {
            let name_in =
                |column: &str| batch.column_by_name(column)?.as_string_opt::<i32>().map(|names| names.value(row));
            let table = self.tables.catalog().table(name_in("table_schema")?, name_in("table_name")?)?;
            let named = name_in("column_name")?;
            table.schema().columns.iter().find(|column| column.name == named)
        };
        let default = |row: usize| column(row)?.default.as_deref();
        let generated = |row: usize| column(row)?.generated.as_deref();
        let named = self.schema.fields().iter().zip(batch.columns());
        let columns = named.map(|(field, values)| match field.name().as_str() {
            COLUMN_DEFAULT => Ok(Arc::new((0..batch.num_rows()).map(default).collect::<StringArray>()) as ArrayRef),
            ORDINAL_POSITION => Ok(add(values, &UInt64Array::new_scalar(1))?),
            _ => Ok(Arc::clone(values)),
        });
        let mut columns: Vec<ArrayRef> = columns.collect::<DfResult<_>>()?;
        if matches!(self.of, Of::Columns) {
            let rows = 0..batch.num_rows();
            let is_generated = rows.clone().map(|row| Some(if generated(row).is_some() { "ALWAYS" } else { "NEVER" }));
            columns.push(Arc::new(is_generated.collect::<StringArray>()));
            columns.push(Arc::new(rows.map(generated).collect::<StringArray>()));
        }
        columns.push(Arc::new(comments));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

#[async_trait]
impl TableProvider for WithComments {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let plan = self.inner.scan(state, None, &[], None).await?;
        let batches = collect(plan, state.task_ctx()).await?;
        let batches = batches.iter().map(|batch| self.commented(batch)).collect::<DfResult<Vec<_>>>()?;
        MemTable::try_new(self.schema(), vec![batches])?.scan(state, projection, filters, limit).await
    }
}

/// The catalog as DataFusion's information schema walks it.
#[derive(Debug, Clone)]
struct Listing(Arc<Tables>);

impl CatalogProviderList for Listing {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.into()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as _)
    }
}

impl CatalogProvider for Listing {
    fn schema_names(&self) -> Vec<String> {
        let names = self.0.namespaces().map(|record| record.name.clone());
        names.chain([SYSTEM_SCHEMA.to_owned()]).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let namespace = match name {
            SYSTEM_SCHEMA => SYSTEM_SCHEMA.to_owned(),
            name => self.0.namespaces().find(|known| known.name == name)?.name.clone(),
        };
        Some(Arc::new(NamespaceListing { tables: Arc::clone(&self.0), namespace }))
    }
}

#[derive(Debug)]
struct NamespaceListing {
    tables: Arc<Tables>,
    namespace: String,
}

#[async_trait]
impl SchemaProvider for NamespaceListing {
    fn table_names(&self) -> Vec<String> {
        if self.namespace == SYSTEM_SCHEMA {
            return system_tables(&self.tables).map(str::to_owned).collect();
        }
        let catalog = self.tables.catalog();
        let tables = catalog.tables_of(&self.namespace).filter(|table| self.tables.sees(Object::Table(table)));
        let views = catalog.views_of(&self.namespace).filter(|view| self.tables.sees(Object::View(view)));
        tables.map(|table| table.name.clone()).chain(views.map(|view| view.name.clone())).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        if self.namespace == SYSTEM_SCHEMA {
            let listed = system_tables(&self.tables).find(|known| *known == name);
            return Ok(listed
                .and_then(|name| SystemTable::named(&self.tables, name))
                .map(|table| Arc::new(table) as _));
        }
        let view = self.tables.catalog().view(&self.namespace, name);
        if let Some(view) = view.filter(|view| self.tables.sees(Object::View(view))) {
            return Ok(Some(Arc::new(ListedView(Arc::clone(view)))));
        }
        let record = self.tables.catalog().table(&self.namespace, name);
        let record = record.filter(|table| self.tables.sees(Object::Table(table)));
        // Listed as it is, whatever a transaction has staged in it.
        let tables = Tables { staged: None, ..(*self.tables).clone() };
        Ok(record.map(|record| Arc::new(tables.table(record, Exposure::All)) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        if self.namespace == SYSTEM_SCHEMA {
            return system_tables(&self.tables).any(|known| known == name);
        }
        let name = TableName { namespace: Some(self.namespace.clone()), table: name.to_owned() };
        self.tables.record(&name).is_ok() || self.tables.view(&name).is_some()
    }
}

/// A view as it is listed. To read it is the planner's.
#[derive(Debug)]
struct ListedView(Arc<ViewRecord>);

#[async_trait]
impl TableProvider for ListedView {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(external(EngineError::internal(format!("view '{}' is not expanded", self.0.name))))
    }
}
