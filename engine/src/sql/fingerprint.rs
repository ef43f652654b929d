//! A statement without its literals: as a fingerprint, which is the same for statements that differ in them, letter case of
//! keywords and white space only; and as a text to show.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::limits::Limits;
use super::tokens::tokenize;

/// The first 16 hex digits of the BLAKE3 of its tokens, each literal being `?`. `None` for what is no SQL.
pub(crate) fn fingerprint(sql: &str, limits: &Limits) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    for token in tokenize(sql, limits).ok()? {
        let text = match &token.token {
            Token::SemiColon | Token::EOF => continue,
            Token::Word(word) if word.quote_style.is_none() && word.keyword != Keyword::NoKeyword => {
                word.value.to_ascii_uppercase()
            }
            Token::Word(word) => word.to_string(),
            Token::Number(..) | Token::Placeholder(_) => "?".to_owned(),
            other if is_text(other) => "?".to_owned(),
            other => other.to_string(),
        };
        hasher.update(text.as_bytes()).update(b"\0");
    }
    Some(hasher.finalize().to_hex()[..16].to_owned())
}

/// A statement's text with `?` in the place of each literal. Of a text that is no statement, as one that was cut short, only
/// the first word is left.
pub(crate) fn without_literals(sql: &str, limits: &Limits) -> String {
    let Ok(tokens) = tokenize(sql, limits) else {
        let word: String = sql.trim_start().chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        return format!("{word} …");
    };
    let (mut text, mut copied, mut place) = (String::with_capacity(sql.len()), 0, Place::start(sql));
    for token in tokens.iter().filter(|token| matches!(token.token, Token::Number(..)) || is_text(&token.token)) {
        let (start, end) = (place.go_to(token.span.start), place.go_to(token.span.end));
        text.push_str(sql.get(copied..start).unwrap_or_default());
        text.push('?');
        copied = end;
    }
    text.push_str(sql.get(copied..).unwrap_or_default());
    text
}

/// A place in a text, which only goes forward.
struct Place<'a> {
    rest: std::str::Chars<'a>,
    len: usize,
    at: (u64, u64),
}

impl<'a> Place<'a> {
    fn start(text: &'a str) -> Self {
        Self { rest: text.chars(), len: text.len(), at: (1, 1) }
    }

    /// The byte at a line and column.
    fn go_to(&mut self, to: Location) -> usize {
        while self.at < (to.line, to.column) {
            match self.rest.next() {
                Some('\n') => self.at = (self.at.0 + 1, 1),
                Some(_) => self.at.1 += 1,
                None => break,
            }
        }
        self.len - self.rest.as_str().len()
    }
}

fn is_text(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_without_its_literals() {
        let of = |sql: &str| without_literals(sql, &Limits::default());
        for (sql, shown) in [
            ("SELECT 1", "SELECT ?"),
            (
                "SELECT a1, \"1\"  FROM t -- 'c'\n WHERE é='ü' AND\tb=$1;",
                "SELECT a1, \"1\"  FROM t -- 'c'\n WHERE é=? AND\tb=$1;",
            ),
            ("INSERT INTO t VALUES (-1.5e3, 'it''s\n two', X'ff')", "INSERT INTO t VALUES (-?, ?, ?)"),
            ("UPDATE t AS USER 'ann' SET a='x' WHERE b=?", "UPDATE t AS USER ? SET a=? WHERE b=?"),
            ("SELECT 'cut sho…", "SELECT …"),
            ("", ""),
        ] {
            assert_eq!(of(sql), shown);
        }
    }

    #[test]
    fn literals_make_no_difference_and_names_do() {
        let of = |sql: &str| fingerprint(sql, &Limits::default()).unwrap();
        let one = of("UPDATE t AS USER 'ann' SET a = 1 WHERE b = 'secret'");
        assert_eq!(one, of("update  t as user 'bob' set a = ? where b = 'other' ;"));
        assert_ne!(one, of("UPDATE u AS USER 'ann' SET a = 1 WHERE b = 'secret'"));
        assert_ne!(of("SELECT \"a\""), of("SELECT 'a'"));
        assert_eq!(one.len(), 16);
        assert_eq!(fingerprint("SELECT 'open", &Limits::default()), None);
    }
}
