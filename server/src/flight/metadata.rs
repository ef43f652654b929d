//! Metadata commands, answered from the catalog in memory: one batch each, sorted as the protocol asks.
//!
//! A catalog is matched exactly, a schema and a table by LIKE pattern. An absent filter matches everything; an empty
//! one means "without a catalog" or "without a schema", which nothing is.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables};
use seracdb_engine::{TableInfo, system_columns};
use tonic::Status;

use super::columns::{
    CATALOG_NAME, HAS_DEFAULT, IS_AUTO_INCREMENT, IS_READ_ONLY, REMARKS, ROWS, SCHEMA_NAME, TABLE_NAME, describe,
};
use super::command::{CATALOG, Metadata};
use super::encode::schema_bytes;
use super::{Flight, sql_info, status, xdbc_types};
use crate::auth::Call;

/// The kinds of tables, sorted.
const TABLE_TYPES: [&str; 4] = ["LOCAL TEMPORARY", "SYSTEM TABLE", "TABLE", "VIEW"];

impl Flight {
    /// The answer to a metadata command. `client`: its user-agent.
    pub(super) fn metadata(&self, call: &Call, command: &Metadata, client: &str) -> Result<RecordBatch, Status> {
        match command {
            Metadata::Catalogs => batch([("catalog_name", false, strings([CATALOG]))]),
            Metadata::DbSchemas(command) => {
                db_schemas(&self.engine.namespaces(&call.session).map_err(status::from_engine)?, command)
            }
            Metadata::Tables(command) => tables(&self.listed(call)?, command),
            Metadata::TableTypes => batch([("table_type", false, strings(TABLE_TYPES))]),
            Metadata::SqlInfo(command) => sql_info::batch(&command.info, client),
            Metadata::XdbcTypeInfo(command) => xdbc_types::batch(command.data_type),
            Metadata::PrimaryKeys(command) => primary_keys(&self.listed(call)?, command),
            Metadata::ForeignKeys => Ok(RecordBatch::new_empty(foreign_keys_schema())),
        }
    }

    pub(super) fn listed(&self, call: &Call) -> Result<Vec<TableInfo>, Status> {
        self.engine.tables(&call.session).map_err(status::from_engine)
    }
}

fn db_schemas(namespaces: &[String], command: &CommandGetDbSchemas) -> Result<RecordBatch, Status> {
    let names = namespaces.iter().filter(|namespace| {
        is_catalog(command.catalog.as_deref()) && is_like(command.db_schema_filter_pattern.as_deref(), namespace)
    });
    let names: Vec<&str> = names.map(String::as_str).collect();
    batch([
        ("catalog_name", true, strings(names.iter().map(|_| CATALOG))),
        ("db_schema_name", false, strings(names.iter().copied())),
    ])
}

fn tables(tables: &[TableInfo], command: &CommandGetTables) -> Result<RecordBatch, Status> {
    let types = &command.table_types;
    let found: Vec<&TableInfo> = tables
        .iter()
        .filter(|_| is_catalog(command.catalog.as_deref()))
        .filter(|table| is_like(command.db_schema_filter_pattern.as_deref(), &table.namespace))
        .filter(|table| is_like(command.table_name_filter_pattern.as_deref(), &table.name))
        .filter(|table| types.is_empty() || types.iter().any(|wanted| wanted == table.table_type))
        .collect();
    let mut columns = vec![
        ("catalog_name", true, strings(found.iter().map(|_| CATALOG))),
        ("db_schema_name", true, strings(found.iter().map(|table| table.namespace.as_str()))),
        ("table_name", false, strings(found.iter().map(|table| table.name.as_str()))),
        ("table_type", false, strings(found.iter().map(|table| table.table_type))),
    ];
    if command.include_schema {
        let schemas: Vec<_> = found.iter().map(|table| schema_bytes(&table_schema(table))).collect::<Result<_, _>>()?;
        let schemas = BinaryArray::from_iter_values(schemas);
        columns.push(("table_schema", false, Arc::new(schemas)));
    }
    batch(columns)
}

