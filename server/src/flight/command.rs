//! What a request asks for, decoded once at the edge; everything behind matches on these types.

use std::collections::HashMap;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    Any, Command, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandStatementIngest, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightDescriptor, Ticket};
use prost::Message;
use seracdb_engine::{IfExists, IfMissing, IngestTarget, TableKind, TransactionId};
use seracdb_proto::{PreparedHandle, StatementTicket};
use tonic::Status;

use super::status::unreadable;
use super::transactions::transaction_id;

/// The catalog that every table is in.
pub(crate) const CATALOG: &str = "seracdb";

/// The option of an ingest that says of what kind the table is that it creates: `shared` or `user`.
pub(crate) const TABLE_KIND: &str = "table_kind";

/// Bytes of a LIKE pattern for names.
const PATTERN_BYTES_MAX: usize = 1024;

/// Key of a prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StatementId(pub(crate) [u8; 16]);

/// Key of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TicketId(pub(crate) [u8; 16]);

/// GetFlightInfo and GetSchema.
#[derive(Debug, PartialEq)]
pub(crate) enum InfoCommand {
    Statement { sql: String, transaction: Option<TransactionId> },
    Prepared(StatementId),
    Metadata(Metadata),
}

/// DoGet.
#[derive(Debug, PartialEq)]
pub(crate) enum GetCommand {
    Ticket(TicketId),
    Prepared(StatementId),
    Metadata(Metadata),
}

/// DoPut.
#[derive(Debug)]
pub(crate) enum PutCommand {
    Update { sql: String, transaction: Option<TransactionId> },
    Bind(StatementId),
    PreparedUpdate(StatementId),
    Ingest(IngestTarget, Option<TransactionId>),
}

/// Commands answered from the catalog, without running SQL.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Metadata {
    Catalogs,
    DbSchemas(CommandGetDbSchemas),
    Tables(CommandGetTables),
    TableTypes,
    SqlInfo(CommandGetSqlInfo),
    XdbcTypeInfo(CommandGetXdbcTypeInfo),
    PrimaryKeys(CommandGetPrimaryKeys),
    /// Exported keys, imported keys, cross reference: the same columns, and no rows, for there are no foreign keys.
    ForeignKeys,
}

impl InfoCommand {
    pub(crate) fn decode(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        match command_of(descriptor)? {
            Command::CommandStatementQuery(query) => {
                let transaction = transaction_id(query.transaction_id.as_ref())?;
                Ok(Self::Statement { sql: query.query, transaction })
            }
            Command::CommandPreparedStatementQuery(query) => {
                Ok(Self::Prepared(statement_id(&query.prepared_statement_handle)?))
            }
            // A prepared update on the query path: executed once, its count is the result.
            Command::CommandPreparedStatementUpdate(update) => {
                Ok(Self::Prepared(statement_id(&update.prepared_statement_handle)?))
            }
            Command::CommandStatementUpdate(update) => {
                let transaction = transaction_id(update.transaction_id.as_ref())?;
                Ok(Self::Statement { sql: update.query, transaction })
            }
            other => Metadata::decode(other).map(Self::Metadata),
        }
    }
}

impl GetCommand {
    pub(crate) fn decode(ticket: &Ticket) -> Result<Self, Status> {
        match command_in(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => Ok(Self::Ticket(ticket_id(&ticket.statement_handle)?)),
            Command::CommandPreparedStatementQuery(query) => {
                Ok(Self::Prepared(statement_id(&query.prepared_statement_handle)?))
            }
            other => Metadata::decode(other).map(Self::Metadata),
        }
    }
}

impl PutCommand {
    pub(crate) fn decode(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        match command_of(descriptor)? {
            Command::CommandStatementUpdate(update) => {
                let transaction = transaction_id(update.transaction_id.as_ref())?;
                Ok(Self::Update { sql: update.query, transaction })
            }
            Command::CommandPreparedStatementQuery(query) => {
                Ok(Self::Bind(statement_id(&query.prepared_statement_handle)?))
            }
            Command::CommandPreparedStatementUpdate(update) => {
                Ok(Self::PreparedUpdate(statement_id(&update.prepared_statement_handle)?))
            }
            Command::CommandStatementIngest(ingest) => {
                let transaction = transaction_id(ingest.transaction_id.as_ref())?;
                Ok(Self::Ingest(ingest_target(ingest)?, transaction))
            }
            other => Err(unsupported(&other)),
        }
    }
}

impl Metadata {
    fn decode(command: Command) -> Result<Self, Status> {
        Ok(match command {
            Command::CommandGetCatalogs(_) => Self::Catalogs,
            Command::CommandGetDbSchemas(command) => {
                check_patterns([&command.db_schema_filter_pattern])?;
                Self::DbSchemas(command)
            }
            Command::CommandGetTables(command) => {
                check_patterns([&command.db_schema_filter_pattern, &command.table_name_filter_pattern])?;
                Self::Tables(command)
            }
            Command::CommandGetTableTypes(_) => Self::TableTypes,
            Command::CommandGetSqlInfo(command) => Self::SqlInfo(command),
            Command::CommandGetXdbcTypeInfo(command) => Self::XdbcTypeInfo(command),
            Command::CommandGetPrimaryKeys(command) => Self::PrimaryKeys(command),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Self::ForeignKeys,
            other => return Err(unsupported(&other)),
        })
    }
}

