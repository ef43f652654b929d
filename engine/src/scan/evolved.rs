//! Columns of batch files as those that their table has now, also where it was altered since.
//!
//! What asks for a column of the table is rewritten for each file: to the column of the same id there, cast where the type has
//! become wider, or to the value that rows have which were written before the column was there. So filters go into the file as
//! they are, and prune in it. DataFusion's own adapter finds columns by name, and casts them also where only the field says
//! something else; of a filter on a part of a struct that is cast nothing would be left.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use seracdb_storage::catalog::TableRecord;

use super::external;
use crate::error::{EngineError, Result};

/// The user columns of a table, by name.
#[derive(Debug)]
pub(super) struct EvolvedColumns(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    id: String,
    /// In files that are older than it.
    initial: ScalarValue,
}

impl EvolvedColumns {
    /// Errors: an initial value is damaged.
    pub(super) fn of(table: &TableRecord) -> Result<Arc<dyn PhysicalExprAdapterFactory>> {
        let mut known = HashMap::new();
        for column in &table.schema().columns {
            let initial = ScalarValue::try_from_array(&column.initial_value()?, 0);
            let initial = initial.map_err(|error| EngineError::internal(error.to_string()))?;
            known.insert(column.name.clone(), Known { id: column.id.to_string(), initial });
        }
        Ok(Arc::new(Self(known)))
    }

    /// The place of a column in a file; `None` = it is not there.
    fn place(&self, name: &str, file: &SchemaRef) -> Option<usize> {
        match self.0.get(name) {
            Some(known) => file.fields().iter().position(|field| field_id(field) == Some(&known.id)),
            // The system's.
            None => file.index_of(name).ok(),
        }
    }

    fn expr(&self, field: &Field, file: &SchemaRef) -> DfResult<Arc<dyn PhysicalExpr>> {
        if let Some(place) = self.place(field.name(), file) {
            let found = file.field(place);
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(found.name(), place));
            return Ok(match found.data_type() == field.data_type() {
                true => column,
                false => Arc::new(CastExpr::new_with_target_field(column, Arc::new(field.clone()), None)),
            });
        }
        let missing = || external(EngineError::internal(format!("a batch file has no column '{}'", field.name())));
        let value = self.0.get(field.name()).map(|known| known.initial.clone()).ok_or_else(missing)?;
        Ok(Arc::new(Literal::new_with_metadata(value, Some(FieldMetadata::from(field)))))
    }
}

fn field_id(field: &Field) -> Option<&String> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)
}

impl PhysicalExprAdapterFactory for EvolvedColumns {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> DfResult<Arc<dyn PhysicalExprAdapter>> {
        let exprs = table.fields().iter().map(|field| Ok((field.name().clone(), self.expr(field, &file)?)));
        Ok(Arc::new(OfFile(exprs.collect::<DfResult<_>>()?)))
    }
}

/// What each column of the table is in one file.
#[derive(Debug)]
struct OfFile(HashMap<String, Arc<dyn PhysicalExpr>>);

impl PhysicalExprAdapter for OfFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let rewritten = expr.transform_down(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            let unknown = || external(EngineError::internal(format!("a table has no column '{}'", column.name())));
            let of_file = self.0.get(column.name()).cloned().ok_or_else(unknown)?;
            // Its columns are the file's.
            Ok(Transformed::new(of_file, true, datafusion::common::tree_node::TreeNodeRecursion::Jump))
        });
        rewritten.data()
    }
}
