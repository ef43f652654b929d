//! Names to tables, as one statement sees them: its snapshot, its user, its session's namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use seracdb_storage::catalog::{Catalog, NamespaceRecord, Privilege, TableKind, TableRecord, ViewRecord};
use seracdb_storage::keys::{Owner, Scope};
use seracdb_storage::snapshot::Snapshot;
use seracdb_storage::store::Store;
use seracdb_storage::system_columns::CommitTs;

use crate::audit_log::{self, AUDIT_LOG};
use crate::effective::refused_shared;
use crate::engine::SettingRow;
use crate::error::{EngineError, Result, time_text};
use crate::identity::{Principal, Role};
use crate::information_schema;
use crate::jobs::Jobs;
use crate::rights::{Object, denied};
use crate::running::Running;
use crate::scan::{AsOf, ChangesTable, EveryonesTable, Exposure, OP_COLUMN, ScopeTable, external};
use crate::session::{INFORMATION_SCHEMA, Reach, describes};
use crate::session_list::SessionList;
use crate::sql::Limits;
use crate::sql::dml::TARGET_CATALOG;
use crate::sql::names::{CATALOG, TableName};
use crate::sql::planner::ALL_USERS_CATALOG;
use crate::sql::rewrite::SessionValues;
use crate::sql::suggest;
use crate::sql::time_travel::{CHANGES_CATALOG, Timed, moment};
use crate::system::{SYSTEM_SCHEMA, SystemTable, system_tables};
use crate::temporary::is_temporary;
use crate::transaction::Staged;
use crate::views::view_of;

/// What a statement's names mean.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    /// Everything the statement reads is as of this.
    pub snapshot: Arc<Snapshot>,
    /// What the statement's transaction has staged over it; `None` outside of one.
    pub staged: Option<Staged>,
    /// The catalog that holds outside of the statement's transaction, for rights that were revoked meanwhile; `None` outside
    /// of one, where it is the snapshot's.
    pub newest: Option<Arc<Catalog>>,
    /// Whose rights count, and whose rows of user tables it reads.
    pub principal: Principal,
    /// Who acts for them, when that is another user.
    pub actor: Option<Principal>,
    /// What is reached for another user than the session's; `None` for its own.
    pub reach: Option<Reach>,
    /// Whether it may read the rows of all users: it says so itself, and is in the audit log for it.
    pub everyone: bool,
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
    /// The sessions of clients.
    pub sessions: Arc<SessionList>,
    /// What a statement may be like.
    pub limits: Limits,
    /// The settings of the server.
    pub settings: Arc<[SettingRow]>,
    /// The jobs of the server.
    pub jobs: Arc<Jobs>,
    /// What knows what rows were.
    pub store: Arc<Store>,
}

