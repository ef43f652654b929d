//! NATURAL JOIN as JOIN … USING.
//!
//! DataFusion joins on every name that both sides have, also on `_id` and `_updated`, which no two tables have in common: the answer
//! would be empty. So `a NATURAL JOIN b` becomes `a JOIN b USING (…)` of the names that users gave on both sides, and without one
//! `a CROSS JOIN b`, or a join `ON TRUE` where it is an outer one. A name that is a system column's is never joined on, whatever a side is.
//!
//! The names of a side are those that `SELECT * FROM side` has, planned with the WITH queries that are in sight there.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value, VisitMut, VisitorMut, WildcardAdditionalOptions, With,
};
use seracdb_storage::system_columns;

use super::is_rows;
use crate::error::{EngineError, Result};
use crate::sql::dml::{query as query_of, select};
use crate::sql::mentions::{constraint_of, is_natural, joins_naturally, relations_of};
use crate::sql::names::{TableName, fold, quoted};
use crate::sql::parse::comes_later;

/// The names of a query's columns.
pub(crate) type ColumnsOf<'a> = dyn Fn(Query) -> Result<Vec<String>> + 'a;

/// Writes every NATURAL JOIN of a query as one with USING.
pub(crate) fn join_by_name(query: &mut Query, columns_of: &ColumnsOf<'_>) -> Result<()> {
    if is_rows(query) || !joins_naturally(query) {
        return Ok(());
    }
    match VisitMut::visit(query, &mut Natural { columns_of, scopes: vec![] }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Natural<'a> {
    columns_of: &'a ColumnsOf<'a>,
    scopes: Vec<Scope>,
}

/// A query that is being visited.
struct Scope {
    with: Option<With>,
    /// Its WITH queries that have been visited: the first so many.
    known: usize,
    /// Whether it is one of the WITH queries of the scope above.
    is_cte: bool,
}

impl Scope {
    fn ctes(&self) -> &[Cte] {
        self.with.as_ref().map_or(&[], |with| with.cte_tables.as_slice())
    }

    /// The WITH queries that can be read and are: all are planned that are there. `read`: what is named, and then by them, too.
    fn in_sight(&self, read: &mut Vec<TableName>) -> Option<With> {
        let with = self.with.as_ref()?;
        let mut cte_tables: Vec<Cte> = Vec::new();
        for cte in self.ctes().iter().take(self.known).rev() {
            let name = fold(&cte.alias.name);
            if read.iter().any(|read| read.namespace.is_none() && read.table == name) {
                read.extend(relations_of(&cte.query));
                cte_tables.push(cte.clone());
            }
        }
        cte_tables.reverse();
        (!cte_tables.is_empty()).then(|| With {
            with_token: with.with_token.clone(),
            recursive: with.recursive,
            cte_tables,
        })
    }
}

impl VisitorMut for Natural<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        let is_cte = self.scopes.last().is_some_and(|above| above.known < above.ctes().len());
        self.scopes.push(Scope { with: query.with.clone(), known: 0, is_cte });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        let was_cte = self.scopes.pop().is_some_and(|scope| scope.is_cte);
        if let Some(above) = self.scopes.last_mut().filter(|_| was_cte) {
            let at = above.known;
            if let Some(cte) = above.with.as_mut().and_then(|with| with.cte_tables.get_mut(at)) {
                *cte.query = query.clone();
            }
            above.known += 1;
        }
        ControlFlow::Continue(())
    }

    // After the subqueries of its FROM.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<EngineError> {
        match select.from.iter_mut().try_for_each(|tables| self.resolve(tables)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Natural<'_> {
    fn resolve(&self, tables: &mut TableWithJoins) -> Result<()> {
        self.resolve_inside(&mut tables.relation)?;
        tables.joins.iter_mut().try_for_each(|join| self.resolve_inside(&mut join.relation))?;
        let Some(last) = tables.joins.iter().rposition(is_natural) else { return Ok(()) };
        let mut left = self.columns(&tables.relation)?;
        for join in tables.joins.iter_mut().take(last + 1) {
            let right = self.columns(&join.relation)?;
            if is_natural(join) {
                constrain(&mut join.join_operator, &common(&left, &right)?);
            }
            left = joined(left, right, join);
        }
        Ok(())
    }

    fn resolve_inside(&self, factor: &mut TableFactor) -> Result<()> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => self.resolve(table_with_joins),
            _ => Ok(()),
        }
    }

    fn columns(&self, side: &TableFactor) -> Result<Vec<String>> {
        match side {
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                let mut left = self.columns(&table_with_joins.relation)?;
                for join in &table_with_joins.joins {
                    left = joined(left, self.columns(&join.relation)?, join);
                }
                Ok(left)
            }
            TableFactor::Derived { lateral: true, .. } | TableFactor::UNNEST { .. } => {
                Err(comes_later("NATURAL JOIN beside LATERAL or UNNEST (write USING or ON)"))
            }
            TableFactor::Table { name, .. } if self.is_recursive(name) => {
                Err(comes_later("NATURAL JOIN with the recursive query itself (write USING or ON)"))
            }
            TableFactor::Derived { subquery, alias, .. } if let Some(names) = named_by(subquery, alias.as_ref()) => {
                Ok(names)
            }
            TableFactor::Derived { subquery, .. } if self.reads_recursive(subquery) => Err(comes_later(
                "NATURAL JOIN with * of the recursive query itself (name the columns, or write USING or ON)",
            )),
            side => (self.columns_of)(self.all_of(side)),
        }
    }

    fn reads_recursive(&self, query: &Query) -> bool {
        relations_of(query).iter().any(|table| self.is_recursive(&table.to_object_name()))
    }

    /// Whether a name is that of a WITH RECURSIVE query which is being visited, or comes later.
    fn is_recursive(&self, name: &ObjectName) -> bool {
        let [part] = name.0.as_slice() else { return false };
        let Some(name) = part.as_ident().map(fold) else { return false };
        let is_unknown = self.scopes.iter().rev().find_map(|scope| {
            let at = scope.ctes().iter().position(|cte| fold(&cte.alias.name) == name)?;
            let is_recursive = scope.with.as_ref().is_some_and(|with| with.recursive);
            (at < scope.known || is_recursive).then_some(at >= scope.known)
        });
        is_unknown.unwrap_or(false)
    }

    /// `SELECT * FROM side`.
    fn all_of(&self, side: &TableFactor) -> Query {
        let from = TableWithJoins { relation: side.clone(), joins: vec![] };
        let all = SelectItem::Wildcard(WildcardAdditionalOptions::default());
        let mut query = query_of(SetExpr::Select(Box::new(select(vec![all], vec![from], None))));
        let mut read = relations_of(&query);
        for scope in self.scopes.iter().rev() {
            let Some(with) = scope.in_sight(&mut read) else { continue };
            query = match query.with.is_none() {
                true => Query { with: Some(with), ..query },
                false => Query { with: Some(with), ..query_of(SetExpr::Query(Box::new(query))) },
            };
        }
        query
    }
}

