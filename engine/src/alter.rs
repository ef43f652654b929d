//! ALTER TABLE: what a table's columns become. Rows and files stay as they are: those who read them know what has changed since.
//!
//! Invariants:
//! 1. A column keeps its id through every change, and no other column of the table ever has it.
//! 2. What rows have that are there when a column is added is found once, then, and is the same for all of them.
//! 3. A statement that others wrote goes on to mean what it meant: what a view, key, CHECK or GENERATED column needs stays, but for
//!    a column's name in the table's own expressions, which follows it.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::Query;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{CatalogChange, CheckRecord, TableChange, TableRecord};
use seracdb_storage::evolution::widens;
use seracdb_storage::key_codec::keeps_keys;
use seracdb_storage::schema::{Column, TableSchema};
use seracdb_storage::system_columns::FIRST_USER_COLUMN_ID;

use crate::alter_constraints::Wanted;
use crate::constraints::Constraints;
use crate::ddl::own_table;
use crate::discretion::is_read_by_another;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::naming::check_name;
use crate::rights::Object;
use crate::session::Session;
use crate::sql::constraints::{expression, names_column, renamed};
use crate::sql::dml::require_column;
use crate::sql::mentions::depends_on_column;
use crate::sql::statement::{AlterTable, ColumnChange, ConstraintChange};
use crate::sql::{self, Limits, Statement, TableName};
use crate::table_options::ttl_ns;
use crate::tables::Tables;
use crate::write::user_columns;
use crate::{alter_constraints, table_options};

/// Versions of a table's columns.
pub(crate) const VERSIONS_MAX: usize = 1000;
/// Bytes in memory of what rows have that were there before a column.
const INITIAL_BYTES_MAX: usize = 64 << 10;

/// ALTER TABLE.
pub(crate) async fn alter_table(
    engine: &Arc<Engine>,
    session: &Session,
    tables: &Tables,
    name: &TableName,
    if_exists: bool,
    change: &AlterTable,
) -> Result<()> {
    let Some(record) = own_table(engine, session, tables, name, if_exists, "ALTER TABLE")? else { return Ok(()) };
    let change = match change {
        AlterTable::Options(options) => {
            let mut all = record.options.clone();
            for (name, value) in options {
                match value {
                    Some(value) => all.insert(name.clone(), value.clone()),
                    None => all.remove(name),
                };
            }
            Some(TableChange::Options { options: options.clone(), ttl_ns: ttl_ns(record.kind, &all)? })
        }
        AlterTable::Default { column, default } => {
            let known = column_of(record, column, name)?;
            if known.generated.is_some() {
                return Err(EngineError::invalid(format!("column '{column}' is GENERATED: it has no default")));
            }
            Some(TableChange::Default { column: known.id, default: default.clone() })
        }
        AlterTable::Changes { columns, constraints } => {
            if !constraints.is_empty() || columns.iter().any(ColumnChange::has_constraints) {
                let wanted = Wanted { name, if_exists, columns, constraints };
                return alter_constraints::alter(engine, session, tables, &wanted).await;
            }
            changed_columns(engine, tables, name, record, columns)?.0
        }
        AlterTable::RenameColumn { column, to } => Next::new(tables, name, record).renamed(column, to)?.end()?,
        AlterTable::Rename(to) => rename(tables, name, record, to)?,
    };
    let Some(change) = change else { return Ok(()) };
    let (_, changes) = checked(engine, tables, record, change)?;
    engine.change_catalog(session, changes).await
}

/// The change of a table's columns, `None` when nothing is another than before, and the constraints that come with those that
/// are new.
pub(crate) fn changed_columns(
    engine: &Engine,
    tables: &Tables,
    name: &TableName,
    record: &TableRecord,
    changes: &[ColumnChange],
) -> Result<(Option<TableChange>, Vec<ConstraintChange>)> {
    let mut next = Next::new(tables, name, record).changed(changes)?.with_initial_values(engine)?;
    let constraints = std::mem::take(&mut next.constraints);
    Ok((next.end()?, constraints))
}

