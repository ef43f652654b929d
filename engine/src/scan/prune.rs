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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Array, Float64Array, StringArray};
    use datafusion::prelude::{col, lit};
    use seracdb_storage::bloom::BlockFilter;
    use seracdb_storage::catalog::TableKind;
    use seracdb_storage::keys::{BatchNumber, TableId};
    use seracdb_storage::records::{BatchKind, BatchStatus, ColumnBounds};
    use seracdb_storage::schema::{Column as StoredColumn, TableSchema};
    use seracdb_storage::system_columns::{CommitTs, FIRST_USER_COLUMN_ID};

    use super::*;

    const A: u32 = FIRST_USER_COLUMN_ID;
    const S: u32 = FIRST_USER_COLUMN_ID + 1;
    const F: u32 = FIRST_USER_COLUMN_ID + 2;

    /// `a BIGINT, s TEXT, f DOUBLE`; `f` came with version 2.
    fn table() -> TableRecord {
        let column = |id, name: &str, data_type| StoredColumn::new(id, name, data_type, true);
        let first = vec![column(A, "a", DataType::Int64), column(S, "s", DataType::Utf8)];
        let second = [first.clone(), vec![column(F, "f", DataType::Float64)]].concat();
        let first = TableSchema { version: 1, columns: first };
        let mut table = TableRecord::new(TableId(1), "app", "t", TableKind::Shared, first);
        table.schemas.push(TableSchema { version: 2, columns: second });
        table
    }

    /// Ten rows, two of them NULL in `a`.
    fn record(schema_version: u32, bounds: &str) -> BatchRecord {
        BatchRecord {
            batch_number: BatchNumber(1),
            file_path: "f".into(),
            kind: BatchKind::Flush,
            status: BatchStatus::Active,
            min_updated: CommitTs::stored(1),
            max_updated: CommitTs::stored(1),
            column_min_max: bounds_of(bounds),
            row_count: 10,
            size_bytes: 1,
            checksum: 0,
            schema_version,
            replaces: vec![],
            tombstones: 0,
            deletes: None,
            archived_at: None,
            since: None,
            bloom: None,
            unknown: Default::default(),
        }
    }

    /// `a 1 5 0; s b c 10`: column, least, greatest (`?` = unknown), number of NULLs.
    fn bounds_of(text: &str) -> BTreeMap<String, ColumnBounds> {
        let value = |word: &str| match word {
            "?" => None,
            _ => Some(serde_json::from_str(word).unwrap_or_else(|_| word.into())),
        };
        let column = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let (min, max, null_count) = (value(words[1]), value(words[2]), words[3].parse().unwrap());
            (words[0].to_owned(), ColumnBounds { min, max, null_count, exact: false })
        };
        text.split(';').filter(|text| !text.trim().is_empty()).map(column).collect()
    }

    fn filter(filters: &[Expr]) -> FileFilter {
        FileFilter::of(filters, &table(), &ExecutionProps::new(), PruningConfig::default())
    }

    fn kept(filters: &[Expr], files: &[&str]) -> String {
        let files = FileIndex::new(files.iter().map(|bounds| record(2, bounds)).collect());
        let kept = filter(filters).by_bounds(&table(), &files);
        kept.into_iter().map(|kept| if kept { '1' } else { '0' }).collect()
    }

    #[test]
    fn bounds_rule_out_what_cannot_match() {
        let files = ["a 1 5 0; s b c 0", "a 5 9 2; s cx d 0", "a ? ? 10; s ? ? 10", "", "a 9 1 0; s z a 0", "a ? 3 0"];
        let (a, s) = (|| col("a"), || col("s"));
        let many = |first: i64| (first..first + 150).map(lit).collect::<Vec<_>>();
        for (filters, expected) in [
            (vec![], "111111"),
            (vec![a().eq(lit(7i64))], "010110"),
            (vec![a().lt(lit(5i64))], "100111"),
            (vec![lit(5i64).gt(a())], "100111"),
            (vec![a().gt(lit(3i64))], "110110"),
            (vec![a().is_null()], "011100"),
            (vec![a().is_not_null()], "110111"),
            (vec![a().in_list(vec![lit(0i64), lit(20i64)], false)], "000111"),
            (vec![a().in_list(many(6), false)], "010110"),
            (vec![a().in_list(many(100), false)], "000110"),
            (vec![a().in_list(many(6), true)], "111111"),
            (vec![s().like(lit("b%"))], "100111"),
            (vec![s().like(lit("%b"))], "111111"),
            (vec![s().eq(lit("c")), a().gt(lit(0i64))], "100111"),
            (vec![s().eq(lit("c")).or(a().gt(lit(8i64)))], "110111"),
            (vec![col("unknown").eq(lit(1i64))], "111111"),
            (vec![col("unknown").eq(lit(1i64)), a().eq(lit(7i64))], "010110"),
        ] {
            assert_eq!(kept(&filters, &files), expected, "{filters:?}");
        }
    }

    #[test]
    fn zeros_are_one_and_other_schemas_unknown() {
        let zero = |text: f64| vec![col("f").eq(lit(text))];
        let files = ["f 0.0 1.0 0", "f -1.0 -0.0 0", "f 2.0 3.0 0"];
        assert_eq!((kept(&zero(0.0), &files), kept(&zero(-0.0), &files)), ("110".into(), "110".into()));
        let files = FileIndex::new(vec![record(1, "f 2.0 3.0 0"), record(2, "f 2.0 3.0 0")]);
        assert_eq!(filter(&zero(0.0)).by_bounds(&table(), &files), [true, false]);
    }

    #[test]
    fn filters_are_asked_for_equalities_only() {
        for (filters, keys) in [
            (vec![col("a").eq(lit(1i64))], 1),
            (vec![col("a").eq(lit(1i64)), col("s").eq(lit("x"))], 2),
            (vec![col("a").in_list((0..500i64).map(lit).collect(), false)], 1),
            (vec![col("a").eq(lit(1i64)).or(col("a").eq(lit(2i64)))], 1),
            (vec![col("a").eq(lit(1i64)).or(col("s").eq(lit("x")))], 0),
            (vec![col("a").in_list(vec![lit(1i64)], true)], 0),
            (vec![col("a").gt(lit(1i64))], 0),
            (vec![col("a").eq(lit(1i32))], 0),
            (vec![col("f").eq(lit(f64::NAN))], 0),
            (vec![col("f").eq(lit(1.0))], 1),
            (vec![col(system_columns::ID).eq(lit(1i64))], 1),
            (vec![col(system_columns::DELETED).eq(lit(true))], 0),
        ] {
            assert_eq!(filter(&filters).keys.len(), keys, "{filters:?}");
        }
    }

    #[test]
    fn one_no_is_enough() {
        let of = |values: Arc<dyn Array>| BlockFilter::of(bloom::key_hashes(&values).unwrap().hashes, 0.001);
        let texts = of(Arc::new(StringArray::from(vec!["x", "y"])));
        let zeros = of(Arc::new(Float64Array::from(vec![-0.0])));
        let filters = FileFilters::new(BTreeMap::from([(S, texts), (F, zeros)]));
        let verdict = |version: u32, terms: &[Expr]| filter(terms).by_filters(&table(), &record(version, ""), &filters);
        let (s, f) = (|text: &str| col("s").eq(lit(text)), |number: f64| col("f").eq(lit(number)));
        assert_eq!(verdict(2, &[s("x")]), Verdict { tests: 1, may_match: true });
        assert_eq!(verdict(2, &[s("z")]), Verdict { tests: 1, may_match: false });
        assert_eq!(verdict(2, &[s("x"), f(0.0)]), Verdict { tests: 2, may_match: true });
        assert_eq!(verdict(2, &[s("x"), f(1.0)]), Verdict { tests: 2, may_match: false });
        // No filter of `a`; and `f` was not there in version 1.
        assert_eq!(verdict(2, &[col("a").eq(lit(1i64))]), Verdict { tests: 0, may_match: true });
        assert_eq!(verdict(1, &[f(1.0)]), Verdict { tests: 0, may_match: true });
        let among = |texts: &[&str]| col("s").in_list(texts.iter().map(|text| lit(*text)).collect(), false);
        assert!(verdict(2, &[among(&["q", "r", "y"])]).may_match);
        assert!(!verdict(2, &[among(&["q", "r", "t"])]).may_match);
    }
}
