//! `SELECT 1, 1`: columns of one name in a result.
//!
//! DataFusion wants the items of a select list to differ in their names, also where nobody asks for those (`INSERT INTO t
//! SELECT x, CAST(x AS TEXT)`). An item it complains about gets a name of ours, and the result its old one back, told from
//! the others by a qualifier that no client sees.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{SchemaError, TableReference};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr};

use crate::sql::names::{fold, quoted};

/// Items that are named anew at most: each costs a plan.
const RENAMED_MAX: usize = 100;

/// Plans a query, with same names allowed in its outermost select list. `plan`: plans it as it is.
pub(crate) fn plan_with_same_names<T>(
    query: &Query,
    plan: impl Fn(&Query) -> DfResult<T>,
    plan_of: impl Fn(&mut T) -> &mut LogicalPlan,
) -> DfResult<T> {
    let plan = |query: &Query| {
        let mut planned = plan(query)?;
        plan_of(&mut planned).schema().check_names()?;
        Ok(planned)
    };
    let mut error = match plan(query) {
        Err(error) if clash(&error, query).is_some() => error,
        planned => return planned,
    };
    let mut query = query.clone();
    let mut renamed = Renamed::default();
    for _ in 0..RENAMED_MAX {
        let Some(position) = clash(&error, &query) else { return Err(error) };
        if !renamed.rename(&mut query.body, position) {
            return Err(error);
        }
        error = match plan(&query) {
            Err(error) => error,
            Ok(mut planned) => {
                let plan = plan_of(&mut planned);
                *plan = renamed.restore(std::mem::take(plan))?;
                return Ok(planned);
            }
        };
    }
    Err(error)
}

/// The position of an item whose name another one has.
fn clash(error: &DataFusionError, query: &Query) -> Option<usize> {
    match error.find_root() {
        DataFusionError::Plan(text) if text.contains("require unique expression names") => {
            let (_, after) = text.rsplit_once("at position ")?;
            after.split(' ').next()?.parse().ok()
        }
        // `SELECT upper(name) AS name, t.name`: a name with a table and one without.
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::AmbiguousReference { field } => {
                let SetExpr::Select(select) = query.body.as_ref() else { return None };
                select.projection.iter().position(
                    |item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == field.name),
                )
            }
            _ => None,
        },
        _ => None,
    }
}

/// The items that have a name of ours.
#[derive(Default)]
struct Renamed {
    /// The name it had, when it was given one.
    items: HashMap<String, Option<String>>,
}

impl Renamed {
    /// Names the item at this position in each SELECT of a query; whether there was one.
    fn rename(&mut self, body: &mut SetExpr, position: usize) -> bool {
        match body {
            SetExpr::Select(select) => {
                // After a wildcard the positions are not known.
                let known = select
                    .projection
                    .iter()
                    .take(position + 1)
                    .all(|item| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }));
                match select.projection.get_mut(position) {
                    Some(item) if known => self.rename_item(item, position),
                    _ => false,
                }
            }
            SetExpr::SetOperation { left, right, .. } => {
                let left = self.rename(left, position);
                self.rename(right, position) || left
            }
            SetExpr::Query(query) => self.rename(&mut query.body, position),
            _ => false,
        }
    }

    fn rename_item(&mut self, item: &mut SelectItem, position: usize) -> bool {
        let name = format!("__same_name_{position}");
        let (expr, given) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), None),
            SelectItem::ExprWithAlias { alias, .. } if alias.value == name => return false,
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(fold(alias))),
            _ => return false,
        };
        *item = SelectItem::ExprWithAlias { expr, alias: quoted(&name) };
        // The first SELECT of a UNION gives the names.
        self.items.entry(name).or_insert(given);
        true
    }

    /// The plan with the names that were wanted.
    fn restore(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let mut wanted: HashMap<String, String> = HashMap::new();
        for (name, given) in &self.items {
            if let Some(given) = given {
                wanted.insert(name.clone(), given.clone());
            }
        }
        plan.apply(|node| {
            node.apply_expressions(|expr| {
                if let Expr::Alias(alias) = expr
                    && self.items.contains_key(&alias.name)
                {
                    let name = alias.expr.qualified_name().1;
                    wanted.entry(alias.name.clone()).or_insert(name);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        let columns = plan.schema().columns();
        let names: Vec<&str> =
            columns.iter().map(|column| wanted.get(&column.name).unwrap_or(&column.name).as_str()).collect();
        let items = columns.iter().zip(&names).enumerate().map(|(i, (column, name))| {
            let expr = Expr::Column(column.clone());
            // A name of two columns, or one with a dot in it, is told from the others by a qualifier.
            match names.iter().filter(|other| *other == name).count() {
                1 if column.name == *name => expr,
                _ => expr.alias_qualified(Some(TableReference::bare(format!("__column_{i}"))), *name),
            }
        });
        let items: Vec<Expr> = items.collect();
        LogicalPlanBuilder::from(plan).project(items)?.build()
    }
}
