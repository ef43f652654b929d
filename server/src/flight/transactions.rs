//! Transactions and savepoints by name: begun and ended by actions, named by statements.
//!
//! A client with a session, by token or cookie, has its transactions in it, and they end with it. One that sends user and
//! password with each call has none: its transactions are known by name alone, and end when they are not used for too long.

use std::sync::Arc;

use arrow_flight::sql::{ActionBeginSavepointResult, ActionBeginTransactionResult, ProstMessageExt};
use bytes::Bytes;
use seracdb_engine::{End, SavepointId, Transaction, TransactionId};
use tonic::Status;

use super::action::body;
use super::{Flight, status};
use crate::auth::Call;

/// Bytes of a name.
const ID_LEN: usize = 16;

/// A savepoint as clients name it: its transaction and itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SavepointHandle {
    transaction: TransactionId,
    savepoint: SavepointId,
}

/// The transaction that a message names; `None` when it names none.
pub(super) fn transaction_id(id: Option<&Bytes>) -> Result<Option<TransactionId>, Status> {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
    let id = id.as_ref().try_into().map_err(|_| Status::invalid_argument("no transaction id of this server"))?;
    Ok(Some(TransactionId(id)))
}

/// The same where it must be named.
pub(super) fn wanted_transaction(id: &Bytes) -> Result<TransactionId, Status> {
    transaction_id(Some(id))?.ok_or_else(|| Status::invalid_argument("the transaction id is missing"))
}

/// The savepoint that a message names.
pub(super) fn savepoint_handle(id: &[u8]) -> Result<SavepointHandle, Status> {
    let unknown = || Status::invalid_argument("no savepoint id of this server");
    let (transaction, savepoint) = id.split_first_chunk::<ID_LEN>().ok_or_else(unknown)?;
    let savepoint = savepoint.try_into().map_err(|_| unknown())?;
    Ok(SavepointHandle { transaction: TransactionId(*transaction), savepoint: SavepointId(savepoint) })
}

impl Flight {
    /// The call as one of the transaction that it names.
    pub(super) fn within(&self, call: &Call, transaction: Option<TransactionId>) -> Result<Call, Status> {
        let Some(id) = transaction else { return Ok(call.clone()) };
        Ok(of_transaction(call, self.transaction(call, id)?))
    }

    fn transaction(&self, call: &Call, id: TransactionId) -> Result<Arc<Transaction>, Status> {
        self.engine.transaction(&call.session, id).map_err(status::from_engine)
    }

    /// The same for what was prepared in a transaction, or before there was one: drivers go on using it in the next one.
    pub(super) fn within_or_next(&self, call: &Call, transaction: Option<TransactionId>) -> Result<Call, Status> {
        let is_in_none = transaction.is_none() && call.session.transaction().is_none();
        match (self.within(call, transaction), call.session.only_begun()) {
            (found, Some(next)) if found.is_err() || is_in_none => Ok(of_transaction(call, next)),
            (found, _) => found,
        }
    }

    /// `BeginTransaction`; gives the body of its result.
    pub(super) fn begin(&self, call: &Call) -> Result<Bytes, Status> {
        let begun = self.engine.begin(&call.session, false, call.token.is_none()).map_err(status::from_engine)?;
        let result = ActionBeginTransactionResult { transaction_id: begun.id().0.to_vec().into() };
        match call.token {
            Some(_) => call.session.keep(begun),
            None => self.auth.begun(call, &begun),
        }
        Ok(body(&result.as_any()))
    }

    /// `EndTransaction`. Asked again, because the answer was lost, it says what has become of it.
    pub(super) async fn end(&self, call: &Call, id: TransactionId, commit: bool) -> Result<(), Status> {
        // Found before the session lets go of it.
        let transaction = self.transaction(call, id);
        call.session.forget(id);
        let wanted = if commit { End::Committed } else { End::RolledBack };
        let has_ended = || self.engine.end_of(&call.session, id).map_err(status::from_engine);
        if has_ended()? == Some(wanted) {
            return Ok(());
        }
        let transaction = transaction?;
        let (engine, session) = (self.engine.clone(), call.session.clone());
        let ended = self.queries.run(async move {
            // The session goes on until the end.
            let _session = session;
            match commit {
                true => engine.commit(transaction).await,
                false => engine.roll_back(&transaction).await,
            }
        });
        // Another call may have ended it meanwhile.
        match ended.await {
            Err(_) if has_ended()? == Some(wanted) => Ok(()),
            ended => ended.map_err(status::from_engine),
        }
    }

    /// `BeginSavepoint`; gives the body of its result.
    pub(super) fn set_savepoint(&self, call: &Call, id: TransactionId, name: &str) -> Result<Bytes, Status> {
        let savepoint = self.transaction(call, id)?.savepoint(name).map_err(status::from_engine)?;
        let handle = [id.0, savepoint.0].concat();
        Ok(body(&ActionBeginSavepointResult { savepoint_id: handle.into() }.as_any()))
    }

    /// `EndSavepoint`.
    pub(super) async fn end_savepoint(
        &self,
        call: &Call,
        handle: SavepointHandle,
        release: bool,
    ) -> Result<(), Status> {
        let transaction = self.transaction(call, handle.transaction)?;
        let ended = match release {
            true => transaction.release(|id, _| id == handle.savepoint),
            false => transaction.undo_to(|id, _| id == handle.savepoint).await,
        };
        ended.map_err(status::from_engine)
    }
}

fn of_transaction(call: &Call, transaction: Arc<Transaction>) -> Call {
    Call { session: Arc::new(call.session.within(transaction)), ..call.clone() }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn ids_of_others_are_refused() {
        assert_eq!(transaction_id(None).unwrap(), None);
        assert_eq!(transaction_id(Some(&Bytes::new())).unwrap(), None);
        assert_eq!(transaction_id(Some(&vec![7; 16].into())).unwrap(), Some(TransactionId([7; 16])));
        for length in [1, 15, 17, 64] {
            let status = transaction_id(Some(&vec![7; length].into())).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
        }
        assert_eq!(wanted_transaction(&Bytes::new()).unwrap_err().code(), Code::InvalidArgument);
        let handle = savepoint_handle(&[[1; 16], [2; 16]].concat()).unwrap();
        assert_eq!((handle.transaction, handle.savepoint), (TransactionId([1; 16]), SavepointId([2; 16])));
        for length in [0, 16, 31, 33] {
            assert_eq!(savepoint_handle(&vec![0; length]).unwrap_err().code(), Code::InvalidArgument, "{length}");
        }
    }
}