/// A table as a change makes it, which can be planned and kept, and what is to be committed for it.
pub(crate) fn checked(
    engine: &Engine,
    tables: &Tables,
    record: &TableRecord,
    change: TableChange,
) -> Result<(TableRecord, Vec<CatalogChange>)> {
    let altered = altered(record, &change)?;
    table_options::check(&altered)?;
    Constraints::plan(&engine.state, &altered)?;
    let same_readers = matches!(change, TableChange::Columns { .. }).then(|| tables.catalog().same_readers(record));
    let change = CatalogChange::AlterTable { table: record.id, change };
    Ok((altered, same_readers.map(CatalogChange::from).into_iter().chain([change]).collect()))
}

/// A table as a change makes it.
pub(crate) fn altered(record: &TableRecord, change: &TableChange) -> Result<TableRecord> {
    let mut altered = record.clone();
    change.apply(&mut altered).map_err(StorageError::from)?;
    Ok(altered)
}

fn column_of<'a>(record: &'a TableRecord, column: &str, table: &TableName) -> Result<&'a Column> {
    let place = require_column(column, &user_columns(record.schema()), table)?;
    Ok(&record.schema().columns[place])
}

/// RENAME TO.
fn rename(tables: &Tables, name: &TableName, record: &TableRecord, to: &TableName) -> Result<Option<TableChange>> {
    if let Some(other) = to.namespace.as_ref().filter(|other| **other != record.namespace) {
        return Err(EngineError::invalid(format!(
            "a table stays in its namespace: RENAME TO {} without '{other}.'",
            to.table
        )));
    }
    check_name("table", &to.table)?;
    require_no_view(tables, record, &format!("table '{name}'"), |_| true)?;
    Ok((to.table != record.name).then(|| TableChange::Name(to.table.clone())))
}

/// The next version of a table's columns, while it is made.
struct Next<'a> {
    tables: &'a Tables,
    /// As the statement calls it.
    name: &'a TableName,
    record: &'a TableRecord,
    columns: Vec<Column>,
    checks: Vec<CheckRecord>,
    /// What comes with its new columns.
    constraints: Vec<ConstraintChange>,
}

impl<'a> Next<'a> {
    fn new(tables: &'a Tables, name: &'a TableName, record: &'a TableRecord) -> Self {
        let (columns, checks) = (record.schema().columns.clone(), record.checks.clone());
        Self { tables, name, record, columns, checks, constraints: vec![] }
    }

    /// The change; `None` when nothing is another than before.
    ///
    /// Errors: the table was altered too often. All versions of its columns are kept, and read with every one of its rows.
    fn end(self) -> Result<Option<TableChange>> {
        let Self { record, columns, checks, .. } = self;
        let before = record.schema();
        let schema = TableSchema { version: before.version + 1, columns };
        let is_same = schema.columns == before.columns && checks == record.checks;
        if !is_same && record.schemas.len() >= VERSIONS_MAX {
            return Err(too_many_versions());
        }
        Ok((!is_same).then_some(TableChange::Columns { schema, checks, alterations: record.alterations }))
    }

    fn changed(mut self, changes: &[ColumnChange]) -> Result<Self> {
        for change in changes {
            match change {
                ColumnChange::Add { column, if_not_exists, constraints } => {
                    if !(*if_not_exists && self.columns.iter().any(|known| known.name == column.name)) {
                        self.add(column)?;
                        self.constraints.extend(constraints.iter().cloned());
                    }
                }
                ColumnChange::Drop { column, if_exists } => match self.place(column) {
                    Err(_) if *if_exists => {}
                    Err(unknown) => return Err(unknown),
                    Ok(place) => self.drop(place)?,
                },
                ColumnChange::Type { column, data_type } => {
                    let place = self.place(column)?;
                    self.widen(place, data_type)?;
                }
                ColumnChange::DropNotNull(column) => {
                    let place = self.place(column)?;
                    let id = self.columns[place].id;
                    if let Some(key) = self.record.unique.iter().find(|key| key.primary && key.columns.contains(&id)) {
                        let key = &key.name;
                        return Err(EngineError::invalid(format!(
                            "column '{column}' is in the PRIMARY KEY '{key}': it stays NOT NULL"
                        )));
                    }
                    self.columns[place].nullable = true;
                }
            }
        }
        Ok(self)
    }

