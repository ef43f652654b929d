//! Which columns a statement names, and which tables a query reads.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, Ident, Join, JoinConstraint, JoinOperator, ObjectName,
    Query, Select, SelectItem, SetExpr, TableFactor, TableFunctionArgs, Value, Visit, Visitor,
    WildcardAdditionalOptions,
};

use super::ctes::Ctes;
use super::defaults::is_mark;
use super::names::{TableName, fold};
use super::statement::{InsertSource, Statement};
use super::time_travel::takes_times;
use crate::error::EngineError;

/// Whether the statement names a column like this anywhere: in an expression, in USING, in EXCLUDE. A string is no name.
pub(crate) fn mentions_identifier(statement: &Statement, name: &str) -> bool {
    visit(statement, &mut Find { name }).is_break()
}

/// Whether an expression names any column, be it only in a subquery.
pub(crate) fn names_a_column(expr: &Expr) -> bool {
    struct Named;
    impl Visitor for Named {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                // DEFAULT is of no row.
                expr if is_mark(expr) => ControlFlow::Continue(()),
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Named).is_break()
}

/// The tables and views that a query names, each once. A WITH query is none, and what is no name is the planner's to report.
pub(crate) fn relations_of(query: &Query) -> Vec<TableName> {
    let mut relations = Relations { found: vec![], ctes: Ctes::new() };
    let _ = query.visit(&mut relations);
    relations.found
}

/// The same of a statement: what it reads, so without the table that it changes.
pub(crate) fn relations(statement: &Statement) -> Vec<TableName> {
    let mut relations = Relations { found: vec![], ctes: Ctes::new() };
    let _ = visit(statement, &mut relations);
    relations.found
}

/// Visits what a SELECT, INSERT, UPDATE, DELETE or MERGE reads.
fn visit<V: Visitor>(statement: &Statement, visitor: &mut V) -> ControlFlow<V::Break> {
    match statement {
        Statement::Query(query) => query.visit(visitor),
        Statement::Explain { inner, .. } => visit(inner, visitor),
        Statement::Insert(insert) => {
            match &insert.source {
                InsertSource::Query(query) => query.visit(visitor)?,
                InsertSource::Values(rows) => rows.visit(visitor)?,
                InsertSource::Defaults => {}
            }
            insert.conflict_exprs().try_for_each(|expr| expr.visit(visitor))?;
            insert.returning.visit(visitor)
        }
        Statement::Update(update) => {
            update.assignments.iter().try_for_each(|(_, value)| value.visit(visitor))?;
            update.from.visit(visitor)?;
            update.selection.visit(visitor)?;
            update.returning.visit(visitor)
        }
        Statement::Delete(delete) => {
            delete.using.visit(visitor)?;
            delete.selection.visit(visitor)?;
            delete.returning.visit(visitor)
        }
        Statement::Merge(merge) => {
            merge.source.visit(visitor)?;
            merge.exprs().try_for_each(|expr| expr.visit(visitor))?;
            merge.returning.visit(visitor)
        }
        _ => ControlFlow::Continue(()),
    }
}

/// The table function that reads the rows of all users.
pub(crate) const ALL_USERS: &str = "all_users";

/// The tables that `all_users(…)` is called with, as often as the statement says that; `None` for a call with what is no name.
pub(crate) fn all_users(statement: &Statement) -> Vec<Option<TableName>> {
    let mut calls = Calls { found: vec![] };
    let _ = visit(statement, &mut calls);
    calls.found
}

struct Calls {
    found: Vec<Option<TableName>>,
}

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let (name, args) = match factor {
            TableFactor::Table { name, args: Some(args), .. } => (name, &args.args),
            TableFactor::Function { name, args, .. } => (name, args),
            _ => return ControlFlow::Continue(()),
        };
        if name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| fold(ident) == ALL_USERS) {
            self.found.push(named(args));
        }
        ControlFlow::Continue(())
    }
}

/// What is said to a call of `all_users` with anything else.
pub(crate) fn wrong_all_users() -> EngineError {
    EngineError::invalid("write all_users('namespace.table'), with the table's name as a text")
}

