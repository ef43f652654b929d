//! UPDATE and DELETE as the SELECT that finds their rows.
//!
//! ```text
//! UPDATE t AS x SET a = a + 1 WHERE b IN (SELECT …)
//! SELECT x.<location>…, x._id, x._updated, a + 1 AS a, x.b AS b FROM t AS x WHERE b IN (SELECT …)
//!
//! DELETE FROM t USING u WHERE t.a = u.a
//! SELECT DISTINCT t.<location>…, t._id, t._updated FROM t, u WHERE t.a = u.a
//! ```
//! DataFusion's own hooks for them (`TableProvider::update`, `delete_from`) lose WHERE clauses and know no row
//! locations. Our own column references name the table, so that nothing in SET or WHERE can make them ambiguous. The table
//! is asked for in [`TARGET_CATALOG`]: only there it has location columns, so that subqueries do not see them.

use std::iter::once;
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Function, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select,
    SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, Visit,
    Visitor, WildcardAdditionalOptions,
};
use seracdb_storage::system_columns;

use super::insert::exact_decimal;
use super::names::{TableName, fold, quoted};
use super::statement::{Delete, Update};
use super::suggest;
use super::validate::unsupported;
use crate::error::{EngineError, Result};

/// The catalog in which the planner asks for the table that an UPDATE or DELETE changes. No statement can name it: the text of none may have it, see [`super::tokens`].
pub(crate) const TARGET_CATALOG: &str = "seracdb target";

/// The rows an UPDATE changes, as they will be: location columns, `_id`, `_updated`, all user columns in order; then these
/// columns as they are.
/// [`super::coerce::conform`] casts them to the columns' types.
pub(crate) fn update_query(
    update: &Update,
    user_columns: &[(String, DataType)],
    location_columns: &[&str],
    old: &[&str],
) -> Result<Query> {
    for (column, value) in &update.assignments {
        require_column(column, user_columns, &update.table)?;
        refuse_unnest(value, "SET")?;
    }
    refuse_unnest(&update.selection, "WHERE")?;
    refuse_unnest(&update.from, "FROM")?;
    let source = Source { table: &update.table, alias: update.alias.as_ref(), is_target: true };
    let mut items = source.location(location_columns);
    for (column, data_type) in user_columns {
        let assigned = update.assignments.iter().find(|(name, _)| name == column);
        let mut expr = assigned.map_or_else(|| source.column(column), |(_, value)| value.clone());
        exact_decimal(&mut expr, data_type);
        items.push(SelectItem::ExprWithAlias { expr, alias: quoted(column) });
    }
    items.extend(source.old(old));
    Ok(source.select(items, &update.from, update.selection.clone(), false))
}

/// The rows a DELETE removes: location columns, `_id`, `_updated`; then these columns, for RETURNING, and then those.
pub(crate) fn delete_query(
    delete: &Delete,
    location_columns: &[&str],
    returned: &[&str],
    old: &[&str],
) -> Result<Query> {
    refuse_unnest(&delete.selection, "WHERE")?;
    refuse_unnest(&delete.using, "USING")?;
    let source = Source { table: &delete.table, alias: delete.alias.as_ref(), is_target: true };
    // A row that several others belong to is removed once.
    let distinct = !delete.using.is_empty();
    let mut items = source.location(location_columns);
    items.extend(returned.iter().map(|column| SelectItem::UnnamedExpr(source.column(column))));
    items.extend(source.old(old));
    Ok(source.select(items, &delete.using, delete.selection.clone(), distinct))
}

/// What RETURNING gives: a SELECT from the rows that were written, which stand where the target does, and from what they were
/// joined with. `table`: with its namespace.
pub(crate) fn returning_query(
    table: &TableName,
    alias: Option<&Ident>,
    items: &[SelectItem],
    others: &[TableWithJoins],
) -> Query {
    let target = Source { table, alias, is_target: true };
    let mut names = Vec::new();
    others.iter().for_each(|tables| names_of(tables, &mut names));
    let items = items.iter().map(|item| target.spelled(item.clone(), &names, others.is_empty()));
    target.select(items.collect(), others, None, false)
}

/// What the tables and queries of a FROM are called.
fn names_of(tables: &TableWithJoins, names: &mut Vec<ObjectName>) {
    for factor in once(&tables.relation).chain(tables.joins.iter().map(|join| &join.relation)) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => names_of(table_with_joins, names),
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::Function { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. }
            | TableFactor::NestedJoin { alias: Some(alias), .. } => {
                names.push(ObjectName::from(vec![alias.name.clone()]))
            }
            TableFactor::Table { name, args: None, .. } => names.push(name.clone()),
            _ => {}
        }
    }
}

/// Whether `name.*` means what is called so: `t.*` also means `ns.t`.
fn means(name: &ObjectName, called: &ObjectName) -> bool {
    let parts =
        |name: &ObjectName| -> Vec<String> { name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect() };
    parts(called).ends_with(&parts(name))
}

/// `SELECT * FROM table`.
pub(crate) fn select_all(table: &TableName) -> Query {
    let source = Source { table, alias: None, is_target: false };
    source.select(vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())], &[], None, false)
}

/// Refuses a column the table does not have, with the one that was probably meant.
pub(crate) fn require_column(column: &str, user_columns: &[(String, DataType)], table: &TableName) -> Result<usize> {
    user_columns.iter().position(|(name, _)| name == column).ok_or_else(|| {
        let known = user_columns.iter().map(|(name, _)| name.as_str());
        EngineError::not_found(format!("{} (in table {table})", suggest::unknown("column", column, known)))
    })
}