    /// Refuses a name that a column has but one, as CREATE TABLE does: also one that differs in its letters' case alone.
    fn require_free(&self, name: &str, but: Option<usize>) -> Result<()> {
        check_name("column", name)?;
        let mut others = self.columns.iter().enumerate().filter(|(place, _)| Some(*place) != but);
        match others.find(|(_, known)| known.name.to_lowercase() == name.to_lowercase()) {
            Some((_, Column { name: known, .. })) => {
                let exists = format!("column '{known}' of table '{}' exists already", self.name);
                Err(EngineError::new(ErrorKind::AlreadyExists, exists))
            }
            None => Ok(()),
        }
    }

    /// Readers of Parquet take bytes for text where a table has text of the name that they have in a file. That is of no
    /// account for a column that was dropped, which nobody reads.
    fn require_no_bytes_before(&self, name: &str, data_type: &DataType) -> Result<()> {
        if !matches!(data_type, DataType::Utf8 | DataType::LargeUtf8) {
            return Ok(());
        }
        let had_it = |id: u32| {
            let mut versions = self.record.schemas.iter().flat_map(|schema| &schema.columns);
            versions.any(|column| column.id == id && column.name == name)
        };
        let is_bytes = |column: &&Column| matches!(column.data_type, DataType::Binary | DataType::LargeBinary);
        match self.columns.iter().filter(is_bytes).find(|column| had_it(column.id)) {
            Some(bytes) => Err(EngineError::invalid(format!(
                "the column '{}' of this table has bytes and was called '{name}', and text cannot have that name: choose another",
                bytes.name
            ))),
            None => Ok(()),
        }
    }

    fn place(&self, column: &str) -> Result<usize> {
        let known: Vec<_> = self.columns.iter().map(|known| (known.name.clone(), known.data_type.clone())).collect();
        require_column(column, &known, self.name)
    }

    fn add(&mut self, column: &sql::statement::ColumnDef) -> Result<()> {
        self.require_free(&column.name, None)?;
        self.require_no_bytes_before(&column.name, &column.data_type)?;
        let used = self.record.schemas.iter().flat_map(|schema| &schema.columns).chain(&self.columns);
        let id = used.map(|column| column.id + 1).max().unwrap_or(FIRST_USER_COLUMN_ID);
        let mut added = Column::new(id, &column.name, column.data_type.clone(), column.nullable);
        added.default.clone_from(&column.default);
        self.columns.push(added);
        Ok(())
    }

    fn drop(&mut self, place: usize) -> Result<()> {
        if self.columns.len() == 1 {
            return Err(EngineError::invalid("a table needs at least one column: DROP TABLE drops it whole"));
        }
        let Column { id, name, .. } = &self.columns[place];
        if let Some(key) = self.record.unique.iter().find(|key| key.columns.contains(id)) {
            let (what, key) = (what_of(key.primary), &key.name);
            return Err(EngineError::invalid(format!(
                "column '{name}' is in the {what} '{key}', and cannot be dropped"
            )));
        }
        self.require_unused(name, "cannot be dropped")?;
        self.columns.remove(place);
        Ok(())
    }

    fn widen(&mut self, place: usize, to: &DataType) -> Result<()> {
        let Column { id, name, data_type, .. } = &self.columns[place];
        if data_type == to {
            return Ok(());
        }
        if !widens(data_type, to) {
            return Err(EngineError::invalid(format!(
                "column '{name}' is of type {data_type}, and {to} is not wider: a type changes only to one that has every value of it",
            )));
        }
        if let Some(key) = self.record.unique.iter().find(|key| key.columns.contains(id) && !keeps_keys(data_type, to))
        {
            let (what, key) = (what_of(key.primary), &key.name);
            return Err(EngineError::invalid(format!(
                "column '{name}' is in the {what} '{key}', whose values would be others as {to}"
            )));
        }
        self.require_unused(name, "keeps its type")?;
        let widened = self.columns[place].clone().widened(to)?;
        self.columns[place] = widened;
        Ok(())
    }

