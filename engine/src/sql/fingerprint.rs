//! A statement's fingerprint: the same for statements that differ in their literals, letter case of keywords and white space
//! only.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

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
