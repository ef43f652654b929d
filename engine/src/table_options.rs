//! What `CREATE TABLE … WITH (…)` may say.

use std::collections::BTreeMap;
use std::time::Duration;

use seracdb_storage::bloom::{self, DISABLED_OPTION, FPP_OPTION};
use seracdb_storage::catalog::{TableKind, TableRecord};

use crate::error::{EngineError, Result};

const TTL: &str = "ttl";
const FLUSH_ROWS: &str = "flush_rows";
const FLUSH_INTERVAL: &str = "flush_interval";

/// Refuses options that there are not, and values that they may not have.
pub(crate) fn check(table: &TableRecord) -> Result<()> {
    const KNOWN: [&str; 5] = [TTL, FLUSH_ROWS, FLUSH_INTERVAL, FPP_OPTION, DISABLED_OPTION];
    if let Some(unknown) = table.options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let known = KNOWN.join(", ");
        return Err(EngineError::invalid(format!("unknown table option '{unknown}': the options are: {known}")));
    }
    check_flush(table)?;
    check_filters(table)
}

/// Rows from which on a part of the table is flushed.
pub(crate) fn flush_rows(table: &TableRecord) -> Option<u64> {
    table.options.get(FLUSH_ROWS)?.parse().ok().filter(|rows| *rows > 0)
}

/// The time after which hot rows of the table are flushed.
pub(crate) fn flush_interval(table: &TableRecord) -> Option<Duration> {
    table.options.get(FLUSH_INTERVAL).and_then(|text| duration(text)).filter(|interval| !interval.is_zero())
}

fn check_flush(table: &TableRecord) -> Result<()> {
    let given = |name| table.options.get(name).map(|text| (name, text));
    if table.kind == TableKind::Stream
        && let Some((name, _)) = given(FLUSH_ROWS).or(given(FLUSH_INTERVAL))
    {
        return Err(EngineError::invalid(format!("rows of a stream table are never flushed: it has no option {name}")));
    }
    if let Some((name, text)) = given(FLUSH_ROWS).filter(|_| flush_rows(table).is_none()) {
        return Err(EngineError::invalid(format!("{name} = '{text}' is no number of rows: write 1 or more")));
    }
    match given(FLUSH_INTERVAL).filter(|_| flush_interval(table).is_none()) {
        Some((name, text)) => Err(EngineError::invalid(format!(
            "{name} = '{text}' is no time: write a number and ms, s, m, h or d, as '5m'"
        ))),
        None => Ok(()),
    }
}

fn check_filters(table: &TableRecord) -> Result<()> {
    if let Some(text) = table.options.get(FPP_OPTION)
        && !text.parse().is_ok_and(|fpp| bloom::is_fpp(&fpp))
    {
        return Err(EngineError::invalid(format!(
            "{FPP_OPTION} = '{text}' is no share of false answers: write a number between 0 and 1, such as 0.01"
        )));
    }
    let disabled = table.options.get(DISABLED_OPTION).map_or("", String::as_str);
    match bloom::listed_columns(disabled).find(|name| bloom::column_id(table, name).is_none()) {
        Some(unknown) => {
            Err(EngineError::invalid(format!("{DISABLED_OPTION} names '{unknown}', which is no column of the table")))
        }
        None => Ok(()),
    }
}

/// How long rows of a stream table live; `None` for those of others, for ever.
pub(crate) fn ttl_ns(kind: TableKind, options: &BTreeMap<String, String>) -> Result<Option<i64>> {
    match (kind, options.get(TTL)) {
        (TableKind::Stream, Some(text)) => {
            let ttl = duration(text).and_then(|ttl| i64::try_from(ttl.as_nanos()).ok()).filter(|ttl| *ttl > 0);
            ttl.map(Some).ok_or_else(|| {
                EngineError::invalid(format!(
                    "'{text}' is no time to live: write a number and ms, s, m, h or d, as '10s'"
                ))
            })
        }
        (TableKind::Stream, None) => {
            Err(EngineError::invalid("a stream table needs the time its rows live: WITH (ttl = '10s')"))
        }
        (_, Some(_)) => Err(EngineError::invalid("only stream tables have the option ttl: CREATE STREAM TABLE")),
        (_, None) => Ok(None),
    }
}

/// `500ms`, `10s`, `5m`, `1h`, `2d`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live() {
        for (text, ms) in [("10s", 10_000), ("500ms", 500), (" 5m ", 300_000), ("1h", 3_600_000), ("2d", 172_800_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "10 weeks", "99999999999999999999s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
