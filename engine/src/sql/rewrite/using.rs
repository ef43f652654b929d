//! The columns of USING and NATURAL in RIGHT and FULL joins.
//!
//! An unqualified `id` after `a RIGHT JOIN c USING (id)` is c's, and after a FULL JOIN the one of the two that is not NULL.
//! To DataFusion it is always the left table's, which is NULL where that has no row.
//! - `a RIGHT JOIN c` becomes `c LEFT JOIN a`: the left table is the one that has all rows.
//! - After `a FULL JOIN c USING (id)` each `id` of the same SELECT becomes `COALESCE(a.id, c.id)`.
//! - A column that several JOINs use is the first table's; DataFusion finds it ambiguous.
//! - So it does in the WHERE of any JOIN. Of two tables it is the first one's there, too; of more it stays an error, since a third one may
//!   have such a column of its own.
//!
//! `*` names its tables one by one, so that its columns keep their order. Where a column's tables are not known from the
//! text, the query is refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderByKind, Query, ReplaceSelectElement,
    ReplaceSelectItem, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins,
    VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::call;
use crate::error::{EngineError, ErrorKind, Result};
use crate::sql::mentions::constraint_of;
use crate::sql::names::{fold, quoted};
use crate::sql::wildcards::exclude;

/// Makes the columns of USING what they are in SQL.
pub(super) fn merge_columns(query: &mut Query) -> Result<()> {
    match query.visit(&mut Merge) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Merge;

impl VisitorMut for Merge {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        let Query { body, order_by, .. } = query;
        let mut sorted = match order_by.as_mut().map(|order_by| &mut order_by.kind) {
            Some(OrderByKind::Expressions(exprs)) => exprs.iter_mut().map(|sort| &mut sort.expr).collect(),
            _ => vec![],
        };
        match merge_in_body(body, &mut sorted) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn merge_in_body(body: &mut SetExpr, sorted: &mut [&mut Expr]) -> Result<()> {
    match body {
        SetExpr::Select(select) => merge_in_select(select, sorted),
        SetExpr::SetOperation { left, right, .. } => {
            merge_in_body(left, &mut [])?;
            merge_in_body(right, &mut [])
        }
        // A query is visited by itself.
        _ => Ok(()),
    }
}

/// A column of USING whose value is not simply the left table's.
struct Merged {
    column: Ident,
    value: Expr,
}

fn merge_in_select(select: &mut Select, sorted: &mut [&mut Expr]) -> Result<()> {
    let has_wildcard = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    let mut merged = vec![];
    for from in 0..select.from.len() {
        let shown = has_wildcard && select.from.len() == 1;
        if let Some(items) = shown.then(|| wildcard_items(&select.from[from])).transpose()?.flatten() {
            spread(&mut select.projection, &items)?;
        } else if has_wildcard && needs_merging(&select.from[from]) {
            return Err(refused("SELECT * over several tables in FROM with RIGHT or FULL JOIN … USING"));
        }
        turn_right_joins(&mut select.from[from]);
        merge_full_joins(&select.from[from], &mut merged)?;
        merge_repeated(&select.from[from], &mut merged);
    }
    if let [only] = select.from.as_slice() {
        let columns = of_two_tables(only);
        replace(&mut select.selection, &columns);
    }
    if merged.is_empty() {
        return Ok(());
    }
    replace_in_select(select, &merged);
    let outputs: Vec<String> = select.projection.iter().filter_map(output_name).collect();
    for expr in sorted {
        // A name of the select list is that.
        if !matches!(expr, Expr::Identifier(name) if outputs.contains(&fold(name))) {
            replace(*expr, &merged);
        }
    }
    Ok(())
}

fn refused(what: &str) -> EngineError {
    EngineError::new(ErrorKind::Unimplemented, format!("{what}: not supported yet (write ON, and list the columns)"))
}

/// Which side of a join has all of its rows, when it is not the left or none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outer {
    Right,
    Full,
}

fn outer_join(join: &Join) -> Option<(Outer, &JoinConstraint)> {
    let (outer, constraint) = match &join.join_operator {
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (Outer::Right, constraint),
        JoinOperator::FullOuter(constraint) => (Outer::Full, constraint),
        _ => return None,
    };
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural).then_some((outer, constraint))
}

