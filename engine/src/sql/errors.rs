//! DataFusion's errors in the words a client can act on.

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use tokio::task::JoinError;

use super::suggest;
use crate::error::{EngineError, ErrorKind};

/// The engine's error for one of DataFusion's. `hidden`: columns a client does not know of, which are never named.
pub(crate) fn from_datafusion(error: DataFusionError, hidden: &[&str]) -> EngineError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner, hidden),
        DataFusionError::Collection(mut errors) => match errors.is_empty() {
            true => EngineError::internal("an error without a text"),
            false => from_datafusion(errors.swap_remove(0), hidden),
        },
        DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
            Ok(inner) => from_datafusion(inner, hidden),
            Err(shared) => from_shared(&shared, hidden),
        },
        DataFusionError::External(error) => from_boxed(error, hidden),
        DataFusionError::ArrowError(error, _) => from_arrow(*error, hidden),
        other => plain(&other, hidden).with_source(other),
    }
}

/// The engine's error for one of Arrow's.
pub(crate) fn from_arrow(error: ArrowError, hidden: &[&str]) -> EngineError {
    match error {
        ArrowError::ExternalError(inner) => from_boxed(inner, hidden),
        other => plain_arrow(&other).with_source(other),
    }
}

fn from_boxed(error: Box<dyn StdError + Send + Sync>, hidden: &[&str]) -> EngineError {
    let error = match error.downcast::<EngineError>() {
        Ok(ours) => return *ours,
        Err(error) => error,
    };
    let error = match error.downcast::<DataFusionError>() {
        Ok(inner) => return from_datafusion(*inner, hidden),
        Err(error) => error,
    };
    let error = match error.downcast::<Arc<JoinError>>() {
        Ok(task) => return from_task(&task),
        Err(error) => error,
    };
    match error.downcast::<ArrowError>() {
        Ok(inner) => from_arrow(*inner, hidden),
        Err(error) => match is_wrong_pattern(&error.to_string()) {
            true => EngineError::caused(ErrorKind::InvalidArgument, tidy(&error.to_string()), error),
            false => EngineError::caused(ErrorKind::Internal, error.to_string(), error),
        },
    }
}

/// Whether an error is about a client's regular expression, which is known by its text alone.
fn is_wrong_pattern(text: &str) -> bool {
    text.contains("regex parse error") || text.contains("Regular expression did not compile")
}

/// An error others hold too: it is copied.
fn from_shared(error: &DataFusionError, hidden: &[&str]) -> EngineError {
    let root = error.find_root();
    let source = root.source().and_then(|source| source.downcast_ref::<EngineError>());
    match (root, source) {
        (DataFusionError::External(inner), None) if is_wrong_pattern(&inner.to_string()) => {
            EngineError::invalid(tidy(&inner.to_string()))
        }
        (DataFusionError::External(inner), _) if inner.is::<EngineError>() => {
            copied(inner.downcast_ref::<EngineError>())
        }
        (_, Some(ours)) => copied(Some(ours)),
        (DataFusionError::ArrowError(arrow, _), _) => plain_arrow(arrow),
        _ => plain(root, hidden),
    }
}

fn copied(error: Option<&EngineError>) -> EngineError {
    match error {
        Some(error) => EngineError::new(error.kind, error.message.clone()),
        None => EngineError::internal("an error without a text"),
    }
}

/// What a client reads when a file fails; which one is for the log.
const STORED_FILE: &str = "a stored file could not be read or written: the server's log has the cause; try again";

/// A stored file has failed. One that is gone is named: no trying again brings its rows back. Parquet's errors carry the object
/// store's as text.
fn stored_file(text: &str) -> EngineError {
    let gone = text.split_once("Object at location ").and_then(|(_, rest)| rest.split_once(" not found"));
    match gone {
        Some((path, _)) => {
            // The folder is the server's business.
            let name = path.rsplit('/').next().unwrap_or(path);
            let text = format!("rows are lost: their file {name} is gone from the object store; restore it");
            EngineError::new(ErrorKind::DataLoss, text)
        }
        None => EngineError::new(ErrorKind::Unavailable, STORED_FILE),
    }
}

