//! Columns of batch files as those that their table has now, also where it was altered since.
//!
//! What asks for a column of the table is rewritten for each file: to the column of the same id there, cast where the type has
//! become wider, or to the value that rows have which were written before the column was there. So filters go into the file as
//! they are, and prune in it. DataFusion's own adapter finds columns by name.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use seracdb_storage::catalog::TableRecord;

use crate::error::{EngineError, Result};

/// The user columns of a table, by name.
#[derive(Debug)]
pub(super) struct EvolvedColumns(Arc<HashMap<String, Known>>);

#[derive(Debug)]
struct Known {
    id: u32,
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
            known.insert(column.name.clone(), Known { id: column.id, initial });
        }
        Ok(Arc::new(Self(Arc::new(known))))
    }
}

impl PhysicalExprAdapterFactory for EvolvedColumns {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> DfResult<Arc<dyn PhysicalExprAdapter>> {
        let id = |field: &Field| field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok();
        let places = file.fields().iter().enumerate().filter_map(|(place, field)| Some((id(field)?, place))).collect();
        Ok(Arc::new(OfFile { known: Arc::clone(&self.0), places, table, file }))
    }
}

/// What columns of the table are in one file.
#[derive(Debug)]
struct OfFile {
    known: Arc<HashMap<String, Known>>,
    /// By column id.
    places: HashMap<u32, usize>,
    table: SchemaRef,
    file: SchemaRef,
}

impl OfFile {
    fn column(&self, name: &str) -> DfResult<Arc<dyn PhysicalExpr>> {
        let field = self.table.field_with_name(name)?;
        let known = self.known.get(name);
        let place = match known {
            Some(known) => self.places.get(&known.id).copied(),
            // The system's.
            None => Some(self.file.index_of(name)?),
        };
        if let Some(place) = place {
            let found = self.file.field(place);
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(found.name(), place));
            return Ok(match found.data_type() == field.data_type() {
                true => column,
                false => Arc::new(CastExpr::new_with_target_field(column, Arc::new(field.clone()), None)),
            });
        }
        let value = known.map_or(ScalarValue::Null, |known| known.initial.clone());
        Ok(Arc::new(Literal::new_with_metadata(value, Some(FieldMetadata::from(field)))))
    }
}

impl PhysicalExprAdapter for OfFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let rewritten = expr.transform_down(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            // Its columns are the file's.
            Ok(Transformed::new(self.column(column.name())?, true, TreeNodeRecursion::Jump))
        });
        rewritten.data()
    }
}