impl Tables {
    /// Namespaces and tables.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        self.staged.as_ref().map_or_else(|| self.snapshot.catalog(), |staged| &staged.catalog)
    }

    /// The settings of the server, as far as its user may know of them.
    pub(crate) fn server_settings(&self) -> &[SettingRow] {
        if self.principal.role() >= Role::Admin { &self.settings } else { &[] }
    }

    /// What `current_user` and its kin are.
    pub(crate) fn session_values(&self) -> SessionValues<'_> {
        let session_user = self.actor.as_ref().unwrap_or(&self.principal).name();
        SessionValues { user: self.principal.name(), session_user, namespace: &self.namespace }
    }

    /// The namespaces that this session sees.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Arc<NamespaceRecord>> {
        self.catalog().namespaces().filter(|namespace| self.is_visible(&namespace.name))
    }

    /// The tables that this session and its user see, but for those that describe others.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Arc<TableRecord>> {
        self.catalog().tables().filter(|table| self.is_visible(&table.namespace) && self.sees(Object::Table(table)))
    }

    /// The views that they see.
    pub(crate) fn views(&self) -> impl Iterator<Item = &Arc<ViewRecord>> {
        self.catalog().views().filter(|view| self.is_visible(&view.namespace) && self.sees(Object::View(view)))
    }

    /// A view by name; `None` for a table, too.
    pub(crate) fn view(&self, name: &TableName) -> Option<&Arc<ViewRecord>> {
        let namespace = self.namespace_of(name);
        let view = self.catalog().view(namespace, &name.table).filter(|_| self.is_visible(namespace));
        view.filter(|view| self.sees(Object::View(view)))
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

    /// A table's record; an unknown one is NotFound with what was probably meant, and so is one that the user has no right
    /// to. A view is none.
    pub(crate) fn record(&self, name: &TableName) -> Result<&Arc<TableRecord>> {
        let (namespace, catalog) = (self.namespace_of(name), self.catalog());
        let is_there = catalog.namespace(namespace).is_some() && self.is_visible(namespace);
        let table = catalog.table(namespace, &name.table).filter(|table| self.sees(Object::Table(table)));
        if is_there && let Some(table) = table {
            return Ok(table);
        }
        if !is_there && !describes(namespace) {
            let names = self.namespaces().map(|record| record.name.as_str());
            let known = names.chain([INFORMATION_SCHEMA, SYSTEM_SCHEMA]);
            return Err(EngineError::not_found(suggest::unknown("namespace", namespace, known)));
        }
        if self.view(name).is_some() {
            return Err(EngineError::invalid(format!("'{name}' is a view, not a table")));
        }
        Err(self.unknown_table(name))
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
        if name.catalog() == Some(ALL_USERS_CATALOG) {
            return self.everyones_source(name);
        }
        if name.catalog() == Some(CHANGES_CATALOG) {
            return self.changes_source(name);
        }
        let is_target = name.catalog() == Some(TARGET_CATALOG);
        if let Some(catalog) = name.catalog().filter(|catalog| !is_target && *catalog != CATALOG) {
            return Err(external(EngineError::not_found(format!(
                "unknown catalog '{catalog}': the only catalog is '{CATALOG}'"
            ))));
        }
        let exposure = if is_target { Exposure::Located } else { self.exposure };
        let mut name = TableName { namespace: name.schema().map(str::to_owned), table: name.table().to_owned() };
        let schema = self.provider(&name, exposure)?.schema();
        // In a view a name means something else than outside, but a plan has both.
        name.namespace = Some(self.namespace_of(&name).to_owned());
        Ok(Arc::new(Named { name, exposure, schema, shows: Shows::Rows }))
    }

    fn everyones_source(&self, name: &TableReference) -> DfResult<Arc<dyn TableSource>> {
        let namespace = name.schema().filter(|namespace| !namespace.is_empty()).map(str::to_owned);
        let mut name = TableName { namespace, table: name.table().to_owned() };
        let schema = self.everyones(&name, self.exposure).map_err(external)?.schema();
        name.namespace = Some(self.namespace_of(&name).to_owned());
        Ok(Arc::new(Named { name, exposure: self.exposure, schema, shows: Shows::RowsOfAllUsers }))
    }

    fn changes_source(&self, name: &TableReference) -> DfResult<Arc<dyn TableSource>> {
        let namespace = name.schema().filter(|namespace| !namespace.is_empty()).map(str::to_owned);
        let mut name = TableName { namespace, table: name.table().to_owned() };
        let table = self.readable(&name).map_err(external)?;
        if table.column_id(OP_COLUMN).is_some() {
            return Err(external(EngineError::invalid(format!(
                "changes(…) has a column {OP_COLUMN} of its own: rename that of table '{name}'"
            ))));
        }
        let schema = ChangesTable::schema_of(table);
        name.namespace = Some(self.namespace_of(&name).to_owned());
        Ok(Arc::new(Named { name, exposure: Exposure::All, schema, shows: Shows::Changes }))
    }

    /// The rows of a table at a time, or what has become of them since.
    fn timed(&self, timed: &Timed) -> Result<Arc<dyn TableProvider>> {
        let Some(named) = timed.source.downcast_ref::<Named>() else {
            return Err(EngineError::invalid("a view is read as it is now: write AS OF at the tables that it reads"));
        };
        if let Some(describing) = Some(self.namespace_of(&named.name)).filter(|namespace| describes(namespace)) {
            return Err(EngineError::invalid(format!("tables of {describing} are read as they are now")));
        }
        let table = self.readable(&named.name)?;
        if table.kind == TableKind::Stream {
            return Err(EngineError::invalid(format!(
                "'{}' is a stream table: what its rows were goes with them",
                named.name
            )));
        }
        // Commits go on from the last one when the clock steps back.
        let latest = self.now_ns.max(self.snapshot.ts().get());
        let times = timed.times.iter().map(|time| moment(time, latest)).collect::<Result<Vec<_>>>()?;
        if let Some(future) = times.iter().find(|time| **time > latest) {
            return Err(EngineError::invalid(format!("{} is still to come", time_text(*future))));
        }
        if times[0] < table.created_at_ns {
            return Err(EngineError::invalid(format!(
                "table '{}' was created later, at {}",
                named.name,
                time_text(table.created_at_ns)
            )));
        }
        let until = times.get(1).map_or(self.snapshot.ts(), |until| CommitTs::stored(*until));
        let scope = self.scope(table);
        let rows =
            |exposure| ScopeTable::new(Arc::clone(&self.snapshot), None, scope, Arc::clone(table), None, exposure);
        let newest = self.staged.is_none();
        let since = AsOf { store: Arc::clone(&self.store), at: CommitTs::stored(times[0]), newest };
        Ok(match named.shows {
            Shows::Changes => Arc::new(ChangesTable::new(rows(Exposure::All), since, until)),
            _ => Arc::new(rows(named.exposure).read_as_of(since)),
        })
    }

    /// The rows of all users of a table.
    fn everyones(&self, name: &TableName, exposure: Exposure) -> Result<EveryonesTable> {
        if self.principal.role() < Role::Admin {
            return Err(denied("all_users requires the role admin or a higher one"));
        }
        if !self.everyone {
            return Err(EngineError::invalid(
                "all_users is possible in a statement itself only: not in a view, nor for another user",
            ));
        }
        let table = self.record(name)?;
        if table.kind == TableKind::Shared {
            return Err(EngineError::invalid(format!("all_users: '{name}' is a shared table: read it by its name")));
        }
        let of_table = |scope: &Scope| scope.table == table.id;
        let mut scopes: BTreeSet<Scope> = self.snapshot.hot_scopes()?.into_iter().filter(of_table).collect();
        scopes.extend(self.snapshot.scopes_with_files(table.id)?);
        scopes.extend(self.staged.iter().flat_map(Staged::written).filter(of_table));
        let user = |scope: &Scope| self.catalog().user_by_number(scope.owner.0).map(|user| user.name.clone());
        let named = scopes.into_iter().filter_map(|scope| Some((user(&scope)?, self.rows_of(table, scope, exposure))));
        let schema = self.table(table, exposure).schema();
        Ok(EveryonesTable::new(named.collect(), &schema))
    }

    /// A plan over these tables' rows. It was made for tables of the same names and columns; whether their user may read them
    /// is asked again.
    pub(crate) fn bind(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let bound = plan.transform_down_with_subqueries(|node| match node {
            LogicalPlan::SubqueryAlias(alias) => {
                if let Some((namespace, view)) = view_of(&alias.alias) {
                    self.require_view(namespace, view).map_err(external)?;
                }
                Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)))
            }
            LogicalPlan::TableScan(mut scan) => {
                if let Some(timed) = scan.source.downcast_ref::<Timed>() {
                    scan.source = provider_as_source(self.timed(timed).map_err(external)?);
                    return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
                }
                let Some(named) = scan.source.downcast_ref::<Named>() else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                let (name, exposure) = (&named.name, named.exposure);
                scan.source = provider_as_source(match named.shows {
                    Shows::Rows => self.provider(name, exposure)?,
                    Shows::RowsOfAllUsers => Arc::new(self.everyones(name, exposure).map_err(external)?),
                    Shows::Changes => return Err(external(EngineError::internal("changes without a time"))),
                });
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(bound?.data)
    }

    fn provider(&self, name: &TableName, exposure: Exposure) -> DfResult<Arc<dyn TableProvider>> {
        match self.namespace_of(name) {
            INFORMATION_SCHEMA => return information_schema::table(self, &name.table),
            SYSTEM_SCHEMA => return self.system_table(&name.table),
            _ => {}
        }
        // What a statement needs to change rows is asked where its target is known.
        let record = match exposure {
            Exposure::Located => self.reachable(name),
            Exposure::Visible | Exposure::All => self.readable(name),
        };
        Ok(Arc::new(self.table(record.map_err(external)?, exposure)))
    }

    /// A table that the statement may name.
    fn reachable(&self, name: &TableName) -> Result<&Arc<TableRecord>> {
        if self.reach == Some(Reach::OwnRows) {
            self.refuse_shared(name)?;
        }
        self.record(name)
    }

    /// A table that it may read.
    fn readable(&self, name: &TableName) -> Result<&Arc<TableRecord>> {
        let record = self.reachable(name)?;
        self.require_right(Object::Table(record), Privilege::Select)?;
        self.require_right_of_actor(record)?;
        Ok(record)
    }

    /// Refuses to read for another user what belongs to no user, and what the actor itself may not read.
    fn require_right_of_actor(&self, table: &Arc<TableRecord>) -> Result<()> {
        match self.actor.as_ref().filter(|_| table.kind == TableKind::Shared) {
            Some(actor) => {
                let own = Self { principal: actor.clone(), ..self.clone() };
                own.require_right(Object::Table(table), Privilege::Select)
            }
            None => Ok(()),
        }
    }

    /// Refuses what a statement for another user names, if that is a shared table: whoever may act for others may know of it.
    pub(crate) fn refuse_shared(&self, name: &TableName) -> Result<()> {
        let namespace = self.namespace_of(name);
        let table = self.catalog().table(namespace, &name.table).filter(|_| self.is_visible(namespace));
        match table.is_some_and(|table| table.kind == TableKind::Shared) {
            true => Err(refused_shared()),
            false => Ok(()),
        }
    }

    /// Refuses to read a view that is in a plan.
    fn require_view(&self, namespace: &str, name: &str) -> Result<()> {
        let Some(view) = self.catalog().view(namespace, name) else {
            let name = TableName { namespace: Some(namespace.to_owned()), table: name.to_owned() };
            return Err(self.unknown_table(&name));
        };
        self.require_right(Object::View(view), Privilege::Select)?;
        self.require_below(view)
    }

    pub(crate) fn table(&self, record: &Arc<TableRecord>, exposure: Exposure) -> ScopeTable {
        self.rows_of(record, self.scope(record), exposure)
    }

    /// Rows of commits before this have expired, where they live for so long.
    pub(crate) fn expired_before(&self, ttl_ns: i64) -> CommitTs {
        CommitTs::stored(self.now_ns.saturating_sub(ttl_ns))
    }

    /// The rows of a scope of a table.
    pub(crate) fn rows_of(&self, record: &Arc<TableRecord>, scope: Scope, exposure: Exposure) -> ScopeTable {
        let not_before = record.ttl_ns.map(|ttl| self.expired_before(ttl));
        let staged = self.staged.as_ref().map(|staged| staged.scope(scope).cloned().unwrap_or_default());
        ScopeTable::new(Arc::clone(&self.snapshot), staged, scope, Arc::clone(record), not_before, exposure)
    }

    fn system_table(&self, name: &str) -> DfResult<Arc<dyn TableProvider>> {
        if name == AUDIT_LOG {
            audit_log::require_admin(self).map_err(external)?;
        }
        match SystemTable::named(self, name) {
            Some(table) => Ok(Arc::new(table)),
            None => {
                let unknown = suggest::unknown("table", name, system_tables(self));
                Err(external(EngineError::not_found(format!("{unknown} in {SYSTEM_SCHEMA}"))))
            }
        }
    }

    /// A table's or view's name in the form in which the statement gave the unknown one.
    pub(crate) fn shown_name(&self, namespace: &str, name: &str, like: &TableName) -> String {
        match like.namespace.is_some() || namespace != self.namespace {
            true => format!("{namespace}.{name}"),
            false => name.to_owned(),
        }
    }
}

/// Whether a plan that is not bound yet reads the changes of a table.
pub(crate) fn reads_changes(plan: &LogicalPlan) -> DfResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(timed) = scan.source.downcast_ref::<Timed>()
        {
            let named = timed.source.downcast_ref::<Named>();
            found |= named.is_some_and(|named| named.shows == Shows::Changes);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// A table that a plan names.
struct Named {
    /// With its namespace.
    name: TableName,
    exposure: Exposure,
    schema: SchemaRef,
    shows: Shows,
}

/// What of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Rows,
    RowsOfAllUsers,
    Changes,
}

/// Namespace and name of the table that a plan names here.
pub(crate) fn table_of(source: &dyn TableSource) -> Option<(&str, &str)> {
    let named = source.downcast_ref::<Named>()?;
    Some((named.name.namespace.as_deref()?, &named.name.table))
}

impl TableSource for Named {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
