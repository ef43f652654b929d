//! INSERT, UPDATE and DELETE as the parser reads them → ours, which know fewer clauses.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget as SqlConflictTarget, Delete as SqlDelete, Expr, FromTable, Ident,
    Insert as SqlInsert, OnConflict as SqlOnConflict, OnConflictAction, OnInsert, Query, SelectItem, SetExpr,
    SqliteOnConflict, Statement as SqlStatement, TableAlias, TableFactor, TableObject, TableWithJoins,
    Update as SqlUpdate, UpdateTableFromKind,
};

use datafusion::sql::sqlparser::tokenizer::Token;

use super::defaults::mark_default;
use super::limits::Limits;
use super::names::{self, TableName, fold};
use super::parse::{Reader, comes_later};
use super::statement::{ConflictAction, ConflictTarget, Delete, Insert, InsertSource, OnConflict, Statement, Update};
use super::tuples::assign_tuple;
use super::types::refuse_system_column;
use super::validate::{admit, unsupported};
use crate::error::{EngineError, Result};

impl Reader<'_> {
    pub(crate) fn insert(&mut self) -> Result<Statement> {
        let token = self.parser.next_token();
        let parsed = self.parser.parse_insert(token);
        let SqlStatement::Insert(insert) = self.at(parsed)? else {
            return Err(unsupported("this form of INSERT"));
        };
        refuse_insert_clauses(&insert)?;
        let TableObject::TableName(name) = &insert.table else {
            return Err(unsupported("INSERT INTO a function or query"));
        };
        let table = TableName::parse(name)?;
        let alias = insert.table_alias.as_ref().map(|alias| alias.alias.clone());
        let columns =
            insert.columns.iter().map(|column| names::column_name(column, &table, None)).collect::<Result<Vec<_>>>()?;
        check_targets(&columns, &table)?;
        let conflict = match (&insert.or, insert.on) {
            (None, None) => None,
            (Some(SqliteOnConflict::Ignore), None) => {
                Some(OnConflict { target: ConflictTarget::Any, action: ConflictAction::Nothing })
            }
            (Some(SqliteOnConflict::Replace), None) => {
                Some(OnConflict { target: ConflictTarget::Any, action: ConflictAction::Replace })
            }
            (None, Some(OnInsert::OnConflict(on))) => Some(self.on_conflict(on, &table, alias.as_ref())?),
            _ => return Err(unsupported("this form of INSERT (write ON CONFLICT … DO …)")),
        };
        let source = self.insert_source(insert.source)?;
        let returning = self.returning(insert.returning)?;
        Ok(Statement::Insert(Insert { table, alias, columns, source, conflict, returning }))
    }

    fn on_conflict(&self, on: SqlOnConflict, table: &TableName, alias: Option<&Ident>) -> Result<OnConflict> {
        let target = match on.conflict_target {
            None => ConflictTarget::Any,
            Some(SqlConflictTarget::Columns(columns)) => ConflictTarget::Columns(columns.iter().map(fold).collect()),
            Some(SqlConflictTarget::OnConstraint(name)) => {
                let [part] = name.0.as_slice() else {
                    return Err(EngineError::invalid(format!("'{name}' is not the name of a constraint")));
                };
                let ident = part.as_ident().ok_or_else(|| unsupported("this form of ON CONSTRAINT"))?;
                ConflictTarget::Constraint(fold(ident))
            }
        };
        let action = match on.action {
            OnConflictAction::DoNothing => ConflictAction::Nothing,
            OnConflictAction::DoUpdate(update) => {
                let assignments = self.assignments(update.assignments, table, alias)?;
                let mut selection = update.selection;
                admit(&mut selection, self.limits)?;
                ConflictAction::Update { assignments, selection: selection.map(Box::new) }
            }
        };
        Ok(OnConflict { target, action })
    }

    /// SET, each column once.
    pub(super) fn assignments(
        &self,
        given: Vec<Assignment>,
        table: &TableName,
        alias: Option<&Ident>,
    ) -> Result<Vec<(String, Expr)>> {
        let (mut assignments, mut copied) = (Vec::with_capacity(given.len()), 0);
        for assignment in given {
            match assignment.target {
                AssignmentTarget::ColumnName(name) => {
                    assignments.push((names::column_name(&name, table, alias)?, assignment.value));
                }
                AssignmentTarget::Tuple(columns) => {
                    assign_tuple(&columns, assignment.value, table, alias, &mut assignments, &mut copied)?
                }
            }
        }
        check_targets(assignments.iter().map(|(column, _)| column), table)?;
        for (_, value) in &mut assignments {
            mark_default(value);
            admit(value, self.limits)?;
        }
        Ok(assignments)
    }

    /// RETURNING.
    pub(super) fn returning(&self, items: Option<Vec<SelectItem>>) -> Result<Vec<SelectItem>> {
        let mut items = items.unwrap_or_default();
        admit(&mut items, self.limits)?;
        Ok(items)
    }

    fn insert_source(&self, source: Option<Box<Query>>) -> Result<InsertSource> {
        let Some(mut query) = source else { return Ok(InsertSource::Defaults) };
        let is_plain = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none()
            && query.locks.is_empty();
        if let SetExpr::Values(values) = query.body.as_mut()
            && is_plain
        {
            let mut rows: Vec<Vec<Expr>> =
                std::mem::take(&mut values.rows).into_iter().map(|row| row.content).collect();
            rows.iter_mut().flatten().for_each(mark_default);
            admit(&mut rows, self.limits)?;
            return Ok(InsertSource::Values(rows));
        }
        admit(query.as_mut(), self.limits)?;
        Ok(InsertSource::Query(query))
    }

    pub(crate) fn update(&mut self) -> Result<Statement> {
        let token = self.parser.next_token();
        let parsed = self.parser.parse_update(token);
        let SqlStatement::Update(update) = self.at(parsed)? else {
            return Err(unsupported("this form of UPDATE"));
        };
        refuse_update_clauses(&update)?;
        let (table, alias) = target(update.table, "UPDATE")?;
        let assignments = self.assignments(update.assignments, &table, alias.as_ref())?;
        let mut selection = update.selection;
        admit(&mut selection, self.limits)?;
        let mut from = match update.from {
            Some(UpdateTableFromKind::AfterSet(from)) => from,
            _ => vec![],
        };
        admit(&mut from, self.limits)?;
        let returning = self.returning(update.returning)?;
        Ok(Statement::Update(Update { table, alias, assignments, from, selection, returning }))
    }

    pub(crate) fn delete(&mut self) -> Result<Statement> {
        let token = self.parser.next_token();
        let parsed = self.parser.parse_delete(token);
        let SqlStatement::Delete(delete) = self.at(parsed)? else {
            return Err(unsupported("this form of DELETE"));
        };
        refuse_delete_clauses(&delete)?;
        let (FromTable::WithFromKeyword(mut from) | FromTable::WithoutKeyword(mut from)) = delete.from;
        let (Some(only), true) = (from.pop(), from.is_empty()) else {
            return Err(unsupported("DELETE FROM several tables"));
        };
        let (table, alias) = target(only, "DELETE")?;
        let mut selection = delete.selection;
        admit(&mut selection, self.limits)?;
        let mut using = delete.using.unwrap_or_default();
        admit(&mut using, self.limits)?;
        let returning = self.returning(delete.returning)?;
        Ok(Statement::Delete(Delete { table, alias, using, selection, returning }))
    }
}

