//! Names to tables, as one statement sees them: its snapshot, its user, its session's namespace.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use futures::FutureExt;
use seracdb_storage::catalog::{Catalog, NamespaceRecord, TableKind, TableRecord};
use seracdb_storage::keys::{Owner, Scope};
use seracdb_storage::snapshot::Snapshot;
use seracdb_storage::system_columns::CommitTs;

use crate::error::{EngineError, Result};
use crate::identity::Principal;
use crate::running::Running;
use crate::scan::{Exposure, ScopeTable, external};
use crate::session::{INFORMATION_SCHEMA, describes};
use crate::sql::dml::TARGET_CATALOG;
use crate::sql::names::{CATALOG, TableName};
use crate::sql::suggest;
use crate::system::{SYSTEM_SCHEMA, SYSTEM_TABLES, SystemTable};
use crate::temporary::is_temporary;
use crate::transaction::Staged;

/// The tables of `information_schema` that there are: not DataFusion's settings, which name files of the server.
pub(crate) const INFORMATION_TABLES: [&str; 6] = ["columns", "parameters", "routines", "schemata", "tables", "views"];

/// What a statement's names mean.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    /// Everything the statement reads is as of this.
    pub snapshot: Arc<Snapshot>,
    /// What the statement's transaction has staged over it; `None` outside of one.
    pub staged: Option<Staged>,
    /// Whose rows of user tables it reads.
    pub principal: Principal,
    /// What unqualified names mean.
    pub namespace: String,
    /// What they mean first: the session's temporary tables.
    pub temporary: Option<Arc<str>>,
    /// Which columns tables show, but for the one that an UPDATE or DELETE changes.
    pub exposure: Exposure,
    /// The statement's time: rows of stream tables expire by it.
    pub now_ns: i64,
    /// What runs now.
    pub running: Arc<Running>,
}

