//! DoAction: prepared statements, sessions, cancelling.

use std::collections::BTreeMap;
use std::time::Instant;

use arrow_flight::sql::{ActionCancelQueryResult, Any, Command, EndTransaction, ProstMessageExt};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightEndpoint, FlightInfo,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message;
use seracdb_engine::{ErrorKind, TransactionId};
use seracdb_proto::session_option_value::OptionValue;
use seracdb_proto::set_session_options_result::{Error as OptionError, ErrorValue};
use seracdb_proto::{
    CloseSessionRequest, CloseSessionResult, GetSessionOptionsRequest, GetSessionOptionsResult, SessionOptionValue,
    SetSessionOptionsRequest, SetSessionOptionsResult, close_session_result,
};
use tonic::Status;

use super::command::{CATALOG, GetCommand, StatementId, TicketId, command_in, statement_id, unsupported};
use super::status::unreadable;
use super::transactions::{SavepointHandle, savepoint_handle, transaction_id, wanted_transaction};
use super::{Flight, status};
use crate::auth::Call;

/// The namespace of a session that has set none.
const NAMESPACE_DEFAULT: &str = "default";

/// The actions: name and what they do.
const ACTIONS: [(&str, &str); 12] = [
    ("CreatePreparedStatement", "Plans a statement for repeated execution."),
    ("ClosePreparedStatement", "Forgets a prepared statement."),
    ("BeginTransaction", "Begins a transaction."),
    ("EndTransaction", "Commits a transaction or rolls it back."),
    ("BeginSavepoint", "Sets a savepoint in a transaction."),
    ("EndSavepoint", "Releases a savepoint or undoes what was changed since."),
    ("CancelFlightInfo", "Cancels the statement of a FlightInfo."),
    ("RenewFlightEndpoint", "Has the time of an endpoint's ticket start again."),
    ("CancelQuery", "Cancels the statement of a FlightInfo (the older form of CancelFlightInfo)."),
    ("SetSessionOptions", "Sets 'catalog' and 'schema' of the session."),
    ("GetSessionOptions", "Gives 'catalog' and 'schema' of the session."),
    ("CloseSession", "Ends the session; its token is no longer valid."),
];

/// What an action asks for.
#[derive(Debug)]
enum ActionCommand {
    Prepare { sql: String, transaction: Option<TransactionId> },
    Begin,
    End { transaction: TransactionId, commit: bool },
    BeginSavepoint { transaction: TransactionId, name: String },
    EndSavepoint { savepoint: SavepointHandle, release: bool },
    Close(StatementId),
    CancelFlightInfo(Vec<TicketId>),
    CancelQuery(Vec<TicketId>),
    Renew(FlightEndpoint, TicketId),
    SetSessionOptions(BTreeMap<String, SessionOptionValue>),
    GetSessionOptions,
    CloseSession,
}

