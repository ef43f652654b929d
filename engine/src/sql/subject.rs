//! AS USER: for whom a statement is. Taken out of the tokens, so that the parser reads the statement as any other.
//!
//! ```text
//! [WITH …] INSERT INTO t AS USER 'u' …    UPDATE t AS USER 'u' SET …    DELETE FROM t AS USER 'u' …
//! EXECUTE AS USER 'u' (statement)
//! ```

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::tokens::syntax_error;
use crate::error::Result;

/// Takes AS USER out of a statement's tokens. Gives the user's name as it was written, also when the rest is not as it has to be.
pub(crate) fn take_subject(tokens: &mut Vec<TokenWithSpan>) -> (Option<String>, Result<()>) {
    let (place, in_parentheses) = match place_of_execute(tokens) {
        Some(start) => (start + 1, Some(start)),
        None => match place_of_clause(tokens) {
            Some(place) => (place, None),
            None => return (None, Ok(())),
        },
    };
    let name = match name_at(tokens, place + 2) {
        Ok(name) => name,
        Err(error) => return (None, Err(error)),
    };
    let taken = match in_parentheses {
        Some(start) => open_parentheses(tokens, start),
        None => {
            tokens.drain(place..place + 3);
            Ok(())
        }
    };
    (Some(name), taken)
}

fn place_of_execute(tokens: &[TokenWithSpan]) -> Option<usize> {
    let start = tokens.iter().position(|t| t.token != Token::SemiColon).unwrap_or(0);
    (keyword_at(tokens, start) == Keyword::EXECUTE && is_as_user(tokens, start + 1)).then_some(start)
}

/// `EXECUTE AS USER 'u' (…)` becomes what is in the parentheses.
fn open_parentheses(tokens: &mut Vec<TokenWithSpan>, start: usize) -> Result<()> {
    let end = tokens.iter().rposition(|t| t.token != Token::SemiColon).unwrap_or(0);
    if tokens.get(start + 4).map(|t| &t.token) != Some(&Token::LParen) || closing(tokens, start + 4) != Some(end) {
        let at = tokens[(start + 4).min(end)].span.start;
        return Err(syntax_error(at, "write EXECUTE AS USER 'name' (statement), with one statement"));
    }
    tokens.remove(end);
    tokens.drain(start..start + 5);
    match place_of_clause(tokens) {
        Some(at) => Err(syntax_error(tokens[at].span.start, "AS USER is given twice")),
        None => Ok(()),
    }
}

/// Where AS USER stands, after the table of an INSERT, UPDATE or DELETE. `UPDATE t AS user SET …` has an alias instead.
fn place_of_clause(tokens: &[TokenWithSpan]) -> Option<usize> {
    let verbs = [Keyword::INSERT, Keyword::UPDATE, Keyword::DELETE];
    let starts = [Keyword::EXPLAIN, Keyword::WITH, verbs[0], verbs[1], verbs[2]];
    let first = tokens.iter().position(|t| t.token != Token::SemiColon)?;
    if !starts.contains(&keyword_at(tokens, first)) {
        return None;
    }
    // Between EXPLAIN and its statement are options only.
    let verb = (first..tokens.len()).find(|at| {
        let keyword = keyword_at(tokens, *at);
        verbs.contains(&keyword) || matches!(keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES)
    })?;
    let verb = if keyword_at(tokens, verb) == Keyword::WITH { behind_with(tokens, verb)? } else { verb };
    let mut at = match keyword_at(tokens, verb) {
        Keyword::INSERT | Keyword::DELETE => {
            let preposition = matches!(keyword_at(tokens, verb + 1), Keyword::INTO | Keyword::FROM);
            verb + 1 + usize::from(preposition)
        }
        Keyword::UPDATE => verb + 1,
        _ => return None,
    };
    while is_word(tokens, at) && tokens.get(at + 1).is_some_and(|t| t.token == Token::Period) {
        at += 2;
    }
    let is_clause = is_word(tokens, at) && is_as_user(tokens, at + 1) && !is_alias(tokens, at + 3);
    is_clause.then_some(at + 1)
}