impl Tables {
    /// Namespaces and tables.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        self.staged.as_ref().map_or_else(|| self.snapshot.catalog(), |staged| &staged.catalog)
    }

    /// The namespaces that this session sees.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Arc<NamespaceRecord>> {
        self.catalog().namespaces().filter(|namespace| self.is_visible(&namespace.name))
    }

    /// The tables that this session sees, but for those that describe others.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Arc<TableRecord>> {
        self.catalog().tables().filter(|table| self.is_visible(&table.namespace))
    }

    /// Whether a namespace is not of another session's temporary tables.
    pub(crate) fn is_visible(&self, namespace: &str) -> bool {
        !is_temporary(namespace) || self.temporary.as_deref() == Some(namespace)
    }

    /// The namespace that a name means.
    pub(crate) fn namespace_of<'a>(&'a self, name: &'a TableName) -> &'a str {
        let temporary = || self.temporary.as_deref().filter(|own| self.catalog().table(own, &name.table).is_some());
        name.namespace.as_deref().or_else(temporary).unwrap_or(&self.namespace)
    }

    /// A table's record; an unknown one is NotFound with what was probably meant.
    pub(crate) fn record(&self, name: &TableName) -> Result<&Arc<TableRecord>> {
        let (namespace, catalog) = (self.namespace_of(name), self.catalog());
        let is_there = catalog.namespace(namespace).is_some() && self.is_visible(namespace);
        if is_there && let Some(table) = catalog.table(namespace, &name.table) {
            return Ok(table);
        }
        if !is_there && !describes(namespace) {
            let names = self.namespaces().map(|record| record.name.as_str());
            let known = names.chain([INFORMATION_SCHEMA, SYSTEM_SCHEMA]);
            return Err(EngineError::not_found(suggest::unknown("namespace", namespace, known)));
        }
        let known: Vec<String> = self.stored().map(|table| self.shown_name(table, name)).collect();
        let unknown = suggest::unknown("table", &name.to_string(), known.iter().map(String::as_str));
        Err(EngineError::not_found(unknown))
    }

    /// The scope of a table that this statement's user reads and writes.
    pub(crate) fn scope(&self, table: &TableRecord) -> Scope {
        let owner = match table.kind {
            TableKind::Shared => Owner::SHARED,
            TableKind::User | TableKind::Stream => Owner(self.principal.number()),
        };
        Scope { table: table.id, owner }
    }

    /// What the planner asks for: a table's columns, whose rows [`Tables::bind`] finds.
    pub(crate) fn source(&self, name: &TableReference) -> DfResult<Arc<dyn TableSource>> {
        Ok(Arc::new(Named { name: name.clone(), schema: self.provider(name)?.schema() }))
    }

    /// A plan over these tables' rows. It was made for tables of the same names and columns.
    pub(crate) fn bind(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let bound = plan.transform_down_with_subqueries(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                let Some(named) = scan.source.downcast_ref::<Named>() else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                scan.source = provider_as_source(self.provider(&named.name)?);
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(bound?.data)
    }

    fn provider(&self, name: &TableReference) -> DfResult<Arc<dyn TableProvider>> {
        let is_target = name.catalog() == Some(TARGET_CATALOG);
        if let Some(catalog) = name.catalog().filter(|catalog| !is_target && *catalog != CATALOG) {
            return Err(external(EngineError::not_found(format!(
                "unknown catalog '{catalog}': the only catalog is '{CATALOG}'"
            ))));
        }
        let name = TableName { namespace: name.schema().map(str::to_owned), table: name.table().to_owned() };
        match self.namespace_of(&name) {
            INFORMATION_SCHEMA => return self.information_schema(&name.table),
            SYSTEM_SCHEMA => return self.system_table(&name.table),
            _ => {}
        }
        let record = self.record(&name).map_err(external)?;
        Ok(Arc::new(self.table(record, if is_target { Exposure::Located } else { self.exposure })))
    }

    fn table(&self, record: &Arc<TableRecord>, exposure: Exposure) -> ScopeTable {
        let not_before = record.ttl_ns.map(|ttl| CommitTs::stored(self.now_ns.saturating_sub(ttl)));
        let scope = self.scope(record);
        let staged = self.staged.as_ref().map(|staged| staged.scope(scope).cloned().unwrap_or_default());
        ScopeTable::new(Arc::clone(&self.snapshot), staged, scope, Arc::clone(record), not_before, exposure)
    }

    fn information_schema(&self, table: &str) -> DfResult<Arc<dyn TableProvider>> {
        let provider = InformationSchemaProvider::new(Arc::new(Listing(Arc::new(self.clone()))));
        let found = match INFORMATION_TABLES.contains(&table) {
            true => provider.table(table).now_or_never().transpose()?.flatten(),
            false => None,
        };
        found.ok_or_else(|| {
            let unknown = suggest::unknown("table", table, INFORMATION_TABLES);
            external(EngineError::not_found(format!("{unknown} in {INFORMATION_SCHEMA}")))
        })
    }

    fn system_table(&self, name: &str) -> DfResult<Arc<dyn TableProvider>> {
        match SystemTable::named(self, name) {
            Some(table) => Ok(Arc::new(table)),
            None => {
                let unknown = suggest::unknown("table", name, SYSTEM_TABLES);
                Err(external(EngineError::not_found(format!("{unknown} in {SYSTEM_SCHEMA}"))))
            }
        }
    }

    /// A table's name in the form in which the statement gave the unknown one.
    fn shown_name(&self, table: &TableRecord, like: &TableName) -> String {
        match like.namespace.is_some() || table.namespace != self.namespace {
            true => format!("{}.{}", table.namespace, table.name),
            false => table.name.clone(),
        }
    }
}

/// A table that a plan names.
struct Named {
    name: TableReference,
    schema: SchemaRef,
}

impl TableSource for Named {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
            return SYSTEM_TABLES.map(str::to_owned).to_vec();
        }
        self.tables.catalog().tables_of(&self.namespace).map(|table| table.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        if self.namespace == SYSTEM_SCHEMA {
            return Ok(SystemTable::named(&self.tables, name).map(|table| Arc::new(table) as _));
        }
        let record = self.tables.catalog().table(&self.namespace, name);
        // Listed as it is, whatever a transaction has staged in it.
        let tables = Tables { staged: None, ..(*self.tables).clone() };
        Ok(record.map(|record| Arc::new(tables.table(record, Exposure::All)) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        if self.namespace == SYSTEM_SCHEMA {
            return SYSTEM_TABLES.contains(&name);
        }
        self.tables.catalog().table(&self.namespace, name).is_some()
    }
}