/// The answer to ListActions.
pub(super) fn actions() -> Vec<ActionType> {
    ACTIONS.iter().map(|(name, text)| ActionType { r#type: (*name).into(), description: (*text).into() }).collect()
}

/// Whether an action only takes away what ends with a session anyway.
pub(super) fn closes(action: &Action) -> bool {
    matches!(action.r#type.as_str(), "ClosePreparedStatement" | "CloseSession")
}

impl ActionCommand {
    fn decode(action: &Action) -> Result<Self, Status> {
        match action.r#type.as_str() {
            "CancelFlightInfo" => {
                let request = CancelFlightInfoRequest::decode(action.body.clone()).map_err(unreadable)?;
                Ok(Self::CancelFlightInfo(tickets_of(&request.info.unwrap_or_default())))
            }
            "RenewFlightEndpoint" => {
                let request = RenewFlightEndpointRequest::decode(action.body.clone()).map_err(unreadable)?;
                let endpoint = request.endpoint.unwrap_or_default();
                match endpoint.ticket.as_ref().map(GetCommand::decode) {
                    Some(Ok(GetCommand::Ticket(id))) => Ok(Self::Renew(endpoint, id)),
                    _ => Err(Status::invalid_argument("only endpoints of statements have a time: renew one of those")),
                }
            }
            "SetSessionOptions" => {
                let request = SetSessionOptionsRequest::decode(action.body.clone()).map_err(unreadable)?;
                Ok(Self::SetSessionOptions(request.session_options))
            }
            "GetSessionOptions" => {
                GetSessionOptionsRequest::decode(action.body.clone()).map_err(unreadable)?;
                Ok(Self::GetSessionOptions)
            }
            "CloseSession" => {
                CloseSessionRequest::decode(action.body.clone()).map_err(unreadable)?;
                Ok(Self::CloseSession)
            }
            "CreatePreparedSubstraitPlan" => Err(Status::unimplemented("Substrait plans are not supported: send SQL")),
            "CreatePreparedStatement"
            | "ClosePreparedStatement"
            | "CancelQuery"
            | "BeginTransaction"
            | "EndTransaction"
            | "BeginSavepoint"
            | "EndSavepoint" => Self::decode_sql(action),
            other => Err(Status::unimplemented(format!("unknown action '{other}': ListActions gives the known ones"))),
        }
    }

    /// The actions of Flight SQL, whose bodies are wrapped in `Any`.
    fn decode_sql(action: &Action) -> Result<Self, Status> {
        match command_in(&action.body)? {
            Command::ActionCreatePreparedStatementRequest(request) => {
                let transaction = transaction_id(request.transaction_id.as_ref())?;
                Ok(Self::Prepare { sql: request.query, transaction })
            }
            Command::ActionClosePreparedStatementRequest(request) => {
                Ok(Self::Close(statement_id(&request.prepared_statement_handle)?))
            }
            Command::ActionBeginTransactionRequest(_) => Ok(Self::Begin),
            Command::ActionEndTransactionRequest(request) => {
                let transaction = wanted_transaction(&request.transaction_id)?;
                match request.action() {
                    EndTransaction::Commit => Ok(Self::End { transaction, commit: true }),
                    EndTransaction::Rollback => Ok(Self::End { transaction, commit: false }),
                    EndTransaction::Unspecified => {
                        Err(Status::invalid_argument("EndTransaction needs an action: COMMIT or ROLLBACK"))
                    }
                }
            }
            Command::ActionBeginSavepointRequest(request) => {
                let transaction = wanted_transaction(&request.transaction_id)?;
                Ok(Self::BeginSavepoint { transaction, name: request.name })
            }
            Command::ActionEndSavepointRequest(request) => {
                let savepoint = savepoint_handle(&request.savepoint_id)?;
                // arrow-flight keeps the enumeration to itself.
                match request.action {
                    1 => Ok(Self::EndSavepoint { savepoint, release: true }),
                    2 => Ok(Self::EndSavepoint { savepoint, release: false }),
                    _ => Err(Status::invalid_argument("EndSavepoint needs an action: RELEASE or ROLLBACK")),
                }
            }
            Command::ActionCancelQueryRequest(request) => {
                let info = FlightInfo::decode(request.info).map_err(unreadable)?;
                Ok(Self::CancelQuery(tickets_of(&info)))
            }
            other => Err(unsupported(&other)),
        }
    }
}

/// The tickets of SeracDB in a FlightInfo. Metadata has others; there is nothing to cancel about them.
fn tickets_of(info: &FlightInfo) -> Vec<TicketId> {
    let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    tickets
        .filter_map(|ticket| match GetCommand::decode(ticket) {
            Ok(GetCommand::Ticket(id)) => Some(id),
            _ => None,
        })
        .collect()
}

impl Flight {
    /// DoAction; gives the body of its one result, `None` when the action has none.
    pub(super) async fn action(&self, call: &Call, action: &Action, client: &str) -> Result<Option<Bytes>, Status> {
        Ok(match ActionCommand::decode(action)? {
            ActionCommand::Prepare { sql, transaction } => {
                Some(self.create_prepared(call, sql, transaction, client).await?)
            }
            ActionCommand::Begin => Some(self.begin(call)?),
            ActionCommand::End { transaction, commit } => {
                self.end(call, transaction, commit).await?;
                None
            }
            ActionCommand::BeginSavepoint { transaction, name } => {
                Some(self.set_savepoint(call, transaction, &name)?)
            }
            ActionCommand::EndSavepoint { savepoint, release } => {
                self.end_savepoint(call, savepoint, release).await?;
                None
            }
            ActionCommand::Close(id) => {
                self.close_prepared(call, id);
                None
            }
            ActionCommand::CancelFlightInfo(tickets) => {
                self.cancel(call, &tickets)?;
                Some(body(&CancelFlightInfoResult { status: CancelStatus::Cancelled as i32 }))
            }
            ActionCommand::CancelQuery(tickets) => {
                self.cancel(call, &tickets)?;
                let result = ActionCancelQueryResult { result: CancelStatus::Cancelled as i32 };
                Some(body::<Any>(&result.as_any()))
            }
            ActionCommand::Renew(endpoint, id) => Some(body(&self.renew(call, endpoint, id)?)),
            ActionCommand::SetSessionOptions(options) => Some(body(&self.set_options(call, options)?)),
            ActionCommand::GetSessionOptions => Some(body(&session_options(call)?)),
            ActionCommand::CloseSession => {
                if let Some(token) = call.token {
                    self.auth.close(token);
                    self.statements.forget(token);
                }
                Some(body(&CloseSessionResult { status: close_session_result::Status::Closed as i32 }))
            }
        })
    }

    fn cancel(&self, call: &Call, tickets: &[TicketId]) -> Result<(), Status> {
        let now = Instant::now();
        let cancelled = tickets.iter().filter(|id| self.tickets.cancel(call.principal(), **id, now)).count();
        if cancelled == 0 {
            return Err(Status::not_found("no such statement: it ended, was cancelled or is another user's"));
        }
        Ok(())
    }

    fn set_options(
        &self,
        call: &Call,
        options: BTreeMap<String, SessionOptionValue>,
    ) -> Result<SetSessionOptionsResult, Status> {
        with_token(call)?;
        let mut errors = BTreeMap::new();
        for (name, value) in options {
            if let Err(error) = self.set_option(call, &name, value.option_value)? {
                errors.insert(name, OptionError { value: error as i32 });
            }
        }
        Ok(SetSessionOptionsResult { errors })
    }

    /// Sets one option; no value: back to its default.
    fn set_option(
        &self,
        call: &Call,
        name: &str,
        value: Option<OptionValue>,
    ) -> Result<Result<(), ErrorValue>, Status> {
        let default = match name {
            "catalog" => CATALOG,
            "schema" => NAMESPACE_DEFAULT,
            _ => return Ok(Err(ErrorValue::InvalidName)),
        };
        let value = match value {
            None => default.to_owned(),
            Some(OptionValue::StringValue(value)) => value,
            Some(_) => return Ok(Err(ErrorValue::InvalidValue)),
        };
        if name == "catalog" {
            return Ok(if value == CATALOG { Ok(()) } else { Err(ErrorValue::InvalidValue) });
        }
        match call.session.set_namespace(&self.engine, &value) {
            Ok(()) => Ok(Ok(())),
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::InvalidArgument) => {
                Ok(Err(ErrorValue::InvalidValue))
            }
            Err(error) => Err(status::from_engine(error)),
        }
    }
}

fn session_options(call: &Call) -> Result<GetSessionOptionsResult, Status> {
    with_token(call)?;
    let text = |value: String| SessionOptionValue { option_value: Some(OptionValue::StringValue(value)) };
    let options = [("catalog", CATALOG.to_owned()), ("schema", call.session.namespace())];
    let session_options = options.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
    Ok(GetSessionOptionsResult { session_options })
}

/// Options of a session that ends with the call would be lost in silence.
fn with_token(call: &Call) -> Result<(), Status> {
    match call.token {
        Some(_) => Ok(()),
        None => Err(Status::failed_precondition(
            "session options need a session: log in by Handshake and send its bearer token with every call, or keep cookies",
        )),
    }
}

pub(super) fn body<M: Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::ActionCreatePreparedStatementRequest;
    use tonic::Code;

    use super::*;

    fn decode(name: &str, body: Vec<u8>) -> Result<ActionCommand, Status> {
        ActionCommand::decode(&Action { r#type: name.into(), body: body.into() })
    }

    #[test]
    fn sql_actions_are_wrapped_and_session_actions_are_not() {
        let request = ActionCreatePreparedStatementRequest { query: "SELECT 1".into(), transaction_id: None };
        let decoded = decode("CreatePreparedStatement", request.as_any().encode_to_vec()).unwrap();
        assert!(matches!(decoded, ActionCommand::Prepare { sql, .. } if sql == "SELECT 1"));

        let value = SessionOptionValue { option_value: Some(OptionValue::StringValue("x".into())) };
        let request = SetSessionOptionsRequest { session_options: BTreeMap::from([("schema".to_owned(), value)]) };
        let decoded = decode("SetSessionOptions", request.encode_to_vec()).unwrap();
        assert!(matches!(decoded, ActionCommand::SetSessionOptions(options) if options.contains_key("schema")));
        assert!(matches!(decode("CloseSession", vec![]), Ok(ActionCommand::CloseSession)));
    }

    #[test]
    fn what_there_is_not_says_so() {
        let status = decode("Strange", vec![]).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("Strange"));
        assert_eq!(decode("SetSessionOptions", vec![0xff]).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(decode("CreatePreparedStatement", vec![0xff]).unwrap_err().code(), Code::InvalidArgument);
    }
}
