//! PostgreSQL's patterns of times, `YYYY-MM-DD HH24:MI:SS`, as those that DataFusion has, `%Y-%m-%d %H:%M:%S`. It takes a
//! pattern without `%` for text: `to_char` would give the pattern back.
//!
//! Sources: <https://www.postgresql.org/docs/17/functions-formatting.html>,
//! <https://docs.rs/chrono/latest/chrono/format/strftime/index.html>.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value, ValueWithSpan,
};

use crate::error::{EngineError, Result};

/// Parts that are numbers, in any case. What begins like another comes before it.
const NUMBERS: [(&str, &str); 14] = [
    ("IYYY", "%G"),
    ("YYYY", "%Y"),
    ("YY", "%y"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("HH", "%I"),
    ("DDD", "%j"),
    ("DD", "%d"),
    ("MM", "%m"),
    ("MI", "%M"),
    ("MS", "%3f"),
    ("SS", "%S"),
    ("US", "%6f"),
    ("IW", "%V"),
];

/// Parts that are words, in the case that they have there.
const WORDS: [(&str, &str); 8] = [
    ("FMMonth", "%B"),
    ("Mon", "%b"),
    ("FMDay", "%A"),
    ("Dy", "%a"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("am", "%P"),
    ("pm", "%P"),
];

/// What `to_char` of a length of time takes.
const OF_DURATIONS: [&str; 2] = ["pretty", "iso8601"];

/// Makes the pattern of a function that has one DataFusion's.
pub(super) fn translate(function: &mut Function) -> Result<()> {
    let [name] = function.name.0.as_slice() else { return Ok(()) };
    let name = name.as_ident().map(|name| name.value.to_ascii_lowercase()).unwrap_or_default();
    if !matches!(name.as_str(), "to_char" | "to_date" | "to_timestamp") {
        return Ok(());
    }
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    for arg in list.args.iter_mut().skip(1) {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg
            && let Some(pattern) = text_in(expr)
        {
            *pattern = strftime(pattern, &name)?;
        }
    }
    Ok(())
}

/// The text that an expression is, however it is written.
fn text_in(expr: &mut Expr) -> Option<&mut String> {
    match expr {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => text_in(inner),
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            Value::DollarQuotedString(text) => Some(&mut text.value),
            _ => None,
        },
        _ => None,
    }
}

/// A pattern of DataFusion's; one that is such already stays as it is.
fn strftime(pattern: &str, function: &str) -> Result<String> {
    if pattern.contains('%') || OF_DURATIONS.iter().any(|known| known.eq_ignore_ascii_case(pattern)) {
        return Ok(pattern.to_owned());
    }
    let (mut made, mut rest) = (String::new(), pattern);
    while let Some(next) = rest.chars().next() {
        let number = NUMBERS
            .iter()
            .find(|(part, _)| rest.get(..part.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(part)));
        let word = || WORDS.iter().find(|(part, _)| rest.starts_with(part));
        if let Some((part, strftime)) = number.or_else(word)
            && !goes_on(part, &rest[part.len()..])
        {
            made.push_str(strftime);
            rest = &rest[part.len()..];
        } else if let Some((text, after)) = rest.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
            made.push_str(text);
            rest = after;
        } else if next.is_alphabetic() {
            return Err(EngineError::invalid(format!(
                "{function}: '{rest}' in the pattern '{pattern}' is not known: use '%Y-%m-%d %H:%M:%S', or YYYY, MM, Mon, \
                 FMMonth, DD, Dy, FMDay, HH24, HH12, MI, SS, MS, US, AM, and other text in double quotes"
            )));
        } else {
            made.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    if function == "to_timestamp" { whole_time(made, pattern) } else { Ok(made) }
}

/// Whether what follows a part makes another one of it: SSSS is no SS, and then another.
fn goes_on(part: &str, rest: &str) -> bool {
    let last = part.chars().next_back().filter(char::is_ascii_alphabetic);
    last.is_some_and(|last| rest.chars().next().is_some_and(|next| next.eq_ignore_ascii_case(&last)))
}

/// DataFusion takes a time of which a part is missing for none. An hour of 12 without a half of the day is one of the first, or
/// is as it is written.
fn whole_time(made: String, pattern: &str) -> Result<String> {
    let has = |parts: &[&str]| parts.iter().any(|part| made.contains(part));
    let (hour, minute, second) = (has(&["%H", "%I"]), has(&["%M"]), has(&["%S", "%3f", "%6f"]));
    if hour != minute || second && !minute {
        return Err(EngineError::invalid(format!(
            "to_timestamp: the pattern '{pattern}' has a part of the time of day: give hours and minutes, or none of it"
        )));
    }
    Ok(if has(&["%p", "%P"]) { made } else { made.replace("%I", "%H") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_postgresql_is_one_of_datafusion() {
        for (written, read) in [
            ("YYYY-MM-DD", "%Y-%m-%d"),
            ("yyyy/mm/dd hh24:mi:ss.ms", "%Y/%m/%d %H:%M:%S.%3f"),
            ("HH12:MI:SS.US AM, hh:mi pm", "%I:%M:%S.%6f %p, %I:%M %P"),
            ("Dy DD Mon YY", "%a %d %b %y"),
            ("FMDay, FMMonth DDD", "%A, %B %j"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"", "%Y-%m-%dT%H:%M:%SZ"),
            ("IYYY-IW", "%G-%V"),
            ("«YYYY»", "«%Y»"),
            ("", ""),
            ("%Y-%m-%d", "%Y-%m-%d"),
            ("%d of Month", "%d of Month"),
            ("pretty", "pretty"),
        ] {
            assert_eq!(strftime(written, "to_char").unwrap(), read);
        }
        for wrong in
            ["Month", "YYYY-MM-DDTHH24", "Q", "é", "YYYY \"open", "MONTH", "DAY", "SSSS", "DDDD", "YYYYY", "MMM"]
        {
            let error = strftime(wrong, "to_char").unwrap_err();
            assert!(error.message.starts_with("to_char: '"), "{wrong}: {error:?}");
        }
        assert_eq!(strftime("HHMISS", "to_char").unwrap(), "%I%M%S");
    }

    #[test]
    fn a_time_that_is_read_is_whole() {
        for (written, read) in [
            ("YYYY-MM-DD", "%Y-%m-%d"),
            ("DD.MM.YYYY HH:MI", "%d.%m.%Y %H:%M"),
            ("YYYY-MM-DD HH12:MI:SS AM", "%Y-%m-%d %I:%M:%S %p"),
        ] {
            assert_eq!(strftime(written, "to_timestamp").unwrap(), read);
        }
        for part in ["YYYY-MM-DD HH24", "YYYY-MM-DD MI", "YYYY-MM-DD SS", "YYYY-MM-DD HH24:SS"] {
            let error = strftime(part, "to_timestamp").unwrap_err();
            assert!(error.message.contains("a part of the time of day"), "{part}: {error:?}");
            assert!(strftime(part, "to_char").is_ok());
        }
    }
}
