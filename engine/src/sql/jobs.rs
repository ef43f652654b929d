//! RUN JOB, CANCEL JOB and CANCEL QUERY.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::parse::Reader;
use super::statement::Statement;
use crate::error::Result;

/// What follows RUN JOB: a type, and its parameters as JSON in quotes, if it needs some.
pub(super) fn run_job(reader: &mut Reader<'_>) -> Result<Statement> {
    let token = reader.parser.next_token();
    let job_type = match token.token {
        Token::Word(ref word) => word.value.clone(),
        Token::SingleQuotedString(ref text) => text.clone(),
        _ => return Err(reader.expected("a type of job after RUN JOB", &token)),
    };
    let params = match &reader.parser.peek_token_ref().token {
        Token::SingleQuotedString(text) => {
            let text = text.clone();
            reader.parser.advance_token();
            text
        }
        _ => String::new(),
    };
    Ok(Statement::RunJob { job_type, params })
}

/// What follows CANCEL JOB: the job's number, in quotes or not.
pub(super) fn cancel_job(reader: &mut Reader<'_>) -> Result<Statement> {
    id(reader, "the job's id in quotes after CANCEL JOB").map(Statement::CancelJob)
}

/// What follows CANCEL QUERY: the statement's number, in quotes or not.
pub(super) fn cancel_query(reader: &mut Reader<'_>) -> Result<Statement> {
    id(reader, "the query's id in quotes after CANCEL QUERY, as system.queries has it").map(Statement::CancelQuery)
}

fn id(reader: &mut Reader<'_>, what: &str) -> Result<String> {
    let token = reader.parser.next_token();
    match token.token {
        Token::SingleQuotedString(ref id) | Token::Number(ref id, _) => Ok(id.clone()),
        _ => Err(reader.expected(what, &token)),
    }
}
