//! DEFAULT as a value: in VALUES, in SET, in MERGE. What it is, is known when the statement is planned.

use datafusion::sql::sqlparser::ast::{Expr, Value};

use super::dml::require_column;
use super::merge::check_values;
use super::names::quoted;
use super::statement::{ConflictAction, InsertSource, MergeAction, Statement};
use crate::error::{EngineError, Result};
use arrow::datatypes::DataType;

/// What stands for DEFAULT until then. No statement can name it.
pub(crate) const DEFAULT_MARK: &str = "seracdb default";

/// Marks a value that is DEFAULT.
pub(super) fn mark_default(value: &mut Expr) {
    if matches!(value, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
    {
        *value = Expr::Identifier(quoted(DEFAULT_MARK));
    }
}

/// Whether a value stands for DEFAULT.
pub(super) fn is_mark(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(ident) if ident.quote_style.is_some() && ident.value == DEFAULT_MARK)
}

/// What a statement may write.
pub(crate) struct Writable<'a> {
    pub(crate) user_columns: &'a [(String, DataType)],
    /// Columns that no statement writes.
    pub(crate) generated: &'a [String],
}

impl Writable<'_> {
    /// The columns that an INSERT without a list gives, by place.
    pub(crate) fn places(&self) -> Vec<usize> {
        let names = self.user_columns.iter().enumerate();
        names.filter(|(_, (name, _))| !self.generated.contains(name)).map(|(place, _)| place).collect()
    }

    /// The names of the columns that are given, by place. `listed`: as the statement lists them.
    fn names(&self, listed: &[String]) -> Vec<String> {
        match listed.is_empty() {
            true => self.places().into_iter().map(|place| self.user_columns[place].0.clone()).collect(),
            false => listed.to_vec(),
        }
    }
}

/// Puts values in the place of DEFAULT, and refuses others for generated columns. `default_of`: of a column by name.
pub(crate) fn put_defaults(
    statement: &Statement,
    writable: &Writable<'_>,
    default_of: impl Fn(&str) -> Result<Option<Expr>>,
) -> Result<Statement> {
    let mut statement = statement.clone();
    let put = |column: &str, value: &mut Expr| -> Result<()> {
        match (is_mark(value), writable.generated.iter().any(|name| name == column)) {
            // What it is generated as comes later.
            (true, true) => *value = Expr::value(Value::Null),
            (true, false) => *value = default_of(column)?.unwrap_or(Expr::value(Value::Null)),
            (false, true) => {
                return Err(EngineError::invalid(format!(
                    "column '{column}' is GENERATED: leave it out, or write DEFAULT"
                )));
            }
            (false, false) => {}
        }
        Ok(())
    };
    match &mut statement {
        Statement::Insert(insert) => {
            for name in &insert.columns {
                require_column(name, writable.user_columns, &insert.table)?;
            }
            match &mut insert.source {
                InsertSource::Values(rows) => {
                    let names = writable.names(&insert.columns);
                    for row in rows {
                        names.iter().zip(row).try_for_each(|(name, value)| put(name, value))?;
                    }
                }
                InsertSource::Query(_) => {
                    for name in &insert.columns {
                        put(name, &mut Expr::value(Value::Null))?;
                    }
                }
                InsertSource::Defaults => {}
            }
            if let Some(conflict) = &mut insert.conflict
                && let ConflictAction::Update { assignments, .. } = &mut conflict.action
            {
                assignments.iter_mut().try_for_each(|(name, value)| put(name, value))?;
            }
        }
        Statement::Update(update) => update.assignments.iter_mut().try_for_each(|(name, value)| put(name, value))?,
        Statement::Merge(merge) => {
            for clause in &mut merge.clauses {
                match &mut clause.action {
                    MergeAction::Update(assignments) => {
                        assignments.iter_mut().try_for_each(|(name, value)| put(name, value))?;
                    }
                    MergeAction::Insert { columns, values } => {
                        let mut names = writable.names(columns);
                        let mut given = match values.take() {
                            Some(given) => given,
                            None => {
                                names.clear();
                                vec![]
                            }
                        };
                        check_values(given.len(), names.len())?;
                        names.iter().zip(&mut given).try_for_each(|(name, value)| put(name, value))?;
                        // Those that are not given have their defaults too.
                        let all = writable.user_columns.iter().map(|(name, _)| name);
                        for name in all.filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>() {
                            given.push(default_of(&name)?.unwrap_or(Expr::value(Value::Null)));
                            names.push(name);
                        }
                        *columns = names;
                        *values = Some(given);
                    }
                    MergeAction::Delete | MergeAction::Nothing => {}
                }
            }
        }
        _ => {}
    }
    Ok(statement)
}
