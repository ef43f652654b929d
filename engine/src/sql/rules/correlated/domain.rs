//! A correlated scalar subquery as a join, whatever its reference to the outer row.
//!
//! The distinct values of the outer columns that it refers to are the rows of a table of their own. The subquery is
//! computed for all of them at once, and its result is joined with the outer rows:
//! ```text
//! SELECT a, (SELECT count(*) FROM other WHERE k > a) FROM t
//!
//! SELECT t.a, coalesce(s.n, 0) FROM t LEFT JOIN (
//!     SELECT d.a, count(*) AS n FROM other, (SELECT DISTINCT a FROM t) AS d WHERE k > d.a GROUP BY d.a
//! ) AS s ON t.a IS NOT DISTINCT FROM s.a
//! ```
//! (Neumann and Kemper, Unnesting Arbitrary Queries, 2015.) A plan with another operator than those below is left to
//! DataFusion, which then says that it has no plan.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Aggregate, FetchType, Limit, SkipType, Subquery, Union};
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, binary_expr, lit, when,
};
use datafusion::logical_expr::{Operator, SortExpr};

/// The outer rows with the subquery's value, and the column it is in; `None` where there is no such plan.
/// `number`: distinguishes this join's columns from others'.
pub(super) fn join_with_outer_rows(
    outer: &LogicalPlan,
    subquery: &Subquery,
    number: usize,
) -> DfResult<Option<(LogicalPlan, Column)>> {
    let Some(domain) = Domain::new(outer, subquery, number)? else { return Ok(None) };
    let (qualifier, field) = subquery.subquery.schema().qualified_field(0);
    let value = Expr::Column(Column::from((qualifier, field)));
    let Some(computed) = domain.depend(&subquery.subquery)? else { return Ok(None) };
    let alias = format!("__subquery_{number}");
    let value_name = format!("{alias}_value");
    let keys = computed.keys.iter().enumerate();
    let keys = keys.map(|(i, key)| Expr::Column(key.clone()).alias(domain.name(i)));
    let values = LogicalPlanBuilder::from(computed.plan)
        .project(keys.chain([value.alias(&value_name)]))?
        .alias(alias.clone())?
        .build()?;
    let on = domain.outer.iter().enumerate().map(|(i, column)| {
        same(Expr::Column(column.clone()), Expr::Column(Column::new(Some(alias.clone()), domain.name(i))))
    });
    let joined = LogicalPlanBuilder::from(outer.clone()).join_on(values, JoinType::Left, on)?.build()?;
    Ok(Some((joined, Column::new(Some(alias), value_name))))
}

fn same(left: Expr, right: Expr) -> Expr {
    binary_expr(left, Operator::IsNotDistinctFrom, right)
}

/// The outer columns a subquery refers to, and their distinct values.
struct Domain {
    number: usize,
    outer: Vec<Column>,
    /// The distinct values, in columns called [`Domain::name`].
    values: LogicalPlan,
    /// How many aggregates without GROUP BY there were.
    aggregates: Cell<usize>,
}

/// A plan computed for every row of the domain.
struct Computed {
    plan: LogicalPlan,
    /// The columns of `plan` that hold the domain's row.
    keys: Vec<Column>,
}

