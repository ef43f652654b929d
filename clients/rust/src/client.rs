//! The client: one session on a server.

use std::collections::HashMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, CommandGetDbSchemas, CommandGetTables, CommandStatementIngest,
    CommandStatementQuery, CommandStatementUpdate, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use bytes::Bytes;
use futures::Stream;

use crate::error::{Error, Result};
use crate::rows::Rows;
use crate::statement::Statement;
use crate::tls::Tls;
use crate::transaction::Transaction;
use crate::wire::{Wire, record_count, schema_in};

/// A session on a server. Clones share it; calls may run at the same time.
#[derive(Debug, Clone)]
pub struct Client {
    wire: Wire,
}

/// What [`Client::ingest`] does with the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// Creates it; an error when it exists.
    Create,
    /// Adds to it; an error when it is missing.
    Append,
    /// Drops it if it exists, and creates it.
    Replace,
    /// Adds to it, and creates it when it is missing.
    CreateAppend,
}

/// The key of [`TableEntry::rows`] in a table's schema.
const ROWS: &str = "seracdb:rows";
/// The key of [`TableEntry::has_default`] in a column's field.
const HAS_DEFAULT: &str = "seracdb:has_default";
/// That of [`TableEntry::is_read_only`].
const IS_READ_ONLY: &str = "ARROW:FLIGHT:SQL:IS_READ_ONLY";

/// Whose rows the table holds that an ingest creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// One set of rows for all who have a right to it.
    Shared,
    /// A set of rows per user.
    User,
}

/// A table as the server lists it.
#[derive(Debug, Clone)]
pub struct TableEntry {
    /// Namespace, which Flight SQL calls a schema.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `TABLE`, `LOCAL TEMPORARY`, `SYSTEM TABLE` or `VIEW`.
    pub table_type: String,
    /// All columns, system columns included.
    pub schema: SchemaRef,
}

impl TableEntry {
    /// The server's name of the rows that the session's user sees in the table. Another table has another one, also if it has
    /// this one's name later, and so has another user's part of a `USER` table. `None` for what holds no rows.
    pub fn rows(&self) -> Option<&str> {
        self.schema.metadata().get(ROWS).map(String::as_str)
    }

    /// Whether a column has a DEFAULT: rows may come without it, also if it is NOT NULL.
    pub fn has_default(&self, column: &str) -> bool {
        self.says(column, HAS_DEFAULT)
    }

    /// Whether the server alone writes a column: it is GENERATED, a system column, or one of a view.
    pub fn is_read_only(&self, column: &str) -> bool {
        self.says(column, IS_READ_ONLY)
    }

    fn says(&self, column: &str, key: &str) -> bool {
        let field = self.schema.field_with_name(column).ok();
        field.and_then(|field| field.metadata().get(key)).is_some_and(|said| said == "1")
    }
}

impl Client {
    /// Connects and logs in. `uri`: `grpc://HOST:PORT`, or `grpc+tls://HOST:PORT` to a server whose certificate this machine
    /// trusts. Errors: `Unavailable` when nobody answers there, `Unauthenticated` for a wrong user or password.
    pub async fn connect(uri: &str, user: &str, password: &str) -> Result<Self> {
        Self::connect_with(uri, user, password, &Tls::default()).await
    }

    /// The same to a server whose certificate is of another CA, or that wants one of its client.
    pub async fn connect_with(uri: &str, user: &str, password: &str, tls: &Tls) -> Result<Self> {
        Ok(Self { wire: Wire::connect(uri, user, password, tls).await? })
    }