fn needs_merging(table: &TableWithJoins) -> bool {
    table.joins.iter().any(|join| outer_join(join).is_some())
}

/// The items that `*` stands for; `None` = DataFusion's are right.
fn wildcard_items(table: &TableWithJoins) -> Result<Option<Vec<SelectItem>>> {
    if !needs_merging(table) {
        return Ok(None);
    }
    let [join] = table.joins.as_slice() else {
        return Err(refused("SELECT * over more than two tables with RIGHT or FULL JOIN … USING"));
    };
    let Some((outer, JoinConstraint::Using(columns))) = outer_join(join) else {
        return Err(refused("SELECT * over NATURAL RIGHT or FULL JOIN"));
    };
    let (Some(left), Some(right)) = (name_of(&table.relation), name_of(&join.relation)) else {
        return Err(refused("SELECT * over a RIGHT or FULL JOIN … USING of what has no name"));
    };
    let columns = columns.iter().filter_map(column_ident).collect::<Vec<_>>();
    let replacements = columns.iter().map(|column| {
        let expr = match outer {
            Outer::Right => qualified(&right, column),
            Outer::Full => call("coalesce", [qualified(&left, column), qualified(&right, column)]),
        };
        Box::new(ReplaceSelectElement { expr, column_name: column.clone(), as_keyword: true })
    });
    let replaced = WildcardAdditionalOptions {
        opt_replace: Some(ReplaceSelectItem { items: replacements.collect() }),
        ..Default::default()
    };
    let mut others = WildcardAdditionalOptions::default();
    exclude(&mut others, columns);
    let item =
        |name, options| SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options);
    Ok(Some(vec![item(left, replaced), item(right, others)]))
}

/// Puts these items in the place of `*`.
fn spread(projection: &mut Vec<SelectItem>, items: &[SelectItem]) -> Result<()> {
    let mut all = Vec::with_capacity(projection.len() + items.len());
    for item in projection.drain(..) {
        match item {
            SelectItem::Wildcard(options) => {
                if options.opt_exclude.is_some() || options.opt_except.is_some() || options.opt_replace.is_some() {
                    return Err(refused("SELECT * EXCLUDE, EXCEPT or REPLACE over a RIGHT or FULL JOIN … USING"));
                }
                all.extend(items.iter().cloned());
            }
            other => all.push(other),
        }
    }
    *projection = all;
    Ok(())
}

/// `a RIGHT JOIN c` → `c LEFT JOIN a`.
fn turn_right_joins(table: &mut TableWithJoins) {
    for at in 0..table.joins.len() {
        let Some((Outer::Right, constraint)) = outer_join(&table.joins[at]) else { continue };
        let constraint = constraint.clone();
        let after = table.joins.split_off(at + 1);
        let Some(join) = table.joins.pop() else { continue };
        let left = TableWithJoins { relation: table.relation.clone(), joins: std::mem::take(&mut table.joins) };
        let left = match left.joins.is_empty() {
            true => left.relation,
            false => TableFactor::NestedJoin { table_with_joins: Box::new(left), alias: None },
        };
        let turned = Join { relation: left, join_operator: JoinOperator::LeftOuter(constraint), ..join.clone() };
        table.relation = join.relation;
        table.joins = std::iter::once(turned).chain(after).collect();
        return turn_right_joins(table);
    }
}