/// Refuses patterns that are longer than any name: matching takes as long as pattern and name are long.
fn check_patterns<const N: usize>(patterns: [&Option<String>; N]) -> Result<(), Status> {
    match patterns.into_iter().flatten().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        true => Err(Status::invalid_argument(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"))),
        false => Ok(()),
    }
}

/// The key inside a prepared statement handle.
pub(crate) fn statement_id(handle: &[u8]) -> Result<StatementId, Status> {
    let handle = PreparedHandle::decode(handle).map_err(unreadable)?;
    let id = handle.id.as_ref().try_into().map_err(|_| Status::invalid_argument("no handle of this server"))?;
    Ok(StatementId(id))
}

/// The key inside a `TicketStatementQuery`.
fn ticket_id(handle: &[u8]) -> Result<TicketId, Status> {
    let ticket = StatementTicket::decode(handle).map_err(unreadable)?;
    let id = ticket.id.as_ref().try_into().map_err(|_| Status::invalid_argument("no ticket of this server"))?;
    Ok(TicketId(id))
}

/// The command inside serialized `Any` bytes.
pub(crate) fn command_in(bytes: &[u8]) -> Result<Command, Status> {
    let any = Any::decode(bytes).map_err(unreadable)?;
    Command::try_from(any).map_err(unreadable)
}

/// What a client reads that sent something else than was expected.
pub(crate) fn unsupported(command: &Command) -> Status {
    let name = command.type_url().rsplit('/').next().unwrap_or_default();
    match command {
        Command::Unknown(_) if name.is_empty() => Status::invalid_argument(
            "no Flight SQL command: the bytes must be a google.protobuf.Any that holds a Flight SQL message",
        ),
        Command::Unknown(_) => Status::invalid_argument(format!("'{name}' is no Flight SQL command of this server")),
        Command::CommandStatementSubstraitPlan(_) => {
            Status::unimplemented("Substrait plans are not supported: send SQL")
        }
        _ => Status::unimplemented(format!("'{name}' is not supported by this call")),
    }
}

fn command_of(descriptor: &FlightDescriptor) -> Result<Command, Status> {
    if descriptor.r#type() == DescriptorType::Path {
        return Err(Status::invalid_argument("paths are not supported: send a Flight SQL command in the descriptor"));
    }
    command_in(&descriptor.cmd)
}

fn ingest_target(ingest: CommandStatementIngest) -> Result<IngestTarget, Status> {
    if ingest.temporary && ingest.schema.as_ref().is_some_and(|schema| !schema.is_empty()) {
        return Err(Status::invalid_argument("a temporary table is in no schema: leave the schema out"));
    }
    if let Some(catalog) = ingest.catalog.filter(|catalog| catalog != CATALOG) {
        return Err(Status::not_found(format!("no catalog '{catalog}': the only one is '{CATALOG}'")));
    }
    let kind = table_kind(&ingest.options)?;
    if ingest.table.is_empty() {
        return Err(Status::invalid_argument("ingest needs the name of a table"));
    }
    let options = ingest.table_definition_options.unwrap_or_default();
    let if_missing = match options.if_not_exist() {
        TableNotExistOption::Create => IfMissing::Create,
        TableNotExistOption::Fail => IfMissing::Fail,
        TableNotExistOption::Unspecified => return Err(incomplete_ingest("if_not_exist: CREATE or FAIL")),
    };
    let if_exists = match options.if_exists() {
        TableExistsOption::Fail => IfExists::Fail,
        TableExistsOption::Append => IfExists::Append,
        TableExistsOption::Replace => IfExists::Replace,
        TableExistsOption::Unspecified => return Err(incomplete_ingest("if_exists: FAIL, APPEND or REPLACE")),
    };
    let (namespace, temporary) = (ingest.schema.filter(|_| !ingest.temporary), ingest.temporary);
    Ok(IngestTarget {
        namespace,
        table: ingest.table,
        temporary,
        kind,
        options: Default::default(),
        if_missing,
        if_exists,
    })
}

/// Of what kind a table becomes that an ingest creates.
fn table_kind(options: &HashMap<String, String>) -> Result<TableKind, Status> {
    if let Some(option) = options.keys().find(|option| *option != TABLE_KIND) {
        return Err(Status::invalid_argument(format!("unknown ingest option '{option}'")));
    }
    match options.get(TABLE_KIND).map(String::as_str) {
        None | Some("shared") => Ok(TableKind::Shared),
        Some("user") => Ok(TableKind::User),
        Some(other) => {
            Err(Status::invalid_argument(format!("ingest option '{TABLE_KIND}' is '{other}': use 'shared' or 'user'")))
        }
    }
}