    /// Runs a query.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        self.wire.query(sql, None).await
    }

    /// Runs an update or DDL; gives the number of rows inserted, updated or deleted.
    pub async fn update(&self, sql: &str) -> Result<u64> {
        self.wire.update(sql, None).await
    }

    /// Plans a statement, which may have parameters: `?` or `$1`, `$2`, ….
    pub async fn prepare(&self, sql: &str) -> Result<Statement> {
        self.wire.prepare(sql, None).await
    }

    /// Begins a transaction: a snapshot of all tables, and changes that others see when it is committed.
    pub async fn begin(&self) -> Result<Transaction> {
        Transaction::begin(self.wire.clone()).await
    }

    /// Loads batches into a table as one atomic commit; gives the number of rows. `table`: a name in the session's
    /// namespace, or `namespace.name`. An error among the batches leaves nothing behind.
    pub async fn ingest(
        &self,
        table: &str,
        schema: SchemaRef,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        mode: IngestMode,
    ) -> Result<u64> {
        self.wire.ingest(table, schema, batches, (mode, TableKind::Shared), None).await
    }

    /// All tables, sorted by namespace and name.
    pub async fn tables(&self) -> Result<Vec<TableEntry>> {
        let command = CommandGetTables { include_schema: true, ..Default::default() };
        let mut tables = Vec::new();
        for batch in self.wire.get(&command).await?.collect().await? {
            let (namespaces, names, types) = (text(&batch, 1)?, text(&batch, 2)?, text(&batch, 3)?);
            let schemas = batch.columns().get(4).and_then(|column| column.as_binary_opt::<i32>());
            let schemas = schemas.ok_or_else(|| Error::answer("the list of tables has no schemas"))?;
            for row in 0..batch.num_rows() {
                tables.push(TableEntry {
                    namespace: namespaces.value(row).to_owned(),
                    name: names.value(row).to_owned(),
                    table_type: types.value(row).to_owned(),
                    schema: schema_in(Bytes::copy_from_slice(schemas.value(row)))?,
                });
            }
        }
        Ok(tables)
    }

    /// All namespaces, sorted.
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for batch in self.wire.get(&CommandGetDbSchemas::default()).await?.collect().await? {
            names.extend(text(&batch, 1)?.iter().flatten().map(str::to_owned));
        }
        Ok(names)
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Ends the session; its other clones no longer work either.
    pub async fn close(self) -> Result<()> {
        self.wire.action("CloseSession", Vec::new()).await?;
        Ok(())
    }
}

impl Wire {
    pub(crate) async fn query(&self, sql: &str, transaction: Option<Bytes>) -> Result<Rows> {
        self.get(&CommandStatementQuery { query: sql.to_owned(), transaction_id: transaction }).await
    }

    pub(crate) async fn update(&self, sql: &str, transaction: Option<Bytes>) -> Result<u64> {
        let command = CommandStatementUpdate { query: sql.to_owned(), transaction_id: transaction };
        record_count(&self.put(&command).await?)
    }

    pub(crate) async fn prepare(&self, sql: &str, transaction: Option<Bytes>) -> Result<Statement> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: transaction };
        Statement::new(self.clone(), self.ask("CreatePreparedStatement", &request).await?)
    }

    pub(crate) async fn ingest(
        &self,
        table: &str,
        schema: SchemaRef,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        (mode, kind): (IngestMode, TableKind),
        transaction: Option<Bytes>,
    ) -> Result<u64> {
        let (namespace, table) = match table.split_once('.') {
            Some((namespace, table)) => (Some(namespace.to_owned()), table),
            None => (None, table),
        };
        let command = CommandStatementIngest {
            table_definition_options: Some(mode.options()),
            table: table.to_owned(),
            schema: namespace,
            transaction_id: transaction,
            options: kind.options(),
            ..Default::default()
        };
        record_count(&self.put_batches(&command, schema, batches).await?)
    }
}

impl TableKind {
    /// Servers that know no option make tables of the usual kind.
    fn options(self) -> HashMap<String, String> {
        match self {
            Self::Shared => HashMap::new(),
            Self::User => HashMap::from([("table_kind".to_owned(), "user".to_owned())]),
        }
    }
}

impl IngestMode {
    fn options(self) -> TableDefinitionOptions {
        let (if_not_exist, if_exists) = match self {
            Self::Create => (TableNotExistOption::Create, TableExistsOption::Fail),
            Self::Append => (TableNotExistOption::Fail, TableExistsOption::Append),
            Self::Replace => (TableNotExistOption::Create, TableExistsOption::Replace),
            Self::CreateAppend => (TableNotExistOption::Create, TableExistsOption::Append),
        };
        TableDefinitionOptions { if_not_exist: if_not_exist as i32, if_exists: if_exists as i32 }
    }
}

fn text(batch: &RecordBatch, column: usize) -> Result<&arrow::array::StringArray> {
    let column = batch.columns().get(column).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| Error::answer("a column of the catalog is not as the protocol says"))
}
