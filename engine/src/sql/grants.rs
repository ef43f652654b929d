//! GRANT and REVOKE, word by word.

use datafusion::sql::sqlparser::tokenizer::Token;
use seracdb_storage::catalog::Privilege;

use super::names::{TableName, namespace_name};
use super::parse::{Reader, comes_later};
use super::statement::{Grant, GrantedOn, GrantedTo, Statement};
use super::users::{role, user_name};
use super::validate::unsupported;
use crate::error::Result;

/// GRANT {privilege, … | ALL [PRIVILEGES]} ON {[TABLE | VIEW] name | NAMESPACE name | SCHEMA name} TO {name | ROLE role}, ….
pub(crate) fn grant(reader: &mut Reader<'_>) -> Result<Statement> {
    let grant = read(reader, "TO")?;
    if reader.words(&["WITH", "GRANT", "OPTION"]) {
        return Err(unsupported("WITH GRANT OPTION (owners and admins grant)"));
    }
    Ok(Statement::Grant(grant))
}

/// REVOKE … FROM ….
pub(crate) fn revoke(reader: &mut Reader<'_>) -> Result<Statement> {
    Ok(Statement::Revoke(read(reader, "FROM")?))
}

fn read(reader: &mut Reader<'_>, direction: &str) -> Result<Grant> {
    reader.parser.advance_token();
    let privileges = privileges(reader)?;
    if !reader.word("ON") {
        let token = reader.parser.peek_token();
        return Err(reader.expected("ON and a table, view or namespace", &token));
    }
    let on = if reader.word("NAMESPACE") || reader.word("SCHEMA") {
        GrantedOn::Namespace(namespace_name(&reader.object_name()?)?)
    } else {
        if !reader.word("TABLE") {
            reader.word("VIEW");
        }
        GrantedOn::Table(TableName::parse(&reader.object_name()?)?)
    };
    if !reader.word(direction) {
        let token = reader.parser.peek_token();
        return Err(reader.expected(&format!("{direction} and a user or ROLE role"), &token));
    }
    let mut to = Vec::new();
    loop {
        let next = match reader.word("ROLE") {
            true => GrantedTo::Role(role(reader)?),
            false => GrantedTo::User(user_name(reader)?),
        };
        if !to.contains(&next) {
            to.push(next);
        }
        if !reader.parser.consume_token(&Token::Comma) {
            return Ok(Grant { privileges, on, to });
        }
    }
}

fn privileges(reader: &mut Reader<'_>) -> Result<Vec<Privilege>> {
    if reader.word("ALL") {
        reader.word("PRIVILEGES");
        return Ok(Privilege::ALL.to_vec());
    }
    let mut privileges = Vec::new();
    loop {
        let known = ["SELECT", "INSERT", "UPDATE", "DELETE"].into_iter().zip(Privilege::ALL);
        let Some((_, privilege)) = known.into_iter().find(|(word, _)| reader.word(word)) else {
            let token = reader.parser.peek_token();
            return Err(reader.expected("SELECT, INSERT, UPDATE, DELETE or ALL", &token));
        };
        if reader.parser.peek_token_ref().token == Token::LParen {
            return Err(comes_later("rights on columns"));
        }
        if !privileges.contains(&privilege) {
            privileges.push(privilege);
        }
        if !reader.parser.consume_token(&Token::Comma) {
            return Ok(privileges);
        }
    }
}