/// The rows that ON CONFLICT DO UPDATE changes, as they will be: like those of an UPDATE, joined by `_id` with the rows that were
/// to be inserted.
pub(crate) fn conflict_query(
    update: &Update,
    user_columns: &[(String, DataType)],
    location_columns: &[&str],
    old: &[&str],
    id_of_excluded: Expr,
) -> Result<Query> {
    let source = Source { table: &update.table, alias: update.alias.as_ref(), is_target: true };
    let equals = |left: Expr, op, right: Expr| Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
    let is_it = equals(source.column(system_columns::ID), BinaryOperator::Eq, id_of_excluded);
    let selection = match update.selection.clone() {
        Some(condition) => equals(is_it, BinaryOperator::And, Expr::Nested(Box::new(condition))),
        None => is_it,
    };
    update_query(&Update { selection: Some(selection), ..update.clone() }, user_columns, location_columns, old)
}

/// The table as the statement's FROM.
pub(super) struct Source<'a> {
    pub(super) table: &'a TableName,
    pub(super) alias: Option<&'a Ident>,
    /// Whether its rows' locations are wanted.
    pub(super) is_target: bool,
}

impl Source<'_> {
    pub(super) fn location(&self, columns: &[&str]) -> Vec<SelectItem> {
        let system = [system_columns::ID, system_columns::UPDATED];
        columns.iter().copied().chain(system).map(|name| SelectItem::UnnamedExpr(self.column(name))).collect()
    }

    /// Columns beside those that a statement names, under names that none can have.
    pub(super) fn old(&self, columns: &[&str]) -> impl Iterator<Item = SelectItem> {
        columns.iter().map(|column| SelectItem::ExprWithAlias {
            expr: self.column(column),
            alias: quoted(&format!("seracdb old {column}")),
        })
    }

    pub(super) fn column(&self, name: &str) -> Expr {
        let mut parts = match (self.alias, &self.table.namespace) {
            (Some(alias), _) => vec![alias.clone()],
            (None, Some(namespace)) => vec![quoted(namespace), quoted(&self.table.table)],
            (None, None) => vec![quoted(&self.table.table)],
        };
        parts.push(quoted(name));
        Expr::CompoundIdentifier(parts)
    }

    /// An item of RETURNING with the whole name before a wildcard, which DataFusion wants. `*` is of the target alone. `others`: what
    /// else is in sight.
    fn spelled(&self, item: SelectItem, others: &[ObjectName], alone: bool) -> SelectItem {
        let own = || match self.alias {
            Some(alias) => ObjectName::from(vec![alias.clone()]),
            None => self.object_name(),
        };
        let (name, options) = match item {
            SelectItem::Wildcard(options) if !alone => (own(), options),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let is_another = others.iter().any(|other| means(&name, other) && means(other, &name));
                let of_other = || others.iter().find(|other| means(&name, other)).cloned();
                let name = match self.alias.is_none() && means(&name, &self.table.to_object_name()) {
                    _ if is_another => name,
                    true => own(),
                    false => of_other().unwrap_or(name),
                };
                (name, options)
            }
            other => return other,
        };
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
    }

    /// With its namespace a target is asked for where tables have location columns.
    fn object_name(&self) -> ObjectName {
        let mut name = self.table.to_object_name();
        if self.is_target && self.table.namespace.is_some() {
            name.0.insert(0, ObjectNamePart::Identifier(quoted(TARGET_CATALOG)));
        }
        name
    }

    /// The table, as FROM names it.
    pub(super) fn relation(&self) -> TableFactor {
        let alias = self.alias.map(|name| TableAlias { explicit: true, name: name.clone(), columns: vec![], at: None });
        plain_table(self.object_name(), alias)
    }

    fn select(
        &self,
        projection: Vec<SelectItem>,
        others: &[TableWithJoins],
        selection: Option<Expr>,
        distinct: bool,
    ) -> Query {
        let mut from = vec![TableWithJoins { relation: self.relation(), joins: vec![] }];
        from.extend_from_slice(others);
        let mut select = select(projection, from, selection);
        select.distinct = distinct.then_some(Distinct::Distinct);
        query(SetExpr::Select(Box::new(select)))
    }
}

/// A table that no statement can name.
pub(super) fn hidden_table(name: &str) -> TableFactor {
    plain_table(ObjectName(vec![ObjectNamePart::Identifier(quoted(name))]), None)
}

fn plain_table(name: ObjectName, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

/// A query of nothing but this body.
pub(crate) fn query(body: SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

/// A SELECT of nothing but these.
pub(crate) fn select(projection: Vec<SelectItem>, from: Vec<TableWithJoins>, selection: Option<Expr>) -> Select {
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection,
        exclude: None,
        into: None,
        from,
        lateral_views: vec![],
        prewhere: None,
        selection,
        connect_by: vec![],
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

/// UNNEST in SET would make several versions of one row. In a subquery it is fine.
fn refuse_unnest<V: Visit>(piece: &V, clause: &str) -> Result<()> {
    match piece.visit(&mut FindUnnest { queries: 0 }) {
        ControlFlow::Break(()) => Err(unsupported(&format!("UNNEST in {clause}, outside of a subquery,"))),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct FindUnnest {
    queries: usize,
}

impl Visitor for FindUnnest {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(Function { name, .. })
                if self.queries == 0 && name.to_string().trim_matches('"').eq_ignore_ascii_case("unnest") =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
