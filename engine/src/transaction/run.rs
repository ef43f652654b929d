//! BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE, ROLLBACK TO, SET TRANSACTION: what SQL text says of the session's
//! transaction.

use std::sync::Arc;

use super::Transaction;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::session::Session;
use crate::sql::statement::TransactionStatement;

/// Runs one of them.
pub(crate) async fn run(engine: &Arc<Engine>, session: &Session, statement: &TransactionStatement) -> Result<()> {
    match statement {
        TransactionStatement::Begin { read_only } => {
            if session.is_of_one_call() {
                return Err(EngineError::invalid(
                    "BEGIN needs a session: log in by Handshake and send its bearer token with every call, or keep \
                     cookies, or begin the transaction by the action BeginTransaction",
                ));
            }
            if let Some(before) = session.transaction() {
                // One that was rolled back meanwhile: the client has to know.
                before.require_open()?;
                return Err(EngineError::invalid("a transaction is open already: COMMIT or ROLLBACK it first"));
            }
            session.set_current(engine.begin(session, *read_only, false)?);
            Ok(())
        }
        TransactionStatement::Commit => engine.commit(own(session, "COMMIT")?).await,
        TransactionStatement::Rollback => {
            let transaction = own(session, "ROLLBACK")?;
            match transaction.is_open() {
                true => engine.roll_back(&transaction).await,
                // It was, already.
                false => Ok(()),
            }
        }
        TransactionStatement::Savepoint(name) => open(session, "SAVEPOINT")?.savepoint(name).map(drop),
        TransactionStatement::Release(name) => named(open(session, "RELEASE")?.release(|_, known| known == name), name),
        TransactionStatement::RollbackTo(name) => {
            let transaction = open(session, "ROLLBACK TO")?;
            named(transaction.undo_to(|_, known| known == name).await, name)
        }
        TransactionStatement::Set { read_only } => open(session, "SET TRANSACTION")?.set_read_only(*read_only),
    }
}

/// The transaction that a statement is in.
fn open(session: &Session, what: &str) -> Result<Arc<Transaction>> {
    session.transaction().ok_or_else(|| EngineError::invalid(format!("{what} needs an open transaction: BEGIN first")))
}

/// The same, when SQL text may end it.
fn own(session: &Session, what: &str) -> Result<Arc<Transaction>> {
    if session.is_within() {
        return Err(EngineError::invalid(format!(
            "{what}: this transaction was begun by the driver; end it with the driver's commit or rollback"
        )));
    }
    let transaction = open(session, what)?;
    session.forget_current();
    Ok(transaction)
}

fn named(result: Result<()>, name: &str) -> Result<()> {
    result.map_err(|error| EngineError { message: format!("savepoint '{name}': {}", error.message), ..error })
}
