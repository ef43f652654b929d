//! ON CONFLICT DO UPDATE as the SELECT that finds the rows which are there, as they become.
//!
//! ```text
//! INSERT INTO t AS x … ON CONFLICT (k) DO UPDATE SET n = n + excluded.n WHERE x.n < 9
//! SELECT x.<location>…, x._id, x._updated, n + <excluded n> AS n, … FROM t AS x, <excluded>
//!     WHERE x._id = <excluded id> AND (x.n < 9)
//! ```
//! `<excluded>` is a table in memory: the rows that could not be inserted, each with the `_id` of the row that has its key. Its
//! columns have names that no statement can have, so that a name without a table is the target's.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, TableWithJoins, VisitMut, VisitorMut};

use super::dml::{conflict_query, hidden_table, require_column};
use super::names::{fold, quoted};
use super::statement::{ConflictAction, Insert, Update};
use crate::error::{EngineError, Result};

/// The table of the rows that could not be inserted. No statement can name it.
pub(crate) const EXCLUDED: &str = "seracdb excluded";

/// What a statement calls it.
const EXCLUDED_IN_SQL: &str = "excluded";

/// The columns of [`EXCLUDED`]: the `_id` of the row that is there, and the user columns.
pub(crate) fn excluded_schema(user_columns: &[(String, DataType)]) -> SchemaRef {
    let id = Field::new(EXCLUDED, DataType::Int64, false);
    let user = user_columns.iter().map(|(name, data_type)| Field::new(hidden(name), data_type.clone(), true));
    std::sync::Arc::new(Schema::new(std::iter::once(id).chain(user).collect::<Vec<_>>()))
}

/// The query of an INSERT whose ON CONFLICT changes rows; `None` when it does not.
pub(crate) fn excluded_query(
    insert: &Insert,
    user_columns: &[(String, DataType)],
    location_columns: &[&str],
    old: &[&str],
) -> Result<Option<Query>> {
    let Some((assignments, selection)) = assignments(insert, user_columns)? else { return Ok(None) };
    let mut update = Update {
        table: insert.table.clone(),
        alias: insert.alias.clone(),
        assignments,
        from: vec![],
        selection,
        returning: vec![],
    };
    let mut rename = Rename { user_columns, insert, wrong: None };
    for (_, value) in &mut update.assignments {
        let _ = value.visit(&mut rename);
    }
    let _ = update.selection.visit(&mut rename);
    if let Some(error) = rename.wrong {
        return Err(error);
    }
    update.from.push(TableWithJoins { relation: hidden_table(EXCLUDED), joins: vec![] });
    conflict_query(&update, user_columns, location_columns, old, Expr::Identifier(quoted(EXCLUDED))).map(Some)
}

/// The columns that ON CONFLICT changes.
pub(crate) fn changed_columns<'a>(
    insert: &'a Insert,
    user_columns: &'a [(String, DataType)],
) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    match insert.conflict.as_ref().map(|conflict| &conflict.action) {
        Some(ConflictAction::Update { assignments, .. }) => Box::new(assignments.iter().map(|(name, _)| name.as_str())),
        Some(ConflictAction::Replace) => match insert.columns.is_empty() {
            true => Box::new(user_columns.iter().map(|(name, _)| name.as_str())),
            false => Box::new(insert.columns.iter().map(String::as_str)),
        },
        _ => Box::new(std::iter::empty()),
    }
}

type Assignments = (Vec<(String, Expr)>, Option<Expr>);

fn assignments(insert: &Insert, user_columns: &[(String, DataType)]) -> Result<Option<Assignments>> {
    Ok(match insert.conflict.as_ref().map(|conflict| &conflict.action) {
        None | Some(ConflictAction::Nothing) => None,
        Some(ConflictAction::Update { assignments, selection }) => {
            Some((assignments.clone(), selection.as_deref().cloned()))
        }
        Some(ConflictAction::Replace) => {
            let given = |name: &str| {
                let value = Expr::CompoundIdentifier(vec![Ident::new(EXCLUDED_IN_SQL), quoted(name)]);
                (name.to_owned(), value)
            };
            Some((changed_columns(insert, user_columns).map(given).collect(), None))
        }
    })
}

fn hidden(column: &str) -> String {
    format!("{EXCLUDED} {column}")
}

/// Gives the columns of `excluded` the names that they have in memory.
struct Rename<'a> {
    user_columns: &'a [(String, DataType)],
    insert: &'a Insert,
    wrong: Option<EngineError>,
}

impl VisitorMut for Rename<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, column] = parts.as_slice()
            && fold(table) == EXCLUDED_IN_SQL
        {
            let name = fold(column);
            if let Err(error) = require_column(&name, self.user_columns, &self.insert.table) {
                self.wrong.get_or_insert(error);
            }
            *expr = Expr::Identifier(quoted(&hidden(&name)));
        }
        ControlFlow::Continue(())
    }
}