/// The columns of a table with what tools want to know about them.
fn table_schema(table: &TableInfo) -> Schema {
    let fields: Vec<Field> = table
        .schema
        .fields()
        .iter()
        .map(|field| {
            let is_view = table.table_type == "VIEW";
            let is_generated = table.generated.contains(field.name());
            let read_only = is_view || is_generated || system_columns::is_system_column(field.name());
            let flag = |is: bool| if is { "1" } else { "0" };
            let mut more = vec![
                (CATALOG_NAME, CATALOG),
                (SCHEMA_NAME, table.namespace.as_str()),
                (TABLE_NAME, table.name.as_str()),
                (IS_AUTO_INCREMENT, flag(!is_view && field.name() == system_columns::ID)),
                (IS_READ_ONLY, flag(read_only)),
            ];
            more.extend(table.with_default.contains(field.name()).then_some((HAS_DEFAULT, "1")));
            more.extend(table.column_comments.get(field.name()).map(|text| (REMARKS, text.as_str())));
            describe(field, &more)
        })
        .collect();
    let mut metadata = table.schema.metadata().clone();
    metadata.extend(table.rows.iter().map(|rows| (ROWS.to_owned(), rows.clone())));
    metadata.extend(table.comment.iter().map(|text| (REMARKS.to_owned(), text.clone())));
    Schema::new_with_metadata(fields, metadata)
}

fn primary_keys(tables: &[TableInfo], command: &CommandGetPrimaryKeys) -> Result<RecordBatch, Status> {
    let found = tables
        .iter()
        .filter(|_| is_catalog(command.catalog.as_deref()))
        .filter(|table| command.db_schema.as_ref().is_none_or(|namespace| *namespace == table.namespace))
        .filter(|table| table.name == command.table);
    let columns = found.flat_map(|table| {
        let numbered = (1..).zip(&table.primary_key);
        numbered.map(move |(sequence, column)| (table, column.as_str(), sequence))
    });
    let keys: Vec<(&TableInfo, &str, i32)> = columns.collect();
    batch([
        ("catalog_name", true, strings(keys.iter().map(|_| CATALOG))),
        ("db_schema_name", true, strings(keys.iter().map(|(table, ..)| table.namespace.as_str()))),
        ("table_name", false, strings(keys.iter().map(|(table, ..)| table.name.as_str()))),
        ("column_name", false, strings(keys.iter().map(|(_, column, _)| *column))),
        ("key_name", true, strings(keys.iter().map(|_| "PRIMARY"))),
        ("key_sequence", false, Arc::new(Int32Array::from_iter_values(keys.iter().map(|(.., sequence)| *sequence)))),
    ])
}

fn foreign_keys_schema() -> SchemaRef {
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

fn is_catalog(wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| wanted == CATALOG)
}

fn is_like(pattern: Option<&str>, text: &str) -> bool {
    pattern.is_none_or(|pattern| like(pattern, text))
}

/// LIKE: `%` any run, `_` any character, `\` makes the next character literal.
fn like(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // `reached[i]`: whether the pattern up to here matches the first i characters.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let escaped = pattern[at] == '\\' && at + 1 < pattern.len();
        at += usize::from(escaped);
        let wanted = pattern[at];
        if wanted == '%' && !escaped {
            let first = reached.iter().position(|reached| *reached).unwrap_or(reached.len());
            reached[first..].fill(true);
        } else {
            for end in (1..reached.len()).rev() {
                let matches = text[end - 1] == wanted || (wanted == '_' && !escaped);
                reached[end] = reached[end - 1] && matches;
            }
            reached[0] = false;
        }
        at += 1;
    }
    reached[text.len()]
}

