//! Which column of a file goes into which of a table, by name.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use seracdb_client::TableEntry;
use seracdb_engine::system_columns::is_system_column;

use super::coerce::{coerce, is_assignable};
use crate::shell::sql_type;

/// What is left out of a file when it is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LeaveOut {
    /// Columns that the table does not have.
    pub(super) extra: bool,
    /// Those that the server writes.
    pub(super) system: bool,
}

/// A file's columns on their way into a table's.
#[derive(Debug)]
pub(super) struct Columns {
    /// What is sent.
    pub(super) schema: SchemaRef,
    /// For each column that is sent, its place in the file.
    places: Vec<usize>,
    /// Columns that cannot be NULL.
    required: Vec<bool>,
    is_csv: bool,
    /// An empty field of a CSV is a text where it cannot be NULL.
    empty_is_text: bool,
    /// Rows that were looked at.
    rows: u64,
}

impl Columns {
    /// Into a table that is there.
    pub(super) fn into_table(
        file: &Schema,
        table: &TableEntry,
        leave_out: LeaveOut,
        is_csv: bool,
    ) -> Result<Self, String> {
        let wanted: Vec<&Arc<Field>> =
            table.schema.fields().iter().filter(|field| !is_system_column(field.name())).collect();
        let given = usable(file, leave_out)?;
        let is_wanted = |name: &str| wanted.iter().any(|field| field.name() == name);
        let extra: Vec<&str> = given.iter().map(|(_, name)| *name).filter(|name| !is_wanted(name)).collect();
        if !extra.is_empty() && !leave_out.extra {
            let has: Vec<&str> = wanted.iter().map(|field| field.name().as_str()).collect();
            return Err(format!(
                "the table has no column {}; it has {}. --ignore-extra leaves out what it does not have",
                listed(&extra),
                listed(&has)
            ));
        }
        // The server makes what is GENERATED and takes none of it, but an export has it.
        let wanted: Vec<&Arc<Field>> = wanted.into_iter().filter(|field| !table.is_read_only(field.name())).collect();
        let place = |field: &Field| given.iter().find(|(_, name)| *name == field.name()).map(|(place, _)| *place);
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|field| !field.is_nullable() && !table.has_default(field.name()) && place(field).is_none())
            .map(|field| field.name().as_str())
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "the file lacks {}, which the table has as NOT NULL without a DEFAULT",
                listed(&missing)
            ));
        }
        let found: Vec<(usize, &Arc<Field>)> =
            wanted.iter().filter_map(|field| Some((place(field)?, *field))).collect();
        for (place, field) in &found {
            let from = file.field(*place).data_type();
            if !is_assignable(from, field.data_type(), is_csv) {
                return Err(format!(
                    "column '{}' is {} in the table, and the file's {from} cannot become that",
                    field.name(),
                    sql_type(field)
                ));
            }
        }
        Self::of(found.into_iter().map(|(place, field)| (place, Field::clone(field))), is_csv)
    }

    /// Into a table that is made of the file. `types`: those of a CSV, whose own are none.
    pub(super) fn of_new_table(
        file: &Schema,
        types: &Schema,
        leave_out: LeaveOut,
        is_csv: bool,
    ) -> Result<Self, String> {
        let given = usable(file, leave_out)?;
        let field = |place: usize, name: &str| Field::new(name, types.field(place).data_type().clone(), true);
        Self::of(given.into_iter().map(|(place, name)| (place, field(place, name))), is_csv)
    }

    fn of(columns: impl Iterator<Item = (usize, Field)>, is_csv: bool) -> Result<Self, String> {
        let (places, fields): (Vec<usize>, Vec<Field>) = columns.unzip();
        if fields.is_empty() {
            return Err("no column of it goes into the table".to_owned());
        }
        let required = fields.iter().map(|field| !field.is_nullable()).collect();
        let fields: Vec<Field> = fields.into_iter().map(|field| field.with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { schema, places, required, is_csv, empty_is_text: false, rows: 0 })
    }

    /// The same, where the empty field of a CSV stands for NULL.
    pub(super) fn with_empty_for_null(mut self) -> Self {
        self.empty_is_text = true;
        self
    }

    /// The next rows, as they are sent. An error names column and row.
    pub(super) fn next(&mut self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let mut columns = Vec::with_capacity(self.places.len());
        for ((place, field), required) in self.places.iter().zip(self.schema.fields()).zip(&self.required) {
            let at = |row: usize| format!("column '{}', row {}", field.name(), self.rows + row as u64 + 1);
            let given = match self.is_csv && self.empty_is_text && *required && is_text(field) {
                true => without_nulls(batch.column(*place)),
                false => Arc::clone(batch.column(*place)),
            };
            let column = coerce(&given, field, self.is_csv);
            let column = column.map_err(|misfit| format!("{}: {}", at(misfit.row), misfit.why))?;
            if let Some(row) = (0..column.len()).find(|row| *required && column.is_null(*row)) {
                return Err(format!("{}: it is NULL, and the column is NOT NULL", at(row)));
            }
            columns.push(column);
        }
        self.rows += batch.num_rows() as u64;
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| error.to_string())
    }

    /// How many rows there have been.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }
}

/// Places and names of the columns that are not left out.
fn usable(file: &Schema, leave_out: LeaveOut) -> Result<Vec<(usize, &str)>, String> {
    let all: Vec<(usize, &str)> = file.fields().iter().map(|field| field.name().as_str()).enumerate().collect();
    if let Some((_, twice)) = all.iter().find(|(place, name)| all[..*place].iter().any(|(_, other)| other == name)) {
        return Err(format!("two of its columns are called '{twice}'"));
    }
    let (system, usable): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, name)| is_system_column(name));
    if !system.is_empty() && !leave_out.system {
        let names: Vec<&str> = system.iter().map(|(_, name)| *name).collect();
        return Err(format!(
            "it has {}, which the server assigns to new rows: --drop-system-columns leaves them out",
            listed(&names)
        ));
    }
    Ok(usable)
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

