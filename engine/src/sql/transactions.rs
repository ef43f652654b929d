//! BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE, SET TRANSACTION.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::names::fold;
use super::parse::Reader;
use super::statement::{Statement, TransactionStatement};
use super::validate::unsupported;
use crate::error::Result;

/// BEGIN [WORK | TRANSACTION] [modes], START TRANSACTION [modes].
pub(crate) fn begin(reader: &mut Reader<'_>) -> Result<Statement> {
    let start = reader.word("START");
    if !start {
        reader.parser.advance_token();
    }
    let noise = reader.word("TRANSACTION") || (!start && reader.word("WORK"));
    if start && !noise {
        let token = reader.parser.peek_token();
        return Err(reader.expected("TRANSACTION after START", &token));
    }
    let read_only = modes(reader)?.unwrap_or(false);
    Ok(Statement::Transaction(TransactionStatement::Begin { read_only }))
}

/// COMMIT [WORK | TRANSACTION], END [WORK | TRANSACTION].
pub(crate) fn commit(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    noise(reader);
    no_chain(reader)?;
    Ok(Statement::Transaction(TransactionStatement::Commit))
}

/// ROLLBACK [WORK | TRANSACTION] [TO [SAVEPOINT] name], ABORT.
pub(crate) fn rollback(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    noise(reader);
    if reader.word("TO") {
        reader.word("SAVEPOINT");
        return Ok(Statement::Transaction(TransactionStatement::RollbackTo(name(reader)?)));
    }
    no_chain(reader)?;
    Ok(Statement::Transaction(TransactionStatement::Rollback))
}

/// SAVEPOINT name.
pub(crate) fn savepoint(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    Ok(Statement::Transaction(TransactionStatement::Savepoint(name(reader)?)))
}

/// RELEASE [SAVEPOINT] name.
pub(crate) fn release(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    reader.word("SAVEPOINT");
    Ok(Statement::Transaction(TransactionStatement::Release(name(reader)?)))
}

/// What follows SET TRANSACTION.
pub(crate) fn set_transaction(reader: &mut Reader<'_>) -> Result<Statement> {
    match modes(reader)? {
        Some(read_only) => Ok(Statement::Transaction(TransactionStatement::Set { read_only })),
        None => {
            let token = reader.parser.peek_token();
            Err(reader.expected("READ ONLY or READ WRITE", &token))
        }
    }
}

/// READ ONLY, READ WRITE, ISOLATION LEVEL …: whether it only reads, when that is said.
fn modes(reader: &mut Reader<'_>) -> Result<Option<bool>> {
    let mut read_only = None;
    loop {
        if reader.word("ISOLATION") {
            isolation(reader)?;
        } else if reader.word("READ") {
            read_only = Some(match (reader.word("ONLY"), reader.word("WRITE")) {
                (true, false) => true,
                (false, true) => false,
                _ => {
                    let token = reader.parser.peek_token();
                    return Err(reader.expected("ONLY or WRITE after READ", &token));
                }
            });
        } else {
            return Ok(read_only);
        }
        let _ = reader.parser.consume_token(&Token::Comma);
    }
}

/// Every level up to snapshot isolation is given as that.
fn isolation(reader: &mut Reader<'_>) -> Result<()> {
    if !reader.word("LEVEL") {
        let token = reader.parser.peek_token();
        return Err(reader.expected("LEVEL after ISOLATION", &token));
    }
    let known = reader.word("SNAPSHOT")
        || (reader.word("REPEATABLE") && reader.word("READ"))
        || (reader.word("READ") && (reader.word("COMMITTED") || reader.word("UNCOMMITTED")));
    if known {
        return Ok(());
    }
    if reader.word("SERIALIZABLE") {
        return Err(unsupported("ISOLATION LEVEL SERIALIZABLE (transactions have snapshot isolation)"));
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("SNAPSHOT, REPEATABLE READ or READ COMMITTED", &token))
}

fn noise(reader: &mut Reader<'_>) {
    let _ = reader.word("WORK") || reader.word("TRANSACTION");
}

fn no_chain(reader: &mut Reader<'_>) -> Result<()> {
    match reader.word("AND") {
        true => Err(unsupported("AND CHAIN")),
        false => Ok(()),
    }
}

fn name(reader: &mut Reader<'_>) -> Result<String> {
    let parsed = reader.parser.parse_identifier();
    Ok(fold(&reader.at(parsed)?))
}
