//! CREATE TOKEN and DROP TOKEN.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::parse::Reader;
use super::statement::{CreateToken, Expiry, Statement};
use crate::error::{EngineError, Result};

/// TOKEN [name] [FOR USER 'u'] [EXPIRES 'time' | EXPIRES IN [INTERVAL] 'interval' | EXPIRES IN 30 DAYS].
pub(super) fn create_token(reader: &mut Reader<'_>) -> Result<Statement> {
    let mut create = CreateToken { name: None, user: None, expires: None };
    loop {
        if create.user.is_none() && reader.words(&["FOR", "USER"]) {
            create.user = Some(name(reader, "a user's name")?);
        } else if create.expires.is_none() && reader.words(&["EXPIRES", "IN"]) {
            reader.word("INTERVAL");
            create.expires = Some(Expiry::In(interval(reader)?));
        } else if create.expires.is_none() && reader.word("EXPIRES") {
            create.expires = Some(Expiry::At(text(reader, "a time in quotes, or IN and an interval,")?));
        } else if create == (CreateToken { name: None, user: None, expires: None }) && is_name(reader) {
            create.name = Some(name(reader, "a name")?);
        } else {
            return Ok(Statement::CreateToken(create));
        }
    }
}

/// TOKEN [IF EXISTS] 'id'.
pub(super) fn drop_token(reader: &mut Reader<'_>) -> Result<Statement> {
    let if_exists = reader.words(&["IF", "EXISTS"]);
    let id = text(reader, "the token's id in quotes")?;
    Ok(Statement::DropToken { id, if_exists })
}

fn is_name(reader: &Reader<'_>) -> bool {
    matches!(reader.parser.peek_token_ref().token, Token::Word(_) | Token::SingleQuotedString(_))
}

fn name(reader: &mut Reader<'_>, what: &str) -> Result<String> {
    let token = reader.parser.next_token();
    match token.token {
        Token::Word(ref word) => Ok(word.value.clone()),
        Token::SingleQuotedString(ref text) => Ok(text.clone()),
        _ => Err(reader.expected(what, &token)),
    }
}

fn text(reader: &mut Reader<'_>, what: &str) -> Result<String> {
    let token = reader.parser.next_token();
    match token.token {
        Token::SingleQuotedString(ref text) => Ok(text.clone()),
        _ => Err(reader.expected(what, &token)),
    }
}

fn interval(reader: &mut Reader<'_>) -> Result<String> {
    let token = reader.parser.next_token();
    match token.token {
        Token::SingleQuotedString(ref text) => Ok(text.clone()),
        Token::Number(ref number, _) => {
            let unit = reader.parser.next_token();
            match unit.token {
                Token::Word(ref word) => Ok(format!("{number} {}", word.value)),
                _ => Err(EngineError::invalid("expected a unit after the number, as in EXPIRES IN 30 DAYS")),
            }
        }
        _ => Err(reader.expected("an interval like '30 days'", &token)),
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::{Limits, Statement, parse};

    use super::*;

    fn of(sql: &str) -> Result<Statement> {
        parse(sql, &Limits::default())
    }

    #[test]
    fn tokens_are_created_with_or_without_much_said() {
        let token = |name: Option<&str>, user: Option<&str>, expires| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Statement::CreateToken(CreateToken { name: owned(name), user: owned(user), expires })
        };
        let within = |text: &str| Some(Expiry::In(text.to_owned()));
        let at = |text: &str| Some(Expiry::At(text.to_owned()));
        for (sql, expected) in [
            ("CREATE TOKEN", token(None, None, None)),
            ("create token ci;", token(Some("ci"), None, None)),
            ("CREATE TOKEN 'for the CI' EXPIRES IN '30 days'", token(Some("for the CI"), None, within("30 days"))),
            ("CREATE TOKEN EXPIRES IN INTERVAL '1 hour'", token(None, None, within("1 hour"))),
            ("CREATE TOKEN EXPIRES IN 30 DAYS", token(None, None, within("30 DAYS"))),
            ("CREATE TOKEN EXPIRES '2030-01-01' FOR USER 'Bob'", token(None, Some("Bob"), at("2030-01-01"))),
            ("CREATE TOKEN \"expires\" FOR USER bob", token(Some("expires"), Some("bob"), None)),
        ] {
            assert_eq!(of(sql).unwrap(), expected, "{sql}");
        }
        assert_eq!(of("DROP TOKEN 'a'").unwrap(), Statement::DropToken { id: "a".into(), if_exists: false });
        assert_eq!(of("DROP TOKEN IF EXISTS 'a'").unwrap(), Statement::DropToken { id: "a".into(), if_exists: true });
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for sql in [
            "CREATE TOKEN a b",
            "CREATE TOKEN EXPIRES",
            "CREATE TOKEN EXPIRES 30",
            "CREATE TOKEN EXPIRES IN 30",
            "CREATE TOKEN EXPIRES IN days",
            "CREATE TOKEN FOR USER",
            "CREATE TOKEN EXPIRES '2030-01-01' EXPIRES '2030-01-01'",
            "DROP TOKEN",
            "DROP TOKEN a",
            "DROP TOKEN 'a', 'b'",
        ] {
            assert!(of(sql).is_err(), "{sql}");
        }
    }
}
