//! `all_users('ns.t')`: the rows of a user or stream table of all users, each with its user's name.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

use super::ScopeTable;

/// The column that says whose a row is; the last one.
pub(crate) const USER_COLUMN: &str = "_user";

/// Scopes of one table as one table.
#[derive(Debug)]
pub(crate) struct EveryonesTable {
    scopes: Vec<(String, ScopeTable)>,
    schema: SchemaRef,
}

impl EveryonesTable {
    /// `scopes`: by the names of their users. `schema`: that of each of them.
    pub(crate) fn new(scopes: Vec<(String, ScopeTable)>, schema: &SchemaRef) -> Self {
        Self { scopes, schema: with_user(schema) }
    }
}

/// The columns of a table of one user, and whose the row is.
fn with_user(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<FieldRef> = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(USER_COLUMN, DataType::Utf8, false)));
    Arc::new(Schema::new(fields))
}

#[async_trait]
impl TableProvider for EveryonesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let user_at = self.schema.fields().len() - 1;
        let wanted = projection.cloned().unwrap_or_else(|| (0..=user_at).collect());
        let stored: Vec<usize> = wanted.iter().copied().filter(|column| *column != user_at).collect();
        // Who a row belongs to is not in it.
        let of_row = |filter: &&Expr| filter.column_refs().iter().all(|column| column.name != USER_COLUMN);
        let filters: Vec<Expr> = filters.iter().filter(of_row).cloned().collect();
        let mut plans = Vec::with_capacity(self.scopes.len());
        for (user, scope) in &self.scopes {
            let rows = scope.scan(state, Some(&stored), &filters, limit).await?;
            plans.push(self.named(user, &wanted, rows)?);
        }
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?)))),
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}

impl EveryonesTable {
    /// Rows of one user with that one's name, in the order of the wanted columns.
    fn named(&self, user: &str, wanted: &[usize], rows: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut stored = 0;
        let columns = wanted.iter().map(|column| {
            let name = self.schema.field(*column).name().clone();
            let column: Arc<dyn PhysicalExpr> = match name == USER_COLUMN {
                true => Arc::new(Literal::new(ScalarValue::Utf8(Some(user.to_owned())))),
                false => {
                    stored += 1;
                    Arc::new(Column::new(&name, stored - 1))
                }
            };
            (column, name)
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), rows)?))
    }
}