fn merge_full_joins(table: &TableWithJoins, merged: &mut Vec<Merged>) -> Result<()> {
    let mut full = false;
    for (at, join) in table.joins.iter().enumerate() {
        if full && constraint_of(join).is_some_and(|c| matches!(c, JoinConstraint::Using(_) | JoinConstraint::Natural))
        {
            return Err(refused("a JOIN … USING after a FULL JOIN … USING"));
        }
        let Some((Outer::Full, constraint)) = outer_join(join) else { continue };
        full = true;
        let JoinConstraint::Using(columns) = constraint else { return Err(refused("NATURAL FULL JOIN")) };
        let left = if at == 0 { name_of(&table.relation) } else { None };
        let (Some(left), Some(right)) = (left, name_of(&join.relation)) else {
            return Err(refused("a FULL JOIN … USING of more than two tables"));
        };
        for column in columns.iter().filter_map(column_ident) {
            let value = call("coalesce", [qualified(&left, &column), qualified(&right, &column)]);
            merged.push(Merged { column, value });
        }
    }
    Ok(())
}

/// A column that two JOINs use: DataFusion does not know whose it is. It is the first table's.
fn merge_repeated(table: &TableWithJoins, merged: &mut Vec<Merged>) {
    let Some(first) = name_of(&table.relation) else { return };
    let used: Vec<Vec<Ident>> = table.joins.iter().map(used_by_inner_or_left).collect();
    for column in used.first().into_iter().flatten() {
        let times = used.iter().filter(|columns| columns.iter().any(|other| other.value == column.value)).count();
        if times > 1 && !merged.iter().any(|known| known.column.value == column.value) {
            merged.push(Merged { column: column.clone(), value: qualified(&first, column) });
        }
    }
}

/// The columns that two tables are joined by, each as the first one's.
fn of_two_tables(table: &TableWithJoins) -> Vec<Merged> {
    let [join] = table.joins.as_slice() else { return vec![] };
    let (Some(first), Some(_)) = (name_of(&table.relation), name_of(&join.relation)) else { return vec![] };
    let merged = |column: Ident| Merged { value: qualified(&first, &column), column };
    used_by_inner_or_left(join).into_iter().map(merged).collect()
}

fn used_by_inner_or_left(join: &Join) -> Vec<Ident> {
    match &join.join_operator {
        JoinOperator::Join(JoinConstraint::Using(columns))
        | JoinOperator::Inner(JoinConstraint::Using(columns))
        | JoinOperator::Left(JoinConstraint::Using(columns))
        | JoinOperator::LeftOuter(JoinConstraint::Using(columns)) => columns.iter().filter_map(column_ident).collect(),
        _ => vec![],
    }
}

fn name_of(factor: &TableFactor) -> Option<ObjectName> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(ObjectName::from(vec![alias.name.clone()]))
        }
        TableFactor::Table { name, args: None, .. } => Some(name.clone()),
        _ => None,
    }
}

fn column_ident(name: &ObjectName) -> Option<Ident> {
    Some(quoted(&fold(name.0.last()?.as_ident()?)))
}

fn qualified(table: &ObjectName, column: &Ident) -> Expr {
    let parts = table.0.iter().filter_map(|part| part.as_ident().cloned());
    Expr::CompoundIdentifier(parts.chain([column.clone()]).collect())
}

fn output_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(fold(name)),
        _ => None,
    }
}

/// Replaces the columns everywhere in a SELECT but in its subqueries.
fn replace_in_select(select: &mut Select, merged: &[Merged]) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
            && let Some(found) = merged.iter().find(|m| m.column.value == fold(name))
        {
            *item = SelectItem::ExprWithAlias { expr: found.value.clone(), alias: found.column.clone() };
        }
    }
    replace(&mut select.projection, merged);
    replace(&mut select.distinct, merged);
    replace(&mut select.selection, merged);
    replace(&mut select.group_by, merged);
    replace(&mut select.having, merged);
    replace(&mut select.qualify, merged);
    replace(&mut select.named_window, merged);
}

fn replace<V: VisitMut>(piece: &mut V, merged: &[Merged]) {
    let _ = piece.visit(&mut Replace { merged, queries: 0 });
}

struct Replace<'a> {
    merged: &'a [Merged],
    queries: usize,
}

