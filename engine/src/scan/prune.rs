//! Which files can hold rows that filters let pass, by what the records say of them. Nothing is read here.
//!
//! The rules are DataFusion's: a filter becomes one over the bounds of files ([`PruningPredicate`]), and says of each file
//! that no row can match, or that one may. What is unknown may match. Equalities become hashes for the files' Bloom filters.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column as PhysicalColumn, Literal};
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use datafusion::physical_expr::{PhysicalExpr, conjunction, create_physical_expr};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use seracdb_storage::bloom::{self, FileFilters};
use seracdb_storage::catalog::TableRecord;
use seracdb_storage::file_index::{FileBounds, FileIndex, name_in_file};
use seracdb_storage::records::BatchRecord;
use seracdb_storage::system_columns::{self, DELETED_COLUMN_ID};

use crate::engine::PruningConfig;

/// Values of an IN list that are compared one by one with the bounds; of a longer one, the least and the greatest are.
const IN_LIST_MAX: usize = 100;

/// What filters ask of files.
#[derive(Debug, Default)]
pub(super) struct FileFilter {
    predicates: Vec<Arc<PruningPredicate>>,
    keys: Vec<KeyTest>,
}

/// A column that must have one of some values.
#[derive(Debug)]
struct KeyTest {
    column: u32,
    data_type: DataType,
    hashes: Vec<u64>,
}

impl FileFilter {
    /// What these filters ask. One that cannot be understood asks nothing.
    pub(super) fn of(filters: &[Expr], table: &TableRecord, props: &ExecutionProps, used: PruningConfig) -> Self {
        let schema = table.schema().full();
        let Ok(names) = DFSchema::try_from(Arc::clone(&schema)) else { return Self::default() };
        let context = PhysicalPlanningContext::default();
        let physical = |filter| create_physical_expr(filter, &names, props, &context).ok();
        let terms: Vec<Arc<dyn PhysicalExpr>> = filters.iter().filter_map(physical).collect();
        if terms.is_empty() {
            return Self::default();
        }
        let predicate = conjunction(terms);
        let guarantees = LiteralGuarantee::analyze(&predicate);
        let guarantees: Vec<_> = guarantees.iter().filter(|known| known.guarantee == Guarantee::In).collect();
        let mut predicates = Vec::new();
        if used.bounds {
            predicates.extend(pruning(predicate, &schema));
            for known in guarantees.iter().filter(|known| known.literals.len() > IN_LIST_MAX) {
                predicates.extend(range(known, &schema).and_then(|range| pruning(range, &schema)));
            }
        }
        let keys = guarantees.iter().filter(|_| used.bloom).filter_map(|known| KeyTest::of(known, table, &schema));
        Self { predicates, keys: keys.collect() }
    }

    /// Whether it can rule out files by their Bloom filters.
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Of each file, whether its bounds allow a match.
    pub(super) fn by_bounds(&self, table: &TableRecord, files: &FileIndex) -> Vec<bool> {
        let mut kept = vec![true; files.len()];
        let bounds = Bounds { table, files };
        for predicate in &self.predicates {
            match predicate.prune(&bounds) {
                Ok(possible) => kept.iter_mut().zip(possible).for_each(|(kept, possible)| *kept &= possible),
                Err(error) => tracing::debug!(%error, "a predicate does not fit the files' bounds"),
            }
        }
        kept
    }

    /// Asks the Bloom filters of a file until one says no.
    pub(super) fn by_filters(&self, table: &TableRecord, record: &BatchRecord, filters: &FileFilters) -> Verdict {
        let mut tests = 0;
        for key in &self.keys {
            let Some(filter) = filters.column(key.column) else { continue };
            if name_in_file(table, record, key.column, &key.data_type).is_none() {
                continue;
            }
            tests += 1;
            if !key.hashes.iter().any(|hash| filter.may_contain(*hash)) {
                return Verdict { tests, may_match: false };
            }
        }
        Verdict { tests, may_match: true }
    }
}

/// What a file's Bloom filters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How many were asked.
    pub tests: u64,
    /// False: no row can match.
    pub may_match: bool,
}

impl KeyTest {
    /// `None` when a filter could not answer for one of the values.
    fn of(known: &LiteralGuarantee, table: &TableRecord, schema: &SchemaRef) -> Option<Self> {
        let name = known.column.name.as_str();
        let column = bloom::column_id(table, name)?;
        let data_type = schema.field_with_name(name).ok()?.data_type().clone();
        let mut hashes = Vec::with_capacity(known.literals.len());
        for literal in known.literals.iter().filter(|literal| !literal.is_null()) {
            let type_of = literal.data_type();
            if type_of != data_type && !(type_of.is_string() && data_type.is_string()) {
                return None;
            }
            let keys = bloom::key_hashes(&literal.to_array().ok()?)?;
            if keys.nan {
                return None;
            }
            hashes.extend(keys.hashes);
        }
        Some(Self { column, data_type, hashes })
    }
}

fn pruning(predicate: Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Option<Arc<PruningPredicate>> {
    PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(schema))
        .with_max_in_list_size(IN_LIST_MAX)
        .build(predicate)
}

/// `least <= column AND column <= greatest` of the values that a column must have one of.
fn range(known: &LiteralGuarantee, schema: &SchemaRef) -> Option<Arc<dyn PhysicalExpr>> {
    let extreme = |wanted: Ordering| -> Option<&ScalarValue> {
        let mut values = known.literals.iter().filter(|literal| !literal.is_null());
        let first = values.next()?;
        values.try_fold(first, |best, value| Some(if value.partial_cmp(best)? == wanted { value } else { best }))
    };
    let index = schema.index_of(&known.column.name).ok()?;
    let compared = |op, value: &ScalarValue| -> Arc<dyn PhysicalExpr> {
        let column = Arc::new(PhysicalColumn::new(&known.column.name, index));
        Arc::new(BinaryExpr::new(column, op, Arc::new(Literal::new(value.clone()))))
    };
    let least = compared(Operator::GtEq, extreme(Ordering::Less)?);
    let greatest = compared(Operator::LtEq, extreme(Ordering::Greater)?);
    Some(conjunction([least, greatest]))
}

/// The records' bounds as DataFusion asks for them.
struct Bounds<'a> {
    table: &'a TableRecord,
    files: &'a FileIndex,
}

impl Bounds<'_> {
    fn of(&self, column: &Column) -> Option<Arc<FileBounds>> {
        let name = column.name.as_str();
        let id = match name {
            system_columns::DELETED => DELETED_COLUMN_ID,
            _ => bloom::column_id(self.table, name)?,
        };
        let schema = self.table.schema().full();
        Some(self.files.bounds(self.table, id, schema.field_with_name(name).ok()?.data_type()))
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(Arc::clone(&self.of(column)?.min))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(Arc::clone(&self.of(column)?.max))
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        Some(Arc::clone(&self.of(column)?.null_counts))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(self.files.row_counts())
    }

    /// Bloom filters are asked later, and only of files that the bounds leave.
    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