impl Reader<'_> {
    /// TRUNCATE [TABLE] name: what DELETE FROM is without a condition.
    pub(crate) fn truncate(&mut self) -> Result<Statement> {
        self.parser.advance_token();
        self.word("TABLE");
        refuse(self.words(&["IF", "EXISTS"]), || unsupported("TRUNCATE … IF EXISTS (leave it out)"))?;
        let table = TableName::parse(&self.object_name()?)?;
        refuse(self.parser.peek_token_ref().token == Token::Comma, || {
            unsupported("TRUNCATE of several tables (write BEGIN, a TRUNCATE for each, and COMMIT)")
        })?;
        // Nothing depends on rows, so both mean the same; there are no sequences to restart.
        let _ = self.words(&["CONTINUE", "IDENTITY"]) || self.words(&["RESTART", "IDENTITY"]);
        let _ = self.word("CASCADE") || self.word("RESTRICT");
        Ok(Statement::Delete(Delete { table, alias: None, using: vec![], selection: None, returning: vec![] }))
    }
}

fn refuse(refused: bool, error: impl FnOnce() -> EngineError) -> Result<()> {
    if refused { Err(error()) } else { Ok(()) }
}

fn refuse_insert_clauses(insert: &SqlInsert) -> Result<()> {
    refuse(insert.overwrite || insert.replace_into, || unsupported("INSERT OVERWRITE or REPLACE"))?;
    let others = insert.ignore
        || !insert.assignments.is_empty()
        || insert.partitioned.is_some()
        || !insert.after_columns.is_empty()
        || insert.has_table_keyword
        || insert.output.is_some()
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.multi_table_insert_type.is_some()
        || !insert.multi_table_into_clauses.is_empty()
        || !insert.multi_table_when_clauses.is_empty()
        || insert.multi_table_else_clause.is_some();
    refuse(others, || unsupported("this form of INSERT"))
}