fn strings<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// A batch of columns: name, nullable, values.
fn batch(columns: impl IntoIterator<Item = (&'static str, bool, ArrayRef)>) -> Result<RecordBatch, Status> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns
        .into_iter()
        .map(|(name, nullable, array)| (Field::new(name, array.data_type().clone(), nullable), array))
        .unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(status::unsendable)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow_flight::IpcMessage;
    use bytes::Bytes;

    use super::*;

    fn catalog() -> Vec<TableInfo> {
        let table = |name: &str, table_type: &'static str, key: &[&str]| TableInfo {
            namespace: "shop".into(),
            name: name.into(),
            table_type,
            schema: Arc::new(Schema::new(vec![
                Field::new("_id", DataType::Int64, false),
                Field::new("a", DataType::Utf8, true),
                Field::new("b", DataType::Utf8, false),
            ])),
            primary_key: key.iter().map(ToString::to_string).collect(),
            rows: Some(format!("7-{name}")),
            comment: Some("said of it".into()),
            column_comments: [("a".to_owned(), "said of a".to_owned())].into(),
            with_default: vec!["a".into()],
            generated: vec!["b".into()],
        };
        vec![table("t1", "TABLE", &["_id"]), table("t_1", "TABLE", &["a", "b"]), table("v", "VIEW", &[])]
    }

    fn names(batch: &RecordBatch) -> Vec<&str> {
        batch.column(2).as_string::<i32>().iter().flatten().collect()
    }

    #[test]
    fn like_patterns() {
        for (pattern, text, matches) in [
            ("%", "", true),
            ("", "", true),
            ("", "a", false),
            ("a%", "abc", true),
            ("%c", "abc", true),
            ("a_c", "abc", true),
            ("a_c", "abbc", false),
            ("%b%", "abc", true),
            (r"t\_1", "t_1", true),
            (r"t\_1", "tx1", false),
            (r"t\%", "t%", true),
            ("_", "é", true),
            ("A%", "abc", false),
        ] {
            assert_eq!(like(pattern, text), matches, "{text:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn tables_are_filtered() {
        let all = tables(&catalog(), &CommandGetTables::default()).unwrap();
        assert_eq!((all.num_columns(), names(&all)), (4, vec!["t1", "t_1", "v"]));
        let filter = |edit: fn(&mut CommandGetTables)| {
            let mut command = CommandGetTables::default();
            edit(&mut command);
            tables(&catalog(), &command).unwrap()
        };
        assert_eq!(names(&filter(|command| command.table_types = vec!["VIEW".into()])), ["v"]);
        assert_eq!(names(&filter(|command| command.table_name_filter_pattern = Some(r"t\_1".into()))), ["t_1"]);
        assert_eq!(names(&filter(|command| command.catalog = Some(CATALOG.into()))).len(), 3);
        assert!(names(&filter(|command| command.catalog = Some(String::new()))).is_empty());
        assert!(names(&filter(|command| command.db_schema_filter_pattern = Some(String::new()))).is_empty());
    }

    #[test]
    fn a_table_schema_is_an_ipc_message_with_column_metadata() {
        let command = CommandGetTables { include_schema: true, ..Default::default() };
        let batch = tables(&catalog(), &command).unwrap();
        assert_eq!(batch.num_columns(), 5);
        let bytes = Bytes::copy_from_slice(batch.column(4).as_binary::<i32>().value(0));
        let schema = Schema::try_from(IpcMessage(bytes)).unwrap();
        assert_eq!(schema.field(0).metadata()[IS_AUTO_INCREMENT], "1");
        assert_eq!(schema.field(1).metadata()[TABLE_NAME], "t1");
        assert_eq!(schema.field(1).metadata()[REMARKS], "said of a");
        assert_eq!(schema.metadata()[ROWS], "7-t1");
        let read_only = [0, 1, 2].map(|place| schema.field(place).metadata()[IS_READ_ONLY].as_str());
        assert_eq!(read_only, ["1", "0", "1"]);
        let with_default = [0, 1, 2].map(|place| schema.field(place).metadata().contains_key(HAS_DEFAULT));
        assert_eq!(with_default, [false, true, false]);
        assert_eq!(
            (schema.field(0).metadata().get(REMARKS), schema.metadata()[REMARKS].as_str()),
            (None, "said of it")
        );
    }

    #[test]
    fn primary_keys_are_numbered_from_one() {
        let command = CommandGetPrimaryKeys { table: "t_1".into(), ..Default::default() };
        let batch = primary_keys(&catalog(), &command).unwrap();
        let columns: Vec<_> = batch.column(3).as_string::<i32>().iter().flatten().collect();
        assert_eq!(columns, ["a", "b"]);
        assert_eq!(batch.column(5).as_primitive::<arrow::datatypes::Int32Type>().values(), &[1, 2]);
    }
}