    fn renamed(mut self, column: &str, to: &str) -> Result<Self> {
        let place = self.place(column)?;
        if column == to {
            return Ok(self);
        }
        self.require_free(to, Some(place))?;
        self.require_no_bytes_before(to, &self.columns[place].data_type)?;
        self.require_no_reader(column)?;
        to.clone_into(&mut self.columns[place].name);
        for text in self.columns.iter_mut().filter_map(|column| column.generated.as_mut()) {
            *text = renamed(text, column, to)?;
        }
        for check in &mut self.checks {
            check.expr = renamed(&check.expr, column, to)?;
        }
        Ok(self)
    }

    /// Refuses to lose a column that the table's own expressions or a view need.
    fn require_unused(&self, column: &str, refused: &str) -> Result<()> {
        for check in &self.checks {
            if names_column(&expression(&check.expr)?, column) {
                let check = &check.name;
                return Err(EngineError::invalid(format!(
                    "column '{column}' is in the CHECK '{check}', and {refused}"
                )));
            }
        }
        for other in self.columns.iter().filter(|other| other.name != column) {
            if let Some(text) = &other.generated
                && names_column(&expression(text)?, column)
            {
                let other = &other.name;
                return Err(EngineError::invalid(format!(
                    "column '{column}' is in the GENERATED column '{other}', and {refused}"
                )));
            }
        }
        self.require_no_reader(column)
    }

    /// Refuses what would make another query of a view's. A column of the same name that is another table's counts too.
    fn require_no_reader(&self, column: &str) -> Result<()> {
        let what = format!("column '{column}' of table '{}'", self.name);
        require_no_view(self.tables, self.record, &what, |query| depends_on_column(query, column))
    }

    /// Finds what rows that are there have in the columns that are new.
    fn with_initial_values(mut self, engine: &Engine) -> Result<Self> {
        let is_new = |column: &Column| self.record.schema().columns.iter().all(|known| known.id != column.id);
        let new: Vec<usize> = (0..self.columns.len()).filter(|place| is_new(&self.columns[*place])).collect();
        if new.iter().all(|place| self.columns[*place].default.is_none()) {
            return Ok(self);
        }
        let schema = TableSchema { version: self.record.schema().version + 1, columns: self.columns.clone() };
        let (checks, alterations) = (self.checks.clone(), self.record.alterations);
        let altered = altered(self.record, &TableChange::Columns { schema, checks, alterations })?;
        let constraints = Constraints::plan(&engine.state, &altered)?;
        let state = engine.statement_state(engine.stop());
        for place in new {
            let value = constraints.initial_value(&state, place)?;
            let column = &self.columns[place];
            if !column.nullable && value.is_null(0) {
                let name = &column.name;
                return Err(EngineError::invalid(format!("column '{name}' is NOT NULL, and its DEFAULT is NULL")));
            }
            if value.get_array_memory_size() > INITIAL_BYTES_MAX {
                return Err(EngineError::invalid(format!(
                    "the DEFAULT of column '{}' has more than {INITIAL_BYTES_MAX} bytes: add it without, then UPDATE the rows",
                    column.name
                )));
            }
            self.columns[place] = column.clone().with_initial(&value)?;
        }
        Ok(self)
    }
}

/// All versions of a table's columns are kept, and read with every one of its rows.
pub(crate) fn too_many_versions() -> EngineError {
    EngineError::new(
        ErrorKind::ResourceExhausted,
        format!("the columns of a table change {VERSIONS_MAX} times at most: CREATE TABLE … AS makes another one"),
    )
}

fn what_of(primary: bool) -> &'static str {
    if primary { "PRIMARY KEY" } else { "UNIQUE" }
}

/// Refuses to change what a view reads that needs it. `needs`: whether its query does.
fn require_no_view(tables: &Tables, table: &TableRecord, what: &str, needs: impl Fn(&Query) -> bool) -> Result<()> {
    for view in tables.catalog().views_reading(&table.namespace, &table.name) {
        let Statement::Query(query) = sql::parse(&view.query, &Limits::default())? else { continue };
        if needs(&query) {
            return Err(EngineError::invalid(match tables.sees(Object::View(view)) {
                true => format!("{what} is read by the view '{}.{}': drop that first", view.namespace, view.name),
                false => is_read_by_another(what),
            }));
        }
    }
    Ok(())
}