fn refuse_update_clauses(update: &SqlUpdate) -> Result<()> {
    refuse(matches!(update.from, Some(UpdateTableFromKind::BeforeSet(_))), || {
        unsupported("UPDATE … FROM before SET (write it after)")
    })?;
    refuse(update.limit.is_some() || !update.order_by.is_empty(), || unsupported("UPDATE … ORDER BY or LIMIT"))?;
    refuse(update.or.is_some() || update.output.is_some(), || unsupported("this form of UPDATE"))
}

fn refuse_delete_clauses(delete: &SqlDelete) -> Result<()> {
    refuse(delete.limit.is_some() || !delete.order_by.is_empty(), || unsupported("DELETE … ORDER BY or LIMIT"))?;
    refuse(!delete.tables.is_empty(), || unsupported("DELETE from several tables"))?;
    refuse(delete.output.is_some(), || unsupported("this form of DELETE"))
}

/// The one plain table an UPDATE or DELETE is about.
pub(super) fn target(table: TableWithJoins, verb: &str) -> Result<(TableName, Option<Ident>)> {
    refuse(!table.joins.is_empty(), || comes_later(&format!("{verb} with a JOIN (write a subquery in WHERE)")))?;
    let mut relation = table.relation;
    // `UPDATE t SET …` is followed by SET, never by one of these; a table function or sample is.
    let TableFactor::Table { name, alias, args: None, version: None, .. } = &mut relation else {
        return Err(unsupported(&format!("{verb} of anything but a table")));
    };
    let name = TableName::parse(name)?;
    let alias = alias.take();
    admit(&mut relation, &Limits::default())?;
    match alias {
        None => Ok((name, None)),
        Some(TableAlias { name: alias, columns, .. }) if columns.is_empty() => Ok((name, Some(alias))),
        Some(_) => Err(unsupported(&format!("{verb} with an alias for columns"))),
    }
}

/// Columns that are written: each once, and no system column.
pub(super) fn check_targets<'a>(columns: impl IntoIterator<Item = &'a String>, table: &TableName) -> Result<()> {
    let mut seen = HashSet::new();
    for column in columns {
        refuse_system_column(column)?;
        if !seen.insert(column) {
            return Err(EngineError::invalid(format!("column '{column}' of {table} is given twice")));
        }
    }
    Ok(())
}