/// The names of a query's columns where its text says all of them.
fn named_by(query: &Query, alias: Option<&TableAlias>) -> Option<Vec<String>> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let name = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) | SelectItem::ExprWithAlias { alias: name, .. } => {
            Some(fold(name))
        }
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(fold),
        _ => None,
    };
    let mut names = select.projection.iter().map(name).collect::<Option<Vec<String>>>()?;
    let others = alias.map_or(&[][..], |alias| &alias.columns);
    for (name, other) in names.iter_mut().zip(others) {
        *name = fold(&other.name);
    }
    Some(names)
}

/// The names that both sides have.
fn common(left: &[String], right: &[String]) -> Result<Vec<String>> {
    let mut common = Vec::new();
    for name in left {
        if system_columns::is_system_column(name) || !right.contains(name) {
            continue;
        }
        let is_twice = |side: &[String]| side.iter().filter(|other| *other == name).count() > 1;
        if is_twice(left) || is_twice(right) {
            return Err(EngineError::invalid(format!(
                "NATURAL JOIN: several tables of one side have a column '{name}': write USING or ON"
            )));
        }
        common.push(name.clone());
    }
    Ok(common)
}

fn constrain(operator: &mut JoinOperator, common: &[String]) {
    let columns = common.iter().map(|name| ObjectName::from(vec![quoted(name)])).collect();
    match operator {
        JoinOperator::Join(_) | JoinOperator::Inner(_) if common.is_empty() => {
            *operator = JoinOperator::CrossJoin(JoinConstraint::None);
        }
        other => {
            if let Some(constraint) = constraint_mut(other) {
                *constraint = match common.is_empty() {
                    true => JoinConstraint::On(Expr::value(Value::Boolean(true))),
                    false => JoinConstraint::Using(columns),
                };
            }
        }
    }
}

/// The names of a join's columns: one of USING is there once.
fn joined(mut left: Vec<String>, right: Vec<String>, join: &Join) -> Vec<String> {
    match &join.join_operator {
        JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::Anti(_) | JoinOperator::LeftAnti(_) => left,
        JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => right,
        _ => {
            let used: Vec<String> = match constraint_of(join) {
                Some(JoinConstraint::Using(columns)) => {
                    columns.iter().filter_map(|column| column.0.last()?.as_ident().map(fold)).collect()
                }
                _ => vec![],
            };
            left.extend(right.into_iter().filter(|name| !used.contains(name)));
            left
        }
    }
}

fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => Some(constraint),
        _ => None,
    }
}
