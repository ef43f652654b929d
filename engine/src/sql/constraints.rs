//! PRIMARY KEY, UNIQUE and CHECK of a column or of a table, and expressions that are kept as text.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CheckConstraint, ColumnOption, ConstraintCharacteristics, Expr, Ident, IndexColumn, IndexOption, IndexType,
    NullsDistinctOption, OrderByOptions, Query, SelectItem, SetExpr, TableConstraint, TableWithJoins, Visit, VisitMut,
    Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;
use seracdb_storage::system_columns;

use super::dialect::SeracDialect;
use super::dml::{hidden_table, query, select};
use super::limits::Limits;
use super::names::{fold, quoted};
use super::params::has_placeholder;
use super::parse::{RECURSION_MAX, comes_later};
use super::rewrite::session_value_in;
use super::statement::{CheckDef, ColumnDef, UniqueDef};
use super::validate::{admit, unsupported};
use crate::error::{EngineError, Result};

/// The unique key that an option of a column means; `None` for another option.
pub(crate) fn of_column(column: &str, option: &ColumnOption) -> Result<Option<UniqueDef>> {
    let columns = vec![column.to_owned()];
    Ok(match option {
        ColumnOption::PrimaryKey(key) => {
            let name = name_of(&key.name, &key.index_name, &key.index_type, &key.index_options, &key.characteristics)?;
            Some(UniqueDef { name, columns, primary: true, nulls_equal: false })
        }
        ColumnOption::Unique(key) => {
            let name = name_of(&key.name, &key.index_name, &key.index_type, &key.index_options, &key.characteristics)?;
            let nulls_equal = key.nulls_distinct == NullsDistinctOption::NotDistinct;
            Some(UniqueDef { name, columns, primary: false, nulls_equal })
        }
        _ => None,
    })
}

/// What a constraint of a table means.
pub(crate) enum OfTable {
    /// PRIMARY KEY, UNIQUE.
    Unique(UniqueDef),
    /// CHECK.
    Check(CheckDef),
}

/// What a constraint of a table means. Others come later.
///
/// `statement`: what has it.
pub(crate) fn of_table(constraint: &TableConstraint, statement: &str, limits: &Limits) -> Result<OfTable> {
    match constraint {
        TableConstraint::Check(constraint) => check_of(constraint, None, limits).map(OfTable::Check),
        TableConstraint::PrimaryKey(key) => {
            let name = name_of(&key.name, &key.index_name, &key.index_type, &key.index_options, &key.characteristics)?;
            Ok(OfTable::Unique(UniqueDef { name, columns: names(&key.columns)?, primary: true, nulls_equal: false }))
        }
        TableConstraint::Unique(key) => {
            let name = name_of(&key.name, &key.index_name, &key.index_type, &key.index_options, &key.characteristics)?;
            let nulls_equal = key.nulls_distinct == NullsDistinctOption::NotDistinct;
            Ok(OfTable::Unique(UniqueDef { name, columns: names(&key.columns)?, primary: false, nulls_equal }))
        }
        other => Err(comes_later(&format!("{other} in {statement}"))),
    }
}

/// A CHECK of a table, or of a column that gives it a name.
pub(crate) fn check_of(constraint: &CheckConstraint, name: Option<String>, limits: &Limits) -> Result<CheckDef> {
    if constraint.enforced == Some(false) {
        return Err(unsupported("a CHECK that is NOT ENFORCED"));
    }
    let name = name.or(constraint.name.as_ref().map(fold));
    Ok(CheckDef { name, expr: kept(&constraint.expr, limits)? })
}

pub(super) fn null_and_primary(column: &str) -> EngineError {
    EngineError::invalid(format!("column '{column}' is both NULL and in the PRIMARY KEY"))
}

/// An expression as it is kept.
pub(crate) fn kept(expr: &Expr, limits: &Limits) -> Result<String> {
    let mut expr = expr.clone();
    admit(&mut expr, limits)?;
    if has_placeholder(&expr) {
        return Err(unsupported("a parameter in DEFAULT, GENERATED or CHECK"));
    }
    if let Some(name) = session_value_in(&expr) {
        return Err(EngineError::invalid(format!(
            "{name} is what it is in a session, and cannot be kept in DEFAULT, GENERATED or CHECK: give it where rows are written"
        )));
    }
    Ok(expr.to_string())
}

/// An expression that was kept.
pub(crate) fn expression(text: &str) -> Result<Expr> {
    let parsed = Parser::new(&SeracDialect).with_recursion_limit(RECURSION_MAX).try_with_sql(text);
    let parsed = parsed.and_then(|mut parser| parser.parse_expr());
    parsed.map_err(|error| EngineError::internal(format!("'{text}' is kept and cannot be read: {error}")))
}

