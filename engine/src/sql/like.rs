//! LIKE of CREATE TABLE, as it is read.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::names::TableName;
use super::parse::Reader;
use super::statement::Like;
use super::validate::unsupported;
use crate::error::Result;

/// What SeracDB's tables do not have, or what does not come along.
const OTHERS: [&str; 5] = ["COMMENTS", "COMPRESSION", "IDENTITY", "STATISTICS", "STORAGE"];

/// LIKE table [INCLUDING | EXCLUDING what]…, in parentheses or not; `None` = something else is next.
pub(super) fn like(reader: &mut Reader<'_>) -> Result<Option<Like>> {
    let in_parentheses = is_in_parentheses(reader);
    if in_parentheses {
        reader.parser.advance_token();
    }
    if !reader.word("LIKE") {
        return Ok(None);
    }
    let table = TableName::parse(&reader.object_name()?)?;
    let mut like = Like { table, defaults: false, generated: false, checks: false, keys: false };
    loop {
        if reader.word("INCLUDING") {
            set(reader, &mut like, true)?;
        } else if reader.word("EXCLUDING") {
            set(reader, &mut like, false)?;
        } else {
            break;
        }
    }
    if in_parentheses {
        let parsed = reader.parser.expect_token(&Token::RParen);
        reader.at(parsed)?;
    }
    Ok(Some(like))
}

/// Whether `(LIKE table)` or `(LIKE table INCLUDING …)` is next. What has a comma there is a column called `like`.
fn is_in_parentheses(reader: &Reader<'_>) -> bool {
    let token = |at: usize| &reader.parser.peek_nth_token_ref(at).token;
    let is_word = |at: usize, words: &[&str]| match token(at) {
        Token::Word(found) if found.quote_style.is_none() => {
            words.iter().any(|word| found.value.eq_ignore_ascii_case(word))
        }
        _ => false,
    };
    if *token(0) != Token::LParen || !is_word(1, &["LIKE"]) {
        return false;
    }
    let mut after = 3;
    while *token(after) == Token::Period {
        after += 2;
    }
    *token(after) == Token::RParen || is_word(after, &["INCLUDING", "EXCLUDING"])
}

fn set(reader: &mut Reader<'_>, like: &mut Like, including: bool) -> Result<()> {
    if reader.word("ALL") {
        (like.defaults, like.generated, like.checks, like.keys) = (including, including, including, including);
    } else if reader.word("DEFAULTS") {
        like.defaults = including;
    } else if reader.word("GENERATED") {
        like.generated = including;
    } else if reader.word("CONSTRAINTS") {
        like.checks = including;
    } else if reader.word("INDEXES") {
        like.keys = including;
    } else if let Some(other) = OTHERS.iter().find(|other| reader.word(other)) {
        if including {
            return Err(unsupported(&format!("CREATE TABLE … LIKE … INCLUDING {other}")));
        }
    } else {
        let token = reader.parser.peek_token();
        return Err(reader.expected("ALL, DEFAULTS, GENERATED, CONSTRAINTS or INDEXES", &token));
    }
    Ok(())
}
