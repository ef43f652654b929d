//! A table's columns, by id.
//!
//! A schema version never changes once written. Rows name the version they were written with; Parquet columns carry
//! the column id as their field id, so that a renamed column keeps its values and a re-added name does not inherit
//! another column's.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::root_as_schema;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::system_columns::{
    DELETED_COLUMN_ID, FIRST_USER_COLUMN_ID, ID_COLUMN_ID, UPDATED_COLUMN_ID, deleted_field, id_field, updated_field,
};

/// A column of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Stays with the column through renames; never reused within the table.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Whether NULL may be stored.
    pub nullable: bool,
    /// Arrow type.
    #[serde(rename = "type", serialize_with = "write_type", deserialize_with = "read_type")]
    pub data_type: DataType,
    /// What it is in new rows that are given without it, as SQL; NULL when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What it is of the other columns, as SQL, if no statement writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// What it is in rows that were written before it was there: a row of it alone, as the row codec has it, in hex; NULL when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
}

impl Column {
    /// A column with none of these.
    pub fn new(id: u32, name: impl Into<String>, data_type: DataType, nullable: bool) -> Self {
        Self { id, name: name.into(), nullable, data_type, default: None, generated: None, initial: None }
    }
}

/// The user columns of a table, in one of its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// From 1.
    pub version: u32,
    /// In the order a user sees them.
    pub columns: Vec<Column>,
}

impl TableSchema {
    /// The first schema of a new table. Field metadata is not kept.
    pub fn first(fields: &[Field]) -> Self {
        let columns = fields
            .iter()
            .zip(FIRST_USER_COLUMN_ID..)
            .map(|(field, id)| Column::new(id, field.name(), field.data_type().clone(), field.is_nullable()))
            .collect();
        Self { version: 1, columns }
    }

    /// The user columns as Arrow fields.
    pub fn user_fields(&self) -> Vec<Field> {
        user_fields(&self.columns)
    }

    /// All columns as a client sees them: `_id`, the user's, `_updated`, `_deleted`.
    pub fn full(&self) -> SchemaRef {
        let mut fields = vec![id_field()];
        fields.extend(self.user_fields());
        fields.extend([updated_field(), deleted_field()]);
        Arc::new(Schema::new(fields))
    }

    /// All columns as a batch file holds them: with field ids, and user columns nullable because a tombstone has no
    /// values.
    pub fn file(&self) -> SchemaRef {
        let updated = with_field_id(updated_field(), UPDATED_COLUMN_ID);
        Arc::new(Schema::new(self.file_fields(Some(updated))))
    }

    /// The columns of a bulk file: the same without `_updated`, which was not known when it was written.
    pub fn bulk_file(&self) -> SchemaRef {
        Arc::new(Schema::new(self.file_fields(None)))
    }

    fn file_fields(&self, updated: Option<Field>) -> Vec<Field> {
        let mut fields = vec![with_field_id(id_field(), ID_COLUMN_ID)];
        for column in &self.columns {
            fields.push(with_field_id(Field::new(&column.name, column.data_type.clone(), true), column.id));
        }
        fields.extend(updated);
        fields.push(with_field_id(deleted_field(), DELETED_COLUMN_ID));
        fields
    }
}

/// Columns as Arrow fields.
pub(crate) fn user_fields(columns: &[Column]) -> Vec<Field> {
    columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable)).collect()
}

fn with_field_id(field: Field, id: u32) -> Field {
    field.with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]))
}

/// A type is kept as the hex of an Arrow IPC schema message with one field: the only encoding of types that Arrow
/// promises to keep.
fn write_type<S: Serializer>(data_type: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
    let schema = Schema::new(vec![Field::new("", data_type.clone(), true)]);
    let encoded = IpcSchemaEncoder::new().schema_to_fb(&schema);
    let hex: String = encoded.finished_data().iter().map(|byte| format!("{byte:02x}")).collect();
    serializer.serialize_str(&hex)
}

fn read_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
    use serde::de::Error;
    let hex = String::deserialize(deserializer)?;
    let bytes = from_hex(&hex).ok_or_else(|| D::Error::custom("a column type is not hex"))?;
    let message = root_as_schema(&bytes).map_err(D::Error::custom)?;
    let schema = fb_to_schema(message);
    schema.fields().first().map(|f| f.data_type().clone()).ok_or_else(|| D::Error::custom("a column type is empty"))
}

/// The bytes that hex digits stand for.
pub(crate) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Fields, TimeUnit};

    use super::*;

    #[test]
    fn every_kind_of_type_survives_json() {
        let types = [
            DataType::Int8,
            DataType::Decimal128(38, 10),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::new_list(DataType::Utf8, true),
            DataType::Struct(Fields::from(vec![Field::new("a", DataType::Float16, false)])),
            DataType::FixedSizeBinary(16),
        ];
        let fields: Vec<Field> =
            types.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.clone(), i % 2 == 0)).collect();
        let schema = TableSchema::first(&fields);
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(serde_json::from_str::<TableSchema>(&json).unwrap(), schema);
        assert_eq!(schema.columns[0].id, FIRST_USER_COLUMN_ID);
    }

    #[test]
    fn damaged_types_are_errors() {
        for bad in ["zz", "0", "00", "ffffffffffffffff"] {
            let json = format!(r#"{{"id":16,"name":"a","nullable":true,"type":"{bad}"}}"#);
            assert!(serde_json::from_str::<Column>(&json).is_err(), "{bad}");
        }
    }
}