fn plain(error: &DataFusionError, hidden: &[&str]) -> EngineError {
    let new = |kind, text: &str| EngineError::new(kind, tidy(text));
    match error {
        DataFusionError::SchemaError(error, _) => from_schema_error(error, hidden),
        // Our own columns of an UPDATE's SELECT are what an aggregate in SET clashes with.
        DataFusionError::Plan(text)
            if hidden.iter().any(|column| text.contains(column)) && text.contains("aggregate") =>
        {
            new(ErrorKind::InvalidArgument, "aggregate functions are not allowed in SET: write a subquery")
        }
        DataFusionError::Plan(text) if is_unknown_table(text) => new(ErrorKind::NotFound, text),
        DataFusionError::Plan(text) | DataFusionError::Configuration(text) | DataFusionError::Execution(text) => {
            new(ErrorKind::InvalidArgument, text)
        }
        DataFusionError::SQL(error, _) => new(ErrorKind::InvalidArgument, &format!("syntax error: {error}")),
        DataFusionError::NotImplemented(text) | DataFusionError::Substrait(text) => {
            new(ErrorKind::Unimplemented, &format!("not supported: {text}"))
        }
        DataFusionError::ResourcesExhausted(text) => new(
            ErrorKind::ResourceExhausted,
            &match text.contains("limits.user.memory_max") {
                true => text.clone(),
                false => format!("the query needs more memory than limits.query_memory_max allows: {text}"),
            },
        ),
        DataFusionError::ArrowError(error, _) => plain_arrow(error),
        DataFusionError::ExecutionJoin(task) => from_task(task),
        // The text may hold file names and hosts: the log has it, the client only what to do.
        DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) | DataFusionError::IoError(_) => {
            stored_file(&error.to_string())
        }
        DataFusionError::Internal(text) => new(ErrorKind::Internal, text),
        other => new(ErrorKind::Internal, &other.to_string()),
    }
}

/// The error of a task that the plan has spawned.
fn from_task(error: &JoinError) -> EngineError {
    match error.is_panic() {
        true => EngineError::panicked(),
        false => EngineError::new(ErrorKind::Cancelled, "the query was cancelled"),
    }
}

fn plain_arrow(error: &ArrowError) -> EngineError {
    let (kind, text) = match error {
        ArrowError::DivideByZero => (ErrorKind::InvalidArgument, "division by zero".to_owned()),
        ArrowError::ArithmeticOverflow(text) => (ErrorKind::InvalidArgument, format!("arithmetic overflow: {text}")),
        ArrowError::CastError(text)
        | ArrowError::ParseError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::SchemaError(text)
        | ArrowError::JsonError(text)
        | ArrowError::CsvError(text) => (ErrorKind::InvalidArgument, text.clone()),
        ArrowError::NotYetImplemented(text) => (ErrorKind::Unimplemented, format!("not supported: {text}")),
        ArrowError::MemoryError(text) => (ErrorKind::ResourceExhausted, text.clone()),
        ArrowError::OffsetOverflowError(_) => {
            (ErrorKind::ResourceExhausted, "a text or list column of one batch exceeds 2 GiB".to_owned())
        }
        ArrowError::ParquetError(_) | ArrowError::IoError(..) | ArrowError::ExternalError(_) => {
            return stored_file(&error.to_string());
        }
        other => (ErrorKind::Internal, other.to_string()),
    };
    EngineError::new(kind, tidy(&text))
}

fn from_schema_error(error: &SchemaError, hidden: &[&str]) -> EngineError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            EngineError::not_found(unknown_column(field, valid_fields, hidden))
        }
        SchemaError::AmbiguousReference { field } => EngineError::invalid(format!(
            "column '{}' is in more than one table: write table.{}",
            field.name, field.name
        )),
        SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
            EngineError::invalid(format!("column '{name}' is there twice: give one of them another name with AS"))
        }
    }
}

fn unknown_column(field: &Column, valid: &[Column], hidden: &[&str]) -> String {
    let visible = || valid.iter().filter(|column| !hidden.contains(&column.name.as_str()));
    // `tabel.column`: the table is wrong when the column exists under another one.
    if let Some(relation) = &field.relation {
        let others: Vec<String> =
            visible().filter(|c| c.name == field.name).filter_map(|c| Some(c.relation.as_ref()?.to_string())).collect();
        if !others.is_empty() && !others.contains(&relation.to_string()) {
            return suggest::unknown("table", &relation.to_string(), others.iter().map(String::as_str))
                + &format!(" for column '{}'", field.name);
        }
    }
    let mut message = suggest::unknown("column", &field.name, visible().map(|c| c.name.as_str()));
    let names: Vec<&str> = visible().map(|c| c.name.as_str()).collect();
    if !message.contains("did you mean") && !names.is_empty() && names.len() <= 30 {
        message += &format!(": the columns are {}", names.join(", "));
    }
    message
}