impl Domain {
    fn new(outer: &LogicalPlan, subquery: &Subquery, number: usize) -> DfResult<Option<Self>> {
        let mut columns: Vec<Column> = vec![];
        subquery.subquery.apply(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    if let Expr::OuterReferenceColumn(_, column) = expr
                        && !columns.contains(column)
                    {
                        columns.push(column.clone());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        // A reference to a query further out is not to be solved here.
        if columns.is_empty() || columns.iter().any(|column| !outer.schema().has_column(column)) {
            return Ok(None);
        }
        let mut domain = Self { number, outer: columns, values: outer.clone(), aggregates: Cell::new(0) };
        let items = domain.outer.iter().enumerate();
        let items: Vec<Expr> = items.map(|(i, column)| Expr::Column(column.clone()).alias(domain.name(i))).collect();
        domain.values = LogicalPlanBuilder::from(outer.clone()).project(items)?.distinct()?.build()?;
        Ok(Some(domain))
    }

    fn name(&self, column: usize) -> String {
        format!("__outer_{}_{column}", self.number)
    }

    /// The domain's values under a name.
    fn aliased(&self, alias: &str) -> DfResult<Computed> {
        let plan = LogicalPlanBuilder::from(self.values.clone()).alias(alias)?.build()?;
        let keys = plan.schema().columns();
        Ok(Computed { plan, keys })
    }

    /// The plan for every row of the domain. It has the plan's columns too.
    fn depend(&self, plan: &LogicalPlan) -> DfResult<Option<Computed>> {
        if !refers_outside(plan)? {
            let domain = self.aliased(&format!("__outer_{}", self.number))?;
            let plan = LogicalPlanBuilder::from(plan.clone()).cross_join(domain.plan)?.build()?;
            return Ok(Some(Computed { plan, keys: domain.keys }));
        }
        match plan {
            LogicalPlan::Filter(_) | LogicalPlan::Sort(_) => self.same_node(plan),
            LogicalPlan::Distinct(Distinct::All(_)) => self.same_node(plan),
            LogicalPlan::Projection(_) => self.projection(plan),
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = self.depend(&alias.input)? else { return Ok(None) };
                let plan = LogicalPlanBuilder::from(input.plan).alias(alias.alias.clone())?.build()?;
                let keys = input.keys.into_iter().map(|key| Column::new(Some(alias.alias.clone()), key.name));
                Ok(Some(Computed { plan, keys: keys.collect() }))
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(plan, aggregate),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Join(_) => self.join(plan),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Window(_) => self.window(plan),
            _ => Ok(None),
        }
    }

    /// A node that hands the columns of its one input on.
    fn same_node(&self, plan: &LogicalPlan) -> DfResult<Option<Computed>> {
        let Some(input) = self.depend(plan.inputs()[0])? else { return Ok(None) };
        let Some(exprs) = self.expressions(plan, &input.keys)? else { return Ok(None) };
        let plan = plan.with_new_exprs(exprs, vec![input.plan])?;
        Ok(Some(Computed { plan, keys: input.keys }))
    }

    fn projection(&self, plan: &LogicalPlan) -> DfResult<Option<Computed>> {
        let Some(input) = self.depend(plan.inputs()[0])? else { return Ok(None) };
        let Some(exprs) = self.expressions(plan, &input.keys)? else { return Ok(None) };
        let keys = input.keys.iter().cloned().map(Expr::Column);
        let plan = LogicalPlanBuilder::from(input.plan).project(exprs.into_iter().chain(keys))?.build()?;
        Ok(Some(Computed { plan, keys: input.keys }))
    }

    fn join(&self, plan: &LogicalPlan) -> DfResult<Option<Computed>> {
        let LogicalPlan::Join(join) = plan else { return Ok(None) };
        let (in_left, in_right) = (refers_outside(&join.left)?, refers_outside(&join.right)?);
        let from_left = match (join.join_type, in_left, in_right) {
            (_, true, true) => return Ok(None),
            (JoinType::Inner, _, false) | (JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti, _, false) => true,
            (JoinType::Inner | JoinType::Right, false, true) => false,
            _ => return Ok(None),
        };
        let depending = if from_left { &join.left } else { &join.right };
        let Some(input) = self.depend(depending)? else { return Ok(None) };
        let Some(exprs) = self.expressions(plan, &input.keys)? else { return Ok(None) };
        let inputs = match from_left {
            true => vec![input.plan, join.right.as_ref().clone()],
            false => vec![join.left.as_ref().clone(), input.plan],
        };
        Ok(Some(Computed { plan: plan.with_new_exprs(exprs, inputs)?, keys: input.keys }))
    }

    /// A window is one of the rows of one row of the domain.
    fn window(&self, plan: &LogicalPlan) -> DfResult<Option<Computed>> {
        let Some(input) = self.depend(plan.inputs()[0])? else { return Ok(None) };
        let Some(exprs) = self.expressions(plan, &input.keys)? else { return Ok(None) };
        let names = NamePreserver::new(plan);
        let exprs = exprs.into_iter().map(|expr| {
            let name = names.save(&expr);
            let partitioned = expr.transform_up(|expr| match expr {
                Expr::WindowFunction(mut function) => {
                    let keys = input.keys.iter().cloned().map(Expr::Column);
                    function.params.partition_by.extend(keys);
                    Ok(Transformed::yes(Expr::WindowFunction(function)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(name.restore(partitioned.data))
        });
        let exprs = exprs.collect::<DfResult<Vec<_>>>()?;
        let plan = LogicalPlanBuilder::from(input.plan).window(exprs)?.build()?;
        Ok(Some(Computed { plan, keys: input.keys }))
    }

    /// Branches match by position: each has the union's columns, then the domain's.
    fn union(&self, union: &Union) -> DfResult<Option<Computed>> {
        let mut whole: Option<LogicalPlanBuilder> = None;
        for input in &union.inputs {
            let columns = input.schema().columns();
            let Some(branch) = self.depend(input)? else { return Ok(None) };
            let values = columns.into_iter().zip(union.schema.fields());
            let values = values.map(|(column, field)| Expr::Column(column).alias(field.name()));
            let keys = branch.keys.into_iter().enumerate().map(|(i, key)| Expr::Column(key).alias(self.name(i)));
            let branch = LogicalPlanBuilder::from(branch.plan).project(values.chain(keys))?;
            whole = Some(match whole {
                Some(before) => before.union(branch.build()?)?,
                None => branch,
            });
        }
        let Some(whole) = whole else { return Ok(None) };
        // Under the names that the nodes above use.
        let values = union.schema.iter().map(|(qualifier, field)| {
            Expr::Column(Column::new_unqualified(field.name())).alias_qualified(qualifier.cloned(), field.name())
        });
        let table = format!("__union_{}", self.number);
        let keys: Vec<Column> =
            (0..self.outer.len()).map(|i| Column::new(Some(table.as_str()), self.name(i))).collect();
        let named = keys.iter().map(|key| {
            Expr::Column(Column::new_unqualified(&key.name)).alias_qualified(key.relation.clone(), &key.name)
        });
        let plan = whole.project(values.chain(named))?.build()?;
        Ok(Some(Computed { plan, keys }))
    }

    fn aggregate(&self, plan: &LogicalPlan, aggregate: &Aggregate) -> DfResult<Option<Computed>> {
        if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return Ok(None);
        }
        let Some(input) = self.depend(&aggregate.input)? else { return Ok(None) };
        let Some(exprs) = self.expressions(plan, &input.keys)? else { return Ok(None) };
        let (group, aggregates) = exprs.split_at(aggregate.group_expr.len());
        let keys = input.keys.iter().cloned().map(Expr::Column);
        let group: Vec<Expr> = group.iter().cloned().chain(keys).collect();
        if !aggregate.group_expr.is_empty() {
            let plan = LogicalPlanBuilder::from(input.plan).aggregate(group, aggregates.to_vec())?.build()?;
            return Ok(Some(Computed { plan, keys: input.keys }));
        }
        self.aggregate_of_all(aggregate, input, group, aggregates)
    }

    /// An aggregate without GROUP BY has a row where nothing is aggregated too.
    fn aggregate_of_all(
        &self,
        aggregate: &Aggregate,
        input: Computed,
        group: Vec<Expr>,
        aggregates: &[Expr],
    ) -> DfResult<Option<Computed>> {
        let rows = format!("__rows_{}", self.number);
        let rows_column = Expr::Column(Column::new_unqualified(&rows));
        let counted = aggregates.iter().cloned().chain([count_udaf().call(vec![lit(1_i64)]).alias(&rows)]);
        let grouped = LogicalPlanBuilder::from(input.plan).aggregate(group, counted)?.build()?;
        // An aggregate of an aggregate is joined with them again.
        let level = self.aggregates.replace(self.aggregates.get() + 1);
        let all = self.aliased(&format!("__outer_{}_all_{level}", self.number))?;
        let on = all.keys.iter().zip(&input.keys);
        let on = on.map(|(left, right)| same(Expr::Column(left.clone()), Expr::Column(right.clone())));
        let mut items = vec![];
        for (i, expr) in aggregate.aggr_expr.iter().enumerate() {
            let (qualifier, field) = aggregate.schema.qualified_field(i);
            let column = Column::from((qualifier, field));
            let Some(empty) = value_of_nothing(expr, aggregate)? else { return Ok(None) };
            let value = Expr::Column(column.clone());
            items.push(when(rows_column.clone().is_null(), empty).otherwise(value)?.alias(column.name));
        }
        items.extend(all.keys.iter().cloned().map(Expr::Column));
        let plan = LogicalPlanBuilder::from(all.plan).join_on(grouped, JoinType::Left, on)?.project(items)?.build()?;
        Ok(Some(Computed { plan, keys: all.keys }))
    }

    /// LIMIT counts the rows of each row of the domain.
    fn limit(&self, limit: &Limit) -> DfResult<Option<Computed>> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(None);
        };
        // The rows may be sorted by what is not selected.
        if let LogicalPlan::Projection(projection) = limit.input.as_ref()
            && matches!(projection.input.as_ref(), LogicalPlan::Sort(_))
        {
            let inside = LogicalPlan::Limit(Limit { input: Arc::clone(&projection.input), ..limit.clone() });
            return self.projection(&limit.input.with_new_exprs(projection.expr.clone(), vec![inside])?);
        }
        let (order, input): (&[SortExpr], _) = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (&sort.expr, &sort.input),
            _ => (&[], &limit.input),
        };
        if order.iter().any(|sort| sort.expr.contains_outer()) {
            return Ok(None);
        }
        let columns = input.schema().columns();
        let Some(input) = self.depend(input)? else { return Ok(None) };
        let keys: Vec<Expr> = input.keys.iter().cloned().map(Expr::Column).collect();
        let number = format!("__row_{}", self.number);
        let numbered = Expr::from(WindowFunction::new(row_number_udwf(), vec![])).partition_by(keys.clone());
        let numbered = if order.is_empty() { numbered } else { numbered.order_by(order.to_vec()) };
        let numbered = numbered.build()?.alias(&number);
        let number = Expr::Column(Column::new_unqualified(number));
        let mut wanted = number.clone().gt(lit(skip as u64));
        if let Some(fetch) = fetch {
            wanted = wanted.and(number.lt_eq(lit(skip.saturating_add(fetch) as u64)));
        }
        let plan = LogicalPlanBuilder::from(input.plan)
            .window(vec![numbered])?
            .filter(wanted)?
            .project(columns.into_iter().map(Expr::Column).chain(keys))?
            .build()?;
        Ok(Some(Computed { plan, keys: input.keys }))
    }

    /// The node's expressions with the domain's columns in place of the outer ones, under the same names.
    fn expressions(&self, plan: &LogicalPlan, keys: &[Column]) -> DfResult<Option<Vec<Expr>>> {
        let names = NamePreserver::new(plan);
        let mut solved = true;
        let exprs = plan.expressions().into_iter().map(|expr| {
            let name = names.save(&expr);
            let replaced = expr.transform_up(|expr| match &expr {
                Expr::OuterReferenceColumn(_, column) => match self.outer.iter().position(|outer| outer == column) {
                    Some(i) => Ok(Transformed::yes(Expr::Column(keys[i].clone()))),
                    None => {
                        solved = false;
                        Ok(Transformed::no(expr))
                    }
                },
                _ => Ok(Transformed::no(expr)),
            })?;
            Ok(match replaced.transformed {
                true => name.restore(replaced.data),
                false => replaced.data,
            })
        });
        let exprs = exprs.collect::<DfResult<Vec<_>>>()?;
        Ok(solved.then_some(exprs))
    }
}

/// Whether anything in the plan itself refers to an outer row. What its subqueries refer to is theirs.
pub(super) fn refers_outside(plan: &LogicalPlan) -> DfResult<bool> {
    plan.exists(|node| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found = found || expr.contains_outer();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    })
}

/// What an aggregate is of no rows.
fn value_of_nothing(expr: &Expr, aggregate: &Aggregate) -> DfResult<Option<Expr>> {
    match expr {
        Expr::Alias(alias) => value_of_nothing(&alias.expr, aggregate),
        Expr::AggregateFunction(function) => {
            let data_type = expr.get_type(aggregate.input.schema().as_ref())?;
            Ok(Some(lit(function.func.default_value(&data_type)?)))
        }
        _ => Ok(None),
    }
}