/// What the WITH queries that begin at a place are for: it stands behind the parentheses of the last one.
fn behind_with(tokens: &[TokenWithSpan], with: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(with) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                // The columns of a query, before its AS, are in parentheses too.
                let goes_on = keyword_at(tokens, at + 1) == Keyword::AS
                    || tokens.get(at + 1).is_some_and(|next| next.token == Token::Comma);
                if depth == 0 && !goes_on {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn is_as_user(tokens: &[TokenWithSpan], at: usize) -> bool {
    keyword_at(tokens, at) == Keyword::AS && keyword_at(tokens, at + 1) == Keyword::USER
}

/// Whether what follows `AS user` shows that this is an alias.
fn is_alias(tokens: &[TokenWithSpan], next: usize) -> bool {
    match tokens.get(next).map(|t| &t.token) {
        None | Some(Token::EOF | Token::SemiColon) => true,
        Some(_) => matches!(keyword_at(tokens, next), Keyword::SET | Keyword::WHERE),
    }
}

fn name_at(tokens: &[TokenWithSpan], at: usize) -> Result<String> {
    const WRITE: &str = "AS USER needs a user's name in quotes: AS USER 'name'";
    match tokens.get(at) {
        Some(TokenWithSpan { token: Token::SingleQuotedString(name), .. }) => Ok(name.clone()),
        Some(other) => Err(syntax_error(other.span.start, WRITE)),
        None => Err(syntax_error(tokens.last().map_or(Location { line: 1, column: 1 }, |t| t.span.end), WRITE)),
    }
}

/// The parenthesis that closes the one at a place.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn is_word(tokens: &[TokenWithSpan], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenWithSpan { token: Token::Word(_), .. }))
}

/// The keyword at a place; a quoted word is none.
fn keyword_at(tokens: &[TokenWithSpan], at: usize) -> Keyword {
    match tokens.get(at).map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::limits::Limits;
    use crate::sql::tokens::tokenize;

    fn taken(sql: &str) -> Result<(Option<String>, String)> {
        let mut tokens = tokenize(sql, &Limits::default())?;
        let (subject, taken) = take_subject(&mut tokens);
        taken?;
        let rest = tokens.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ");
        Ok((subject, rest))
    }

    #[test]
    fn it_stands_after_the_table() {
        for (sql, name, rest) in [
            ("INSERT INTO t AS USER 'u' VALUES (1)", "u", "INSERT INTO t VALUES ( 1 )"),
            ("insert into a.t as user 'o''hara' (x) select 1", "o'hara", "insert into a . t ( x ) select 1"),
            ("UPDATE \"T\" AS USER 'u' SET a = 1 WHERE b", "u", "UPDATE \"T\" SET a = 1 WHERE b"),
            ("UPDATE t AS USER 'u' AS x SET a = 1", "u", "UPDATE t AS x SET a = 1"),
            (";DELETE FROM a.b.t AS USER '' WHERE c;", "", "; DELETE FROM a . b . t WHERE c ;"),
            ("EXPLAIN VERBOSE DELETE FROM t AS USER 'u'", "u", "EXPLAIN VERBOSE DELETE FROM t"),
            (
                "WITH x (a) AS (SELECT (1)), y AS (SELECT 2) INSERT INTO t AS USER 'u' SELECT a FROM x",
                "u",
                "WITH x ( a ) AS ( SELECT ( 1 ) ) , y AS ( SELECT 2 ) INSERT INTO t SELECT a FROM x",
            ),
            (
                "EXPLAIN WITH x AS (SELECT 1) DELETE FROM t AS USER 'u'",
                "u",
                "EXPLAIN WITH x AS ( SELECT 1 ) DELETE FROM t",
            ),
            ("EXECUTE AS USER 'u' (SELECT (1))", "u", "SELECT ( 1 )"),
            ("EXECUTE AS USER 'u' (EXPLAIN SELECT 1);", "u", "EXPLAIN SELECT 1 ;"),
        ] {
            assert_eq!(taken(sql).unwrap(), (Some(name.to_owned()), rest.to_owned()), "{sql}");
        }
    }

    #[test]
    fn an_alias_or_a_text_is_none() {
        for sql in [
            "UPDATE t AS user SET a = 1",
            "DELETE FROM t AS user WHERE a",
            "DELETE FROM t AS user",
            "SELECT 1 AS user",
            "SELECT 'INSERT INTO t AS USER ''u'' VALUES (1)'",
            "INSERT INTO t SELECT a AS user FROM s",
            "INSERT INTO t VALUES ('AS USER ''u''')",
            "EXPLAIN SELECT x AS update",
            "WITH x AS (SELECT 1 AS user) SELECT * FROM x AS user",
            "WITH x AS (SELECT 1) UPDATE t AS user SET a = 1",
            "WITH x AS (SELECT 1",
            "EXECUTE p",
        ] {
            assert_eq!(taken(sql).unwrap().0, None, "{sql}");
        }
    }

    #[test]
    fn anything_else_says_what_to_write() {
        for (sql, part) in [
            ("INSERT INTO t AS USER u VALUES (1)", "needs a user's name in quotes"),
            ("INSERT INTO t AS USER ? VALUES (1)", "needs a user's name in quotes"),
            ("UPDATE t AS USER \"u\" SET a = 1", "needs a user's name in quotes"),
            ("EXECUTE AS USER", "needs a user's name in quotes"),
            ("EXECUTE AS USER 'u' SELECT 1", "write EXECUTE AS USER 'name' (statement)"),
            ("EXECUTE AS USER 'u'", "write EXECUTE AS USER 'name' (statement)"),
            ("EXECUTE AS USER 'u' (SELECT 1) + (2)", "write EXECUTE AS USER 'name' (statement)"),
            ("EXECUTE AS USER 'u' (SELECT 1", "write EXECUTE AS USER 'name' (statement)"),
            ("EXECUTE AS USER 'u' (DELETE FROM t AS USER 'v')", "AS USER is given twice"),
        ] {
            let error = taken(sql).unwrap_err();
            assert!(error.message.contains(part), "{sql}: {}", error.message);
        }
    }

    #[test]
    fn whom_a_wrong_statement_names_is_known() {
        for (sql, name) in [
            ("EXECUTE AS USER 'u' SELECT 1", Some("u")),
            ("EXECUTE AS USER 'u' (DELETE FROM t AS USER 'v')", Some("u")),
            ("EXECUTE AS USER u (SELECT 1)", None),
        ] {
            let mut tokens = tokenize(sql, &Limits::default()).unwrap();
            let (subject, taken) = take_subject(&mut tokens);
            assert_eq!((subject.as_deref(), taken.is_err()), (name, true), "{sql}");
        }
    }
}
