//! Rows of a table or query into a file: whole, or not there.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use clap::Args;
use futures::TryStreamExt;
use seracdb_client::{Client, Kind};
use tempfile::NamedTempFile;

use super::files::{FileFormat, format_of};
use super::journal::sync_folder;
use super::progress::Progress;
use super::sink::Sink;
use super::{CsvStyle, name_of, rows};

/// Who may read a new file is the user's `umask` to say.
const MODE: u32 = 0o666;

/// What is exported, and how.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Export {
    /// Table or view whose rows are exported: NAMESPACE.TABLE. It is what SELECT * gives, so _id and _updated too.
    #[arg(required_unless_present = "query", conflicts_with = "query")]
    table: Option<String>,
    /// File that is made: .parquet, .csv, .arrow or .arrows.
    file: PathBuf,
    /// Query whose rows are exported, instead of those of a table.
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// What the file is to be, when its name does not say it.
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// Replaces a file that is there.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    csv: CsvStyle,
}

/// Exports to a file beside the one that is wanted, and gives it its name when it is whole.
pub(super) async fn run(client: Client, export: &Export) -> Result<(), String> {
    let name = export.file.display();
    let format = format_of(&export.file, export.format).map_err(|error| format!("{name}: {error}"))?;
    if export.file.exists() && !export.overwrite {
        return Err(format!("{name}: it is there already: --overwrite replaces it"));
    }
    let query = match (&export.query, &export.table) {
        (Some(query), _) => query.clone(),
        (None, Some(table)) => {
            let (namespace, table) = name_of(table)?;
            format!("SELECT * FROM {}.{}", quoted(namespace), quoted(table))
        }
        (None, None) => return Err("what is to be exported? Name a table, or say --query".to_owned()),
    };
    let folder = export.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".seracdb-export")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(folder)
        .map_err(|error| format!("{name}: cannot be written: {error}"))?;
    let count = written(&client, &query, &temporary, format, export).await?;
    persist(temporary, export)?;
    println!("{name}: {} exported", rows(count));
    Ok(())
}

/// Writes all rows of a query; gives their number.
async fn written(
    client: &Client,
    query: &str,
    file: &NamedTempFile,
    format: FileFormat,
    export: &Export,
) -> Result<u64, String> {
    let name = export.file.display().to_string();
    let of_file = |error: String| format!("{name}: {error}");
    let statement = client.prepare(query).await.map_err(|error| error.to_string())?;
    if statement.kind() != Kind::Query {
        return Err("only the rows of a query can be exported".to_owned());
    }
    let mut rows = statement.query().await.map_err(|error| error.to_string())?;
    let schema = plain(rows.schema())?;
    let file = file.reopen().map_err(|error| of_file(format!("cannot be written: {error}")))?;
    let mut sink = Sink::new(file, &schema, format, &export.csv).map_err(of_file)?;
    let progress = Progress::new(&name, None);
    let mut count = 0;
    while let Some(batch) = rows.try_next().await.map_err(|error| error.to_string())? {
        count += batch.num_rows() as u64;
        progress.reached(count, count);
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns().to_vec(), &options);
        sink.write(&batch.map_err(|error| error.to_string())?).map_err(of_file)?;
    }
    sink.finish().map_err(of_file)?;
    progress.end();
    // It also ends with the session.
    let _ = statement.close().await;
    Ok(count)
}

/// The columns without what the server says of them, which is of this server.
fn plain(schema: &SchemaRef) -> Result<SchemaRef, String> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if fields.iter().any(|other| other.name() == field.name()) {
            return Err(format!("two columns are called '{}': give them names with AS", field.name()));
        }
        fields.push(Field::new(field.name(), field.data_type().clone(), field.is_nullable()));
    }
    match fields.is_empty() {
        true => Err("the query has no columns".to_owned()),
        false => Ok(Arc::new(Schema::new(fields))),
    }
}

/// Gives a whole file its name.
fn persist(temporary: NamedTempFile, export: &Export) -> Result<(), String> {
    let persisted = match export.overwrite {
        true => temporary.persist(&export.file),
        false => temporary.persist_noclobber(&export.file),
    };
    let persisted = persisted.map(drop).map_err(|error| error.error);
    persisted
        .and_then(|()| sync_folder(&export.file))
        .map_err(|error| format!("{}: cannot be written: {error}", export.file.display()))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