/// Whether an expression that was kept names a column of its row.
pub(crate) fn names_column(expr: &Expr, column: &str) -> bool {
    struct Find<'a>(&'a str);
    impl Visitor for Find<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let first = match expr {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(parts) => parts.first(),
                _ => None,
            };
            match first.is_some_and(|name| fold(name) == self.0) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Find(column)).is_break()
}

/// An expression that was kept, for a column that has another name now.
pub(crate) fn renamed(text: &str, column: &str, to: &str) -> Result<String> {
    struct Rename<'a>(&'a str, &'a str);
    impl VisitorMut for Rename<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let first = match expr {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(parts) => parts.first_mut(),
                _ => None,
            };
            if let Some(name) = first.filter(|name| fold(name) == self.0) {
                *name = quoted(self.1);
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = expression(text)?;
    if !names_column(&expr, column) {
        return Ok(text.to_owned());
    }
    let _ = VisitMut::visit(&mut expr, &mut Rename(column, to));
    Ok(expr.to_string())
}

/// The row that an expression is of. No statement can name it.
pub(crate) const ROW: &str = "seracdb row";

/// `SELECT expr FROM row`.
pub(crate) fn one_row_of(expr: Expr, has_columns: bool) -> Query {
    let from = TableWithJoins { relation: hidden_table(ROW), joins: vec![] };
    let items = vec![SelectItem::ExprWithAlias { expr, alias: quoted("value") }];
    query(SetExpr::Select(Box::new(select(items, if has_columns { vec![from] } else { vec![] }, None))))
}

fn name_of(
    name: &Option<Ident>,
    index_name: &Option<Ident>,
    index_type: &Option<IndexType>,
    options: &[IndexOption],
    characteristics: &Option<ConstraintCharacteristics>,
) -> Result<Option<String>> {
    if index_name.is_some() || index_type.is_some() || !options.is_empty() {
        return Err(unsupported("an index's name or kind in PRIMARY KEY or UNIQUE"));
    }
    // They are checked at the end of each statement in any case.
    if characteristics
        .as_ref()
        .is_some_and(|c| c.deferrable == Some(true) || c.initially.is_some() || c.enforced == Some(false))
    {
        return Err(unsupported(
            "a PRIMARY KEY or UNIQUE that is DEFERRABLE or NOT ENFORCED (it is checked at the end of each statement)",
        ));
    }
    Ok(name.as_ref().map(fold))
}

fn names(columns: &[IndexColumn]) -> Result<Vec<String>> {
    let name = |column: &IndexColumn| match (&column.column.expr, &column.operator_class) {
        (Expr::Identifier(name), None)
            if column.column.options == OrderByOptions::default() && column.column.with_fill.is_none() =>
        {
            Ok(fold(name))
        }
        _ => Err(EngineError::invalid(format!("PRIMARY KEY and UNIQUE are of columns: '{column}' is none"))),
    };
    columns.iter().map(name).collect()
}

/// Checks unique keys against the columns of their table, and has those of the primary one NOT NULL.
/// `nullable`: columns that were said to be NULL.
pub(crate) fn check(keys: &[UniqueDef], columns: &mut [ColumnDef], nullable: &HashSet<String>) -> Result<()> {
    if keys.iter().filter(|key| key.primary).count() > 1 {
        return Err(EngineError::invalid("a table has one PRIMARY KEY at most: write UNIQUE for further ones"));
    }
    let mut named = HashSet::new();
    for key in keys {
        let what = key.what();
        if let Some(name) = key.name.as_ref().filter(|name| !named.insert(name.as_str())) {
            return Err(EngineError::invalid(format!("constraint '{name}' is declared twice")));
        }
        check_key_columns(key)?;
        for name in &key.columns {
            let Some(column) = columns.iter_mut().find(|column| column.name == *name) else {
                return Err(EngineError::not_found(format!("{what}: the table has no column '{name}'")));
            };
            if key.primary && nullable.contains(name) {
                return Err(null_and_primary(name));
            }
            column.nullable &= !key.primary;
        }
    }
    Ok(())
}

/// Checks what a unique key names without looking at its table.
pub(crate) fn check_key_columns(key: &UniqueDef) -> Result<()> {
    let (what, mut seen) = (key.what(), HashSet::new());
    for name in &key.columns {
        if !seen.insert(name) {
            return Err(EngineError::invalid(format!("{what} names column '{name}' twice")));
        }
        refuse_key_column(what, name)?;
    }
    Ok(())
}

/// Refuses a column of SeracDB's own in a unique key.
pub(crate) fn refuse_key_column(what: &str, name: &str) -> Result<()> {
    match system_columns::is_system_column(name) {
        true => {
            Err(EngineError::invalid(format!("{what}: column '{name}' is SeracDB's own; _id is unique in any case")))
        }
        false => Ok(()),
    }
}
