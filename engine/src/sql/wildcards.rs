//! `SELECT *` leaves `_deleted` out, also in a statement that names it.
//!
//! The table provider leaves the column out of its schema unless the statement mentions it, so that `*` needs no care in
//! all other statements. In one that does, each wildcard over a table is told to leave it out:
//! `SELECT *, _deleted FROM t` → `SELECT * EXCLUDE (_deleted), _deleted FROM t`.
//!
//! DataFusion's EXCLUDE fails on a column that is not there, and on one that is there twice. So over several tables `*`
//! becomes `a.* EXCLUDE (…), b.*`, and only tables that have the column are told to exclude it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};
use seracdb_storage::system_columns;

use super::ctes::Ctes;
use super::names::{TableName, fold, quoted};
use crate::error::{EngineError, Result};

/// Makes every wildcard leave `_deleted` out. `has_deleted`: whether this table is there and has the column in its schema.
pub(crate) fn leave_out_deleted(query: &mut Query, has_deleted: &dyn Fn(&TableName) -> bool) -> Result<()> {
    match query.visit(&mut Rewrite { has_deleted, ctes: Ctes::new() }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Whether a query's columns are those of wildcards: each of its SELECTs has one, and names no column like one of SeracDB's own.
pub(super) fn is_of_wildcards(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            let is_wildcard =
                |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
            select.projection.iter().any(is_wildcard) && !select.projection.iter().any(names_own)
        }
        SetExpr::SetOperation { left, right, .. } => is_of_wildcards(left) && is_of_wildcards(right),
        SetExpr::Query(query) => is_of_wildcards(&query.body),
        _ => false,
    }
}

/// Whether an item is itself called like a system column.
fn names_own(item: &SelectItem) -> bool {
    let is_own = |ident: &Ident| system_columns::is_system_column(&ident.value);
    match item {
        SelectItem::UnnamedExpr(expr) => {
            let mut expr = expr;
            while let Expr::Nested(inner) = expr {
                expr = inner;
            }
            match expr {
                Expr::Identifier(ident) => is_own(ident),
                Expr::CompoundIdentifier(parts) => parts.last().is_some_and(is_own),
                _ => false,
            }
        }
        SelectItem::ExprWithAlias { alias, .. } => is_own(alias),
        SelectItem::ExprWithAliases { aliases, .. } => aliases.iter().any(is_own),
        SelectItem::QualifiedWildcard(_, options) | SelectItem::Wildcard(options) => {
            let mut replaced = options.opt_replace.iter().flat_map(|replace| &replace.items);
            replaced.any(|item| is_own(&item.column_name))
        }
    }
}

struct Rewrite<'a> {
    has_deleted: &'a dyn Fn(&TableName) -> bool,
    ctes: Ctes<()>,
}