fn is_text(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8)
}

fn without_nulls(texts: &ArrayRef) -> ArrayRef {
    let texts = texts.as_string::<i32>();
    Arc::new(texts.iter().map(|text| Some(text.unwrap_or_default())).collect::<StringArray>())
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        let field =
            |(name, data_type, nullable): &(&str, DataType, bool)| Field::new(*name, data_type.clone(), *nullable);
        Schema::new(fields.iter().map(field).collect::<Vec<_>>())
    }

    fn entry(schema: Schema) -> TableEntry {
        let (namespace, name, table_type) = ("n".into(), "t".into(), "TABLE".into());
        TableEntry { namespace, name, table_type, schema: Arc::new(schema) }
    }

    fn table() -> TableEntry {
        let text = DataType::Utf8;
        entry(schema(&[("_id", DataType::Int64, false), ("name", text, false), ("metres", DataType::Int16, true)]))
    }

    #[test]
    fn columns_match_by_name() {
        let file = schema(&[("metres", DataType::Int64, true), ("name", DataType::Utf8, true)]);
        let mut columns = Columns::into_table(&file, &table(), LeaveOut::default(), false).unwrap();
        assert_eq!(columns.schema.field(0).name(), "name");
        let batch = |metres: i64, name: Option<&str>| {
            let arrays: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(vec![metres])), Arc::new(StringArray::from(vec![name]))];
            RecordBatch::try_new(Arc::new(file.clone()), arrays).unwrap()
        };
        assert_eq!(columns.next(&batch(3967, Some("Eiger"))).unwrap().num_rows(), 1);
        let error = columns.next(&batch(1 << 20, Some("Eiger"))).unwrap_err();
        assert!(error.starts_with("column 'metres', row 2: '1048576' cannot be kept as"), "{error}");
        let error = columns.next(&batch(1, None)).unwrap_err();
        assert_eq!(error, "column 'name', row 2: it is NULL, and the column is NOT NULL");
    }

    #[test]
    fn columns_that_do_not_match_are_listed() {
        let (some, none) = (LeaveOut { extra: true, system: true }, LeaveOut::default());
        let text = |name| (name, DataType::Utf8, true);
        for (file, leave_out, error) in [
            (
                vec![text("name"), text("a"), text("b")],
                none,
                Some("the table has no column 'a', 'b'; it has 'name', 'metres'"),
            ),
            (vec![text("name"), text("a"), text("b")], some, None),
            (vec![text("metres")], none, Some("the file lacks 'name'")),
            (vec![text("name"), text("_id"), text("_updated")], none, Some("it has '_id', '_updated'")),
            (vec![text("name"), text("_id"), text("_updated")], some, None),
            (vec![text("name"), text("name")], none, Some("two of its columns are called 'name'")),
            (vec![text("name"), ("metres", DataType::Boolean, true)], none, Some("column 'metres' is ")),
        ] {
            let matched = Columns::into_table(&schema(&file), &table(), leave_out, false);
            match error {
                Some(error) => assert!(matched.as_ref().unwrap_err().starts_with(error), "{file:?}: {matched:?}"),
                None => drop(matched.unwrap()),
            }
        }
    }

    #[test]
    fn the_server_fills_defaults_and_makes_what_is_generated() {
        let field = |name: &str, key: &str, said: &str| {
            let metadata = [(key.to_owned(), said.to_owned())];
            Field::new(name, DataType::Int64, false).with_metadata(metadata.into())
        };
        let table = entry(Schema::new(vec![
            field("id", "seracdb:has_default", "1"),
            field("metres", "ARROW:FLIGHT:SQL:IS_READ_ONLY", "0"),
            field("feet", "ARROW:FLIGHT:SQL:IS_READ_ONLY", "1"),
        ]));
        let sent = |file: &[(&str, DataType, bool)]| -> Result<Vec<String>, String> {
            let columns = Columns::into_table(&schema(file), &table, LeaveOut::default(), false)?;
            Ok(columns.schema.fields().iter().map(|field| field.name().clone()).collect())
        };
        let number = |name| (name, DataType::Int64, true);
        assert_eq!(sent(&[number("metres")]).unwrap(), ["metres"]);
        assert_eq!(sent(&[number("feet"), number("metres"), number("id")]).unwrap(), ["id", "metres"]);
        // Whatever it is in the file.
        assert_eq!(sent(&[number("metres"), ("feet", DataType::Boolean, true)]).unwrap(), ["metres"]);
        let error = sent(&[number("id"), number("feet")]).unwrap_err();
        assert_eq!(error, "the file lacks 'metres', which the table has as NOT NULL without a DEFAULT");
    }

    #[test]
    fn an_empty_field_is_a_text_where_it_cannot_be_null() {
        let file = schema(&[("name", DataType::Utf8, true), ("metres", DataType::Utf8, true)]);
        let columns = Columns::into_table(&file, &table(), LeaveOut::default(), true).unwrap();
        let nothing: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        let batch = RecordBatch::try_new(Arc::new(file), vec![Arc::clone(&nothing), nothing]).unwrap();
        let sent = columns.with_empty_for_null().next(&batch).unwrap();
        assert_eq!(sent.column(0).as_string::<i32>().value(0), "");
        assert!(sent.column(1).is_null(0));
    }
}