impl VisitorMut for Replace<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && self.queries == 0
            && let Some(found) = self.merged.iter().find(|merged| merged.column.value == fold(name))
        {
            *expr = found.value.clone();
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::SeracDialect;
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::parser::Parser;

    fn after(sql: &str) -> Result<String> {
        let mut statements = Parser::parse_sql(&SeracDialect, sql).unwrap();
        let Statement::Query(query) = &mut statements[0] else { panic!("{sql}") };
        merge_columns(query)?;
        Ok(query.to_string())
    }

    #[test]
    fn columns_are_merged() {
        for (sql, expected) in [
            ("SELECT id FROM a JOIN c USING (id)", "SELECT id FROM a JOIN c USING(id)"),
            (
                "SELECT 1 FROM a JOIN ns.c USING (id) WHERE id > 1 AND x IN (SELECT id FROM d)",
                "SELECT 1 FROM a JOIN ns.c USING(id) WHERE a.\"id\" > 1 AND x IN (SELECT id FROM d)",
            ),
            (
                "SELECT 1 FROM a RIGHT JOIN c USING (id) WHERE id > 1",
                "SELECT 1 FROM c LEFT OUTER JOIN a USING(id) WHERE c.\"id\" > 1",
            ),
            (
                "SELECT 1 FROM a JOIN b USING (x) JOIN c USING (y) WHERE x > y",
                "SELECT 1 FROM a JOIN b USING(x) JOIN c USING(y) WHERE x > y",
            ),
            ("SELECT id FROM a RIGHT JOIN c ON a.id = c.id", "SELECT id FROM a RIGHT JOIN c ON a.id = c.id"),
            ("SELECT id FROM a RIGHT JOIN c USING (id)", "SELECT id FROM c LEFT OUTER JOIN a USING(id)"),
            (
                "SELECT id FROM a JOIN b ON a.x = b.x RIGHT JOIN c USING (id) JOIN d USING (id)",
                "SELECT c.\"id\" AS \"id\" FROM c LEFT OUTER JOIN (a JOIN b ON a.x = b.x) USING(id) JOIN d USING(id)",
            ),
            (
                "SELECT * FROM a RIGHT JOIN ns.c USING (id)",
                "SELECT a.* REPLACE (ns.c.\"id\" AS \"id\"), ns.c.* EXCLUDE (\"id\") FROM ns.c LEFT OUTER JOIN a USING(id)",
            ),
            (
                "SELECT ID, a.id + id FROM a FULL JOIN c AS x USING (id) WHERE id > 1 GROUP BY id ORDER BY id, -id",
                "SELECT coalesce(a.\"id\", x.\"id\") AS \"id\", a.id + coalesce(a.\"id\", x.\"id\") \
                 FROM a FULL JOIN c AS x USING(id) WHERE coalesce(a.\"id\", x.\"id\") > 1 \
                 GROUP BY coalesce(a.\"id\", x.\"id\") ORDER BY id, -coalesce(a.\"id\", x.\"id\")",
            ),
            (
                "SELECT id, x FROM a JOIN b USING (id, x) LEFT JOIN c USING (id)",
                "SELECT a.\"id\" AS \"id\", x FROM a JOIN b USING(id, x) LEFT JOIN c USING(id)",
            ),
            (
                "SELECT 1 FROM a FULL JOIN c USING (id) WHERE EXISTS (SELECT id FROM d)",
                "SELECT 1 FROM a FULL JOIN c USING(id) WHERE EXISTS (SELECT id FROM d)",
            ),
        ] {
            assert_eq!(after(sql).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for sql in [
            "SELECT * FROM a NATURAL RIGHT JOIN c",
            "SELECT id FROM a NATURAL FULL JOIN c",
            "SELECT id FROM a FULL JOIN b USING (id) JOIN c USING (id)",
            "SELECT id FROM a JOIN b ON a.x = b.x FULL JOIN c USING (id)",
            "SELECT * FROM a RIGHT JOIN b USING (id), c",
            "SELECT * EXCLUDE (x) FROM a RIGHT JOIN b USING (id)",
        ] {
            assert_eq!(after(sql).unwrap_err().kind, ErrorKind::Unimplemented, "{sql}");
        }
    }
}