impl VisitorMut for Rewrite<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        self.ctes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<EngineError> {
        self.ctes.leave(());
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<EngineError> {
        match self.rewrite(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// One table, subquery or function of a FROM.
#[derive(Clone)]
struct Source {
    /// What `x.*` calls it; `None` = it has no name.
    name: Option<ObjectName>,
    has_deleted: bool,
    /// Columns that an earlier source shows for it: those of USING.
    shown_before: Vec<Ident>,
}

impl Rewrite<'_> {
    fn rewrite(&self, select: &mut Select) -> Result<()> {
        let has_wildcard = select
            .projection
            .iter()
            .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
        if !has_wildcard {
            return Ok(());
        }
        let mut sources = vec![];
        // Why `*` cannot be written table by table.
        let mut obstacle = None;
        for table in &select.from {
            self.collect(table, &mut sources, &mut obstacle);
        }
        if !sources.iter().any(|source| source.has_deleted) {
            return Ok(());
        }
        let mut projection = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(mut options) if sources.len() == 1 => {
                    exclude(&mut options, vec![quoted(system_columns::DELETED)]);
                    projection.push(SelectItem::Wildcard(options));
                }
                SelectItem::Wildcard(options) => spread(&options, &sources, obstacle, &mut projection)?,
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), mut options) => {
                    if sources.iter().any(|source| source.has_deleted && source.is_called(&name)) {
                        exclude(&mut options, vec![quoted(system_columns::DELETED)]);
                    }
                    projection.push(SelectItem::QualifiedWildcard(
                        SelectItemQualifiedWildcardKind::ObjectName(name),
                        options,
                    ));
                }
                other => projection.push(other),
            }
        }
        select.projection = projection;
        Ok(())
    }

    fn collect(&self, table: &TableWithJoins, sources: &mut Vec<Source>, obstacle: &mut Option<&'static str>) {
        self.collect_factor(&table.relation, sources, obstacle);
        for join in &table.joins {
            let left = sources.len();
            match &join.join_operator {
                JoinOperator::Semi(_)
                | JoinOperator::LeftSemi(_)
                | JoinOperator::Anti(_)
                | JoinOperator::LeftAnti(_) => {}
                JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => *obstacle = Some("RIGHT SEMI or ANTI JOIN"),
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint)
                | JoinOperator::CrossJoin(constraint) => {
                    self.collect_factor(&join.relation, sources, obstacle);
                    match constraint {
                        JoinConstraint::Natural => *obstacle = Some("NATURAL JOIN"),
                        JoinConstraint::Using(columns) => {
                            let names = columns.iter().filter_map(|column| Some(column.0.last()?.as_ident()?.clone()));
                            let names: Vec<Ident> = names.map(|ident| quoted(&fold(&ident))).collect();
                            sources[left..].iter_mut().for_each(|source| source.shown_before.extend(names.clone()));
                        }
                        JoinConstraint::On(_) | JoinConstraint::None => {}
                    }
                }
                JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::FullOuter(constraint) => {
                    self.collect_factor(&join.relation, sources, obstacle);
                    if matches!(constraint, JoinConstraint::Natural | JoinConstraint::Using(_)) {
                        *obstacle = Some("RIGHT or FULL JOIN … USING");
                    }
                }
                _ => *obstacle = Some("join of this kind"),
            }
        }
    }

    fn collect_factor(&self, factor: &TableFactor, sources: &mut Vec<Source>, obstacle: &mut Option<&'static str>) {
        let mut push = |name: Option<ObjectName>, has_deleted| {
            sources.push(Source { name, has_deleted, shown_before: vec![] });
        };
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let renamed = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
                let has_deleted = !renamed && self.ctes.find(name).is_none() && self.table_has_deleted(name);
                push(Some(alias_name(alias).unwrap_or_else(|| name.clone())), has_deleted);
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.collect(table_with_joins, sources, obstacle)
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let mut inside = vec![];
                self.collect(table_with_joins, &mut inside, obstacle);
                push(alias_name(alias), inside.iter().any(|source| source.has_deleted));
            }
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => push(alias_name(alias), false),
            _ => push(None, false),
        }
    }

    /// A name that is none is the planner's to report.
    fn table_has_deleted(&self, name: &ObjectName) -> bool {
        TableName::parse(name).is_ok_and(|name| (self.has_deleted)(&name))
    }
}

impl Source {
    /// Whether `name.*` means this source: `t.*` also means `ns.t`.
    fn is_called(&self, name: &ObjectName) -> bool {
        let parts =
            |name: &ObjectName| -> Vec<String> { name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect() };
        self.name.as_ref().is_some_and(|own| parts(own).ends_with(&parts(name)))
    }
}

/// `*` over several sources: one wildcard for each.
fn spread(
    options: &WildcardAdditionalOptions,
    sources: &[Source],
    obstacle: Option<&str>,
    projection: &mut Vec<SelectItem>,
) -> Result<()> {
    let refuse = |why: &str| {
        Err(EngineError::invalid(format!(
            "SELECT * over {why} in a statement that names {}: list the columns",
            system_columns::DELETED
        )))
    };
    if let Some(obstacle) = obstacle {
        return refuse(&format!("a {obstacle}"));
    }
    if options.opt_exclude.is_some() || options.opt_except.is_some() || options.opt_replace.is_some() {
        return refuse("several tables with EXCLUDE, EXCEPT or REPLACE");
    }
    for source in sources {
        let Some(name) = &source.name else { return refuse("a subquery or function without an alias") };
        let mut options = options.clone();
        let mut excluded = source.shown_before.clone();
        if source.has_deleted {
            excluded.push(quoted(system_columns::DELETED));
        }
        exclude(&mut options, excluded);
        projection
            .push(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name.clone()), options));
    }
    Ok(())
}

/// Leaves these columns out of a wildcard, besides those it leaves out already.
pub(crate) fn exclude(options: &mut WildcardAdditionalOptions, columns: Vec<Ident>) {
    for column in columns {
        if let Some(except) = &mut options.opt_except {
            let known = std::iter::once(&except.first_element).chain(&except.additional_elements);
            if !known.into_iter().any(|ident| ident.value == column.value) {
                except.additional_elements.push(column);
            }
            continue;
        }
        let mut names = match options.opt_exclude.take() {
            None => vec![],
            Some(ExcludeSelectItem::Single(name)) => vec![name],
            Some(ExcludeSelectItem::Multiple(names)) => names,
        };
        let known = |name: &ObjectName| matches!(name.0.as_slice(), [part] if part.as_ident().is_some_and(|i| i.value == column.value));
        if !names.iter().any(known) {
            names.push(ObjectName::from(vec![column]));
        }
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
    }
}

fn alias_name(alias: &Option<TableAlias>) -> Option<ObjectName> {
    alias.as_ref().map(|alias| ObjectName::from(vec![alias.name.clone()]))
}