/// The text that an argument is, written as a table's name has to be: plainly, so that it is found without planning.
pub(crate) fn plain_text(arg: &FunctionArg) -> Option<&str> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// The table that a function's one argument, a text, names.
fn named(args: &[FunctionArg]) -> Option<TableName> {
    match args {
        [arg] => plain_text(arg).and_then(TableName::of_text),
        _ => None,
    }
}

struct Relations {
    found: Vec<TableName>,
    ctes: Ctes<()>,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.ctes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.ctes.leave(());
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let found = match factor {
            TableFactor::Table { name, args: None, .. } if self.ctes.find(name).is_none() => {
                TableName::parse(name).ok()
            }
            TableFactor::Table { name, args: Some(TableFunctionArgs { args, .. }), .. }
            | TableFactor::Function { name, args, .. }
                if takes_times(name) =>
            {
                args.first().and_then(|table| named(std::slice::from_ref(table)))
            }
            _ => None,
        };
        if let Some(name) = found.filter(|name| !self.found.contains(name)) {
            self.found.push(name);
        }
        ControlFlow::Continue(())
    }
}

struct Find<'a> {
    name: &'a str,
}

impl Find<'_> {
    fn ident(&self, ident: &Ident) -> ControlFlow<()> {
        if fold(ident) == self.name { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn object(&self, name: &ObjectName) -> ControlFlow<()> {
        name.0.iter().filter_map(|part| part.as_ident()).try_for_each(|ident| self.ident(ident))
    }

    fn wildcard(&self, options: &WildcardAdditionalOptions) -> ControlFlow<()> {
        match &options.opt_exclude {
            Some(ExcludeSelectItem::Single(name)) => self.object(name)?,
            Some(ExcludeSelectItem::Multiple(names)) => names.iter().try_for_each(|name| self.object(name))?,
            None => {}
        }
        if let Some(except) = &options.opt_except {
            self.ident(&except.first_element)?;
            except.additional_elements.iter().try_for_each(|ident| self.ident(ident))?;
        }
        match &options.opt_replace {
            Some(replace) => replace.items.iter().try_for_each(|item| self.ident(&item.column_name)),
            None => ControlFlow::Continue(()),
        }
    }
}

impl Visitor for Find<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let TableFactor::NestedJoin { table_with_joins, .. } = factor else { return ControlFlow::Continue(()) };
        for join in &table_with_joins.joins {
            if let Some(JoinConstraint::Using(columns)) = constraint_of(join) {
                columns.iter().try_for_each(|column| self.object(column))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.ident(ident),
            Expr::CompoundIdentifier(parts) => parts.iter().try_for_each(|ident| self.ident(ident)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => self.wildcard(options)?,
                _ => {}
            }
        }
        for join in select.from.iter().flat_map(|table| &table.joins) {
            if let Some(JoinConstraint::Using(columns)) = constraint_of(join) {
                columns.iter().try_for_each(|column| self.object(column))?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// By what a join joins; `None` = one that says nothing of it.
pub(crate) fn constraint_of(join: &Join) -> Option<&JoinConstraint> {
    match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => Some(constraint),
        _ => None,
    }
}

/// Whether a query is another one when a table that it reads has not this column, or calls it something else: it names the column,
/// or all of a table's.
pub(crate) fn depends_on_column(query: &Query, name: &str) -> bool {
    query.visit(&mut Find { name }).is_break() || joins_naturally(query) || query.visit(&mut NamesAll).is_break()
}

/// Whether a join is on all columns of one name.
pub(crate) fn is_natural(join: &Join) -> bool {
    matches!(constraint_of(join), Some(JoinConstraint::Natural))
}

/// Whether a query has a NATURAL JOIN.
pub(crate) fn joins_naturally(query: &Query) -> bool {
    struct Naturally;
    impl Naturally {
        fn of(joins: &[Join]) -> ControlFlow<()> {
            match joins.iter().any(is_natural) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    impl Visitor for Naturally {
        type Break = ();

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            select.from.iter().try_for_each(|table| Self::of(&table.joins))
        }

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            match factor {
                TableFactor::NestedJoin { table_with_joins, .. } => Self::of(&table_with_joins.joins),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    query.visit(&mut Naturally).is_break()
}

struct NamesAll;

impl Visitor for NamesAll {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let is_wildcard =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        match select.projection.iter().any(is_wildcard) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { alias: Some(alias), .. } if !alias.columns.is_empty() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match &*query.body {
            SetExpr::Table(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}