fn incomplete_ingest(missing: &str) -> Status {
    Status::invalid_argument(format!("ingest needs table_definition_options.{missing}"))
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{
        CommandGetCatalogs, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt,
        TableDefinitionOptions, TicketStatementQuery,
    };
    use bytes::Bytes;
    use tonic::Code;

    use super::*;

    fn descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
        FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
    }

    fn query(transaction: Option<&'static [u8]>) -> CommandStatementQuery {
        CommandStatementQuery { query: "SELECT 1".into(), transaction_id: transaction.map(Bytes::from_static) }
    }

    #[test]
    fn statements_and_metadata_are_told_apart() {
        let decoded = InfoCommand::decode(&descriptor(&query(None))).unwrap();
        assert_eq!(decoded, InfoCommand::Statement { sql: "SELECT 1".into(), transaction: None });
        let decoded = InfoCommand::decode(&descriptor(&CommandGetCatalogs {})).unwrap();
        assert_eq!(decoded, InfoCommand::Metadata(Metadata::Catalogs));
    }

    #[test]
    fn an_empty_transaction_is_none_and_a_foreign_one_is_refused() {
        assert!(InfoCommand::decode(&descriptor(&query(Some(b"")))).is_ok());
        let status = InfoCommand::decode(&descriptor(&query(Some(b"tx")))).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let named = InfoCommand::decode(&descriptor(&query(Some(&[7; 16])))).unwrap();
        let transaction = Some(TransactionId([7; 16]));
        assert_eq!(named, InfoCommand::Statement { sql: "SELECT 1".into(), transaction });
    }

    #[test]
    fn unknown_types_are_named() {
        let any = Any { type_url: "type.googleapis.com/a.b.Strange".into(), value: Bytes::new() };
        let status = InfoCommand::decode(&FlightDescriptor::new_cmd(any.encode_to_vec())).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("a.b.Strange"), "{status}");
    }

    #[test]
    fn truncated_messages_are_the_clients_fault() {
        let bytes = query(None).as_any().encode_to_vec();
        for length in 0..bytes.len() {
            match InfoCommand::decode(&FlightDescriptor::new_cmd(bytes[..length].to_vec())) {
                // Cut exactly after the type: all fields are at their defaults.
                Ok(decoded) => {
                    assert_eq!(decoded, InfoCommand::Statement { sql: String::new(), transaction: None });
                }
                Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "at {length}: {status}"),
            }
        }
        let status = InfoCommand::decode(&FlightDescriptor::new_path(vec!["a".into()])).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }

    #[test]
    fn handles_and_tickets_carry_their_keys() {
        let handle = PreparedHandle { id: vec![1; 16].into() }.encode_to_vec();
        let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.into() };
        let decoded = InfoCommand::decode(&descriptor(&command)).unwrap();
        assert_eq!(decoded, InfoCommand::Prepared(StatementId([1; 16])));

        let handle = StatementTicket { id: vec![2; 16].into() }.encode_to_vec();
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        let decoded = GetCommand::decode(&Ticket::new(ticket.as_any().encode_to_vec())).unwrap();
        assert_eq!(decoded, GetCommand::Ticket(TicketId([2; 16])));

        let foreign = CommandPreparedStatementQuery { prepared_statement_handle: Bytes::from_static(b"foreign") };
        assert_eq!(InfoCommand::decode(&descriptor(&foreign)).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn ingest_modes() {
        let ingest = |if_not_exist: TableNotExistOption, if_exists: TableExistsOption| CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: if_not_exist as i32,
                if_exists: if_exists as i32,
            }),
            table: "t".into(),
            ..Default::default()
        };
        let target = ingest_target(ingest(TableNotExistOption::Create, TableExistsOption::Append)).unwrap();
        assert_eq!((target.if_missing, target.if_exists), (IfMissing::Create, IfExists::Append));

        let unspecified = ingest(TableNotExistOption::Create, TableExistsOption::Unspecified);
        assert_eq!(ingest_target(unspecified).unwrap_err().code(), Code::InvalidArgument);
        let of_kind = |option: &str, kind: &str| {
            let mut ingest = ingest(TableNotExistOption::Create, TableExistsOption::Fail);
            ingest.options.insert(option.into(), kind.into());
            ingest_target(ingest)
        };
        assert_eq!(target.kind, TableKind::Shared);
        assert_eq!(of_kind(TABLE_KIND, "user").unwrap().kind, TableKind::User);
        for (option, kind) in [(TABLE_KIND, "stream"), ("table_kinds", "user")] {
            assert_eq!(of_kind(option, kind).unwrap_err().code(), Code::InvalidArgument);
        }
        let mut temporary = ingest(TableNotExistOption::Create, TableExistsOption::Fail);
        temporary.temporary = true;
        assert!(ingest_target(temporary.clone()).unwrap().temporary);
        temporary.schema = Some("default".into());
        assert_eq!(ingest_target(temporary).unwrap_err().code(), Code::InvalidArgument);
        let mut elsewhere = ingest(TableNotExistOption::Create, TableExistsOption::Fail);
        elsewhere.catalog = Some("other".into());
        assert_eq!(ingest_target(elsewhere).unwrap_err().code(), Code::NotFound);
    }
}