fn is_unknown_table(text: &str) -> bool {
    (text.starts_with("table '") || text.starts_with("table function '")) && text.contains("' not found")
}

/// The text without the prefixes of the layers it went through, without a backtrace, on one line.
fn tidy(text: &str) -> String {
    let mut text = text.split("\n\nbacktrace: ").next().unwrap_or(text).trim();
    let prefixes = [
        "DataFusion error: ",
        "Arrow error: ",
        "External error: ",
        "Error during planning: ",
        "Execution error: ",
        // The planner's word for arguments that no function takes.
        "Internal error: ",
        "Cast error: ",
        "Compute error: ",
        "Parser error: ",
        "Invalid argument error: ",
        "sql parser error: ",
    ];
    while let Some(rest) = prefixes.iter().find_map(|p| text.strip_prefix(p)) {
        text = rest;
    }
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

impl EngineError {
    /// The same, with DataFusion's error for the log.
    fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::common::TableReference;

    fn of(error: DataFusionError) -> (ErrorKind, String) {
        let error = from_datafusion(error, &["hidden_row"]);
        (error.kind, error.message)
    }

    #[test]
    fn kinds_and_texts() {
        use DataFusionError as E;
        use ErrorKind as K;
        for (error, kind, text) in [
            (E::Plan("bad".into()), K::InvalidArgument, "bad"),
            (E::Plan("table 'seracdb.a.b' not found".into()), K::NotFound, "table 'seracdb.a.b' not found"),
            (E::Context("ctx".into(), Box::new(E::Plan("bad".into()))), K::InvalidArgument, "bad"),
            (E::NotImplemented("X".into()), K::Unimplemented, "not supported: X"),
            (E::Internal("oops".into()), K::Internal, "oops"),
            (ArrowError::DivideByZero.into(), K::InvalidArgument, "division by zero"),
            (ArrowError::CastError("Cannot cast 'a'".into()).into(), K::InvalidArgument, "Cannot cast 'a'"),
            (E::Execution("Arrow error: Cast error: no".into()), K::InvalidArgument, "no"),
            (E::Collection(vec![E::Plan("first".into()), E::Plan("second".into())]), K::InvalidArgument, "first"),
        ] {
            assert_eq!(of(error), (kind, text.to_owned()));
        }
        let (kind, text) = of(E::ResourcesExhausted("pool".into()));
        assert_eq!(kind, K::ResourceExhausted);
        assert!(text.contains("query_memory_max"));
    }

    #[test]
    fn our_own_errors_come_through_every_wrapping() {
        let ours = || EngineError::new(ErrorKind::Aborted, "conflict");
        let external = || DataFusionError::External(Box::new(ours()));
        for error in [
            external(),
            DataFusionError::Context("c".into(), Box::new(external())),
            DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(Box::new(ours()))), None),
            DataFusionError::ArrowError(Box::new(ArrowError::from(external())), None),
            DataFusionError::Shared(Arc::new(external())),
        ] {
            assert_eq!(of(error), (ErrorKind::Aborted, "conflict".to_owned()));
        }
        let shared = Arc::new(external());
        assert_eq!(of(DataFusionError::Shared(shared.clone())), (ErrorKind::Aborted, "conflict".to_owned()));
        drop(shared);
    }

    #[test]
    fn unknown_columns_suggest_but_never_name_hidden_ones() {
        let valid = ["price", "hidden_row"].map(|name| Column::new(Some(TableReference::bare("t")), name)).to_vec();
        let missing = |relation: Option<&str>, name: &str| {
            let field = Box::new(Column::new(relation.map(TableReference::bare), name));
            of(DataFusionError::SchemaError(
                Box::new(SchemaError::FieldNotFound { field, valid_fields: valid.clone() }),
                Box::new(None),
            ))
            .1
        };
        assert_eq!(missing(None, "prise"), "unknown column 'prise': did you mean 'price'?");
        assert_eq!(missing(None, "hidden_rox"), "unknown column 'hidden_rox': the columns are price");
        assert_eq!(missing(Some("u"), "price"), "unknown table 'u' for column 'price'");
    }
}
