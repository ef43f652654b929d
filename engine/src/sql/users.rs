//! CREATE USER, ALTER USER and DROP USER, word by word.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::parse::Reader;
use super::statement::{AlterUser, Password, Statement};
use crate::error::{EngineError, Result};
use crate::identity::Role;

/// name [WITH] PASSWORD '…' [ROLE role].
pub(crate) fn create_user(reader: &mut Reader<'_>) -> Result<Statement> {
    let name = user_name(reader)?;
    reader.word("WITH");
    let (mut new_password, mut new_role) = (None, None);
    loop {
        if new_password.is_none() && reader.word("PASSWORD") {
            new_password = Some(password(reader)?);
        } else if new_role.is_none() && reader.word("ROLE") {
            new_role = Some(role(reader)?);
        } else {
            break;
        }
    }
    let Some(password) = new_password else {
        return Err(EngineError::invalid(
            "CREATE USER needs a password: CREATE USER name WITH PASSWORD '…' [ROLE role]",
        ));
    };
    Ok(Statement::CreateUser { name, password, role: new_role.unwrap_or(Role::User) })
}

/// name SET {PASSWORD '…' | ROLE role}.
pub(crate) fn alter_user(reader: &mut Reader<'_>) -> Result<Statement> {
    let name = user_name(reader)?;
    // What follows may be a password that somebody has put where it does not belong.
    reader.hide_text();
    let change = if reader.words(&["SET", "PASSWORD"]) {
        AlterUser::Password(password(reader)?)
    } else if reader.words(&["SET", "ROLE"]) {
        AlterUser::Role(role(reader)?)
    } else {
        let token = reader.parser.peek_token();
        return Err(reader.expected("SET PASSWORD '…' or SET ROLE role", &token));
    };
    Ok(Statement::AlterUser { name, change })
}

/// [IF EXISTS] name.
pub(crate) fn drop_user(reader: &mut Reader<'_>) -> Result<Statement> {
    let if_exists = reader.words(&["IF", "EXISTS"]);
    Ok(Statement::DropUser { name: user_name(reader)?, if_exists })
}

/// A user's name: a word or a text, as it is written.
pub(crate) fn user_name(reader: &mut Reader<'_>) -> Result<String> {
    let token = reader.parser.next_token();
    match token.token {
        Token::Word(ref word) => Ok(word.value.clone()),
        Token::SingleQuotedString(ref name) => Ok(name.clone()),
        _ => Err(reader.expected("a user's name", &token)),
    }
}

/// A role: a word or a text.
pub(crate) fn role(reader: &mut Reader<'_>) -> Result<Role> {
    let token = reader.parser.next_token();
    match &token.token {
        Token::Word(word) => word.value.parse(),
        Token::SingleQuotedString(text) => text.parse(),
        _ => Err(reader.expected("a role", &token)),
    }
}

fn password(reader: &mut Reader<'_>) -> Result<Password> {
    reader.hide_text();
    match reader.parser.next_token().token {
        Token::SingleQuotedString(text) => Ok(Password(text)),
        // Not `expected`: what lacks its quotes may be a word that SQL has.
        _ => Err(EngineError::invalid("expected a password in single quotes after PASSWORD")),
    }
}
