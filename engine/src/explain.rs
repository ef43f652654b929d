//! EXPLAIN for who reads it: without names that are ours alone and, unless VERBOSE asks for all, without paths, repeated
//! predicates and figures that say nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result as DfResult;

use crate::scan::{FILE_COLUMN, POSITION_COLUMN, SCAN_FIGURES};
use crate::sql::dml::TARGET_CATALOG;
use crate::sql::names::CATALOG;
use crate::sql::planner::ALL_USERS_CATALOG;
use crate::sql::time_travel::CHANGES_CATALOG;

/// Characters of a line of figures.
const WIDTH: usize = 100;

/// What the line of a scan of files says besides its files, columns and predicate.
const OF_THE_READER: [&str; 4] =
    ["file_type=", "pruning_predicate=", "required_guarantees=", "sort_order_for_reorder="];

/// How much of a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What tells where the time goes, in lines that can be read.
    Brief,
    /// All, as DataFusion has it.
    All,
}

/// The rows of an EXPLAIN: the kind of a plan, and its text.
pub(crate) fn readable(batch: &RecordBatch, detail: Detail) -> DfResult<RecordBatch> {
    let Some((plans, others)) = batch.columns().split_last() else { return Ok(batch.clone()) };
    let plans = cast(plans, &DataType::Utf8)?;
    let plans: StringArray = plans.as_string::<i32>().iter().map(|text| Some(plan(text?, detail))).collect();
    let columns: Vec<ArrayRef> = others.iter().cloned().chain([Arc::new(plans) as ArrayRef]).collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

fn plan(text: &str, detail: Detail) -> String {
    let text = text
        .replace(&format!("{TARGET_CATALOG}."), "")
        .replace(&format!("{ALL_USERS_CATALOG}."), "")
        .replace(&format!("{CHANGES_CATALOG}."), "")
        .replace(TARGET_CATALOG, CATALOG)
        .replace(ALL_USERS_CATALOG, CATALOG)
        .replace(FILE_COLUMN, "(file)")
        .replace(POSITION_COLUMN, "(position)");
    match detail {
        Detail::All => text,
        Detail::Brief => text.lines().flat_map(brief).collect::<Vec<_>>().join("\n"),
    }
}

/// An operator, and below it its figures.
fn brief(line: &str) -> Vec<String> {
    let indent = &line[..line.len() - line.trim_start().len()];
    let figures = line.rfind(", metrics=[").zip(line.strip_suffix(']'));
    let (operator, figures) = match figures {
        Some((at, inner)) => (&line[..at], &inner[at + ", metrics=[".len()..]),
        None => (line, ""),
    };
    let mut lines = vec![scan(operator)];
    let mut row = String::new();
    for figure in parts(figures).into_iter().filter(|figure| says_something(figure)) {
        if row.is_empty() {
            row = format!("{indent}    {figure}");
        } else if row.chars().count() + figure.chars().count() + 2 > WIDTH {
            lines.push(std::mem::replace(&mut row, format!("{indent}    {figure}")));
        } else {
            row = format!("{row}, {figure}");
        }
    }
    lines.extend((!row.is_empty()).then_some(row));
    lines
}

/// A scan of files by their number; other operators as they are.
fn scan(operator: &str) -> String {
    let name = "DataSourceExec: ";
    let Some((before, fields)) = operator.split_once(name).filter(|(before, _)| before.trim().is_empty()) else {
        return operator.to_owned();
    };
    let fields = parts(fields).into_iter().filter(|field| !OF_THE_READER.iter().any(|name| field.starts_with(name)));
    let fields = fields.map(|field| match field.starts_with("file_groups=") {
        true => format!("files={}", field.matches(".parquet").count()),
        false => field.to_owned(),
    });
    format!("{before}{name}{}", fields.collect::<Vec<_>>().join(", "))
}

fn says_something(figure: &str) -> bool {
    let Some((name, value)) = figure.split_once('=') else { return !figure.is_empty() };
    let is_nothing = ["0", "0.0 B", "0 B", "1ns", "0%"].contains(&value)
        || ["0 total", "0% (", "N/A"].iter().any(|nothing| value.starts_with(nothing));
    // Rows, and what was left out of files, also when there is none.
    name == "output_rows" || SCAN_FIGURES.contains(&name) || !is_nothing
}

/// What is separated by commas that are in no brackets.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 && text[at..].starts_with(", ") => {
                parts.push(&text[start..at]);
                start = at + 2;
            }
            _ => {}
        }
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCAN: &str = "  DataSourceExec: file_groups={2 groups: [[a/b-1.parquet, a/b-2.parquet:0..5], [a/b-3.parquet]]}, \
                        projection=[text], file_type=parquet, predicate=n@1 IN (SET) ([1, 2]), pruning_predicate=n_min@0 <= 1, \
                        required_guarantees=[n in (1, 2)], metrics=[output_rows=0, elapsed_compute=3.83µs, output_bytes=0.0 B, \
                        row_groups_pruned_statistics=3 total → 1 matched, limit_pruned_row_groups=0 total → 0 matched, \
                        batches_total=3, batches_skipped=0, time_elapsed_opening=1ns, selectivity=0% (0/2)]";

    #[test]
    fn a_scan_is_its_files_columns_predicate_and_figures() {
        let shown = "  DataSourceExec: files=3, projection=[text], predicate=n@1 IN (SET) ([1, 2])\n      \
                     output_rows=0, elapsed_compute=3.83µs, row_groups_pruned_statistics=3 total → 1 matched\n      \
                     batches_total=3, batches_skipped=0";
        assert_eq!(plan(SCAN, Detail::Brief), shown);
        assert_eq!(plan(SCAN, Detail::All), SCAN);
    }

    #[test]
    fn others_stay_as_they_are_but_for_names_that_are_ours() {
        let of = |text: &str| plan(text, Detail::Brief);
        assert_eq!(of("UnionExec, metrics=[output_rows=1, spill_count=0]\n  X"), "UnionExec\n    output_rows=1\n  X");
        assert_eq!(of("UnionExec, metrics=[]"), "UnionExec");
        assert_eq!(
            of("TableScan: seracdb target.default.t projection=[n, __serac_file, __serac_position]"),
            "TableScan: default.t projection=[n, (file), (position)]"
        );
        assert_eq!(of("TableScan: seracdb all users.a.t"), "TableScan: a.t");
        assert_eq!(plan("\"Catalog\": \"seracdb target\"", Detail::All), "\"Catalog\": \"seracdb\"");
        for text in ["", "no, figures]", "Filter: t.text = Utf8(\", metrics=[\")"] {
            assert_eq!(of(text), text);
        }
    }
}
