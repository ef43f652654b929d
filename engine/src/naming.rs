//! What may be a name: of a namespace, table, view, index, column or user.
//!
//! Paths of files are made of names and cannot be left by one, whatever it is (`storage/src/paths.rs`). Here it is about people:
//! two names that look the same should be the same.

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::error::{EngineError, Result};

/// Refuses what cannot be the name of something that is created.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 128 || name.contains('\0') || name.starts_with("__serac") {
        return Err(EngineError::invalid(format!(
            "'{}' cannot be the name of a {what}: use 1 to 128 bytes that do not start with __serac",
            name.escape_default()
        )));
    }
    // Columns come in with what clients load, and are part of no path.
    if what == "column" { Ok(()) } else { refuse_ambiguous(what, name) }
}

/// Refuses a name that looks like another one: with characters that are not seen, or not in Unicode's normal form C.
pub(crate) fn refuse_ambiguous(what: &str, name: &str) -> Result<()> {
    // The soft hyphen, line and paragraph separators, what turns the direction of text, zero-width spaces and the byte order mark.
    let unseen =
        ['\u{AD}', '\u{61C}', '\u{180E}', '\u{2028}', '\u{2029}', '\u{200B}', '\u{200E}', '\u{200F}', '\u{FEFF}'];
    let is_unseen = |c: char| {
        c.is_control() || unseen.contains(&c) || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}')
    };
    let why = if name.contains(is_unseen) {
        "it has characters that are not seen"
    } else if what == "user" && (name.trim() != name || name.contains(|c: char| c.is_whitespace() && c != ' ')) {
        "it has spaces at its ends, or other ones than the plain space"
    } else if !ComposingNormalizerBorrowed::new_nfc().is_normalized(name) {
        "it is not in Unicode's normal form C (NFC), in which each text is written in one way only"
    } else {
        return Ok(());
    };
    Err(EngineError::invalid(format!("'{}' cannot be the name of a {what}: {why}", name.escape_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_others() {
        for name in ["plain", "Zoë", "한글", "नमस्\u{200D}ते", "../x", "a b", "Ω"] {
            assert!(refuse_ambiguous("user", name).is_ok(), "{name}");
            assert!(check_name("table", name).is_ok(), "{name}");
        }
        for name in
            ["Zoe\u{308}", "\u{2126}", "a\nb", "a\u{7f}", "\u{85}", "a\u{202E}b", "\u{FEFF}a", "a\u{200B}", "a\u{AD}"]
        {
            let refused = refuse_ambiguous("user", name).unwrap_err().message;
            assert!(refused.is_ascii() && !refused.contains('\n'), "{refused}");
            assert!(check_name("table", name).is_err(), "{name}");
            assert!(check_name("column", name).is_ok(), "{name}");
        }
        for name in [" ", "a ", " a", "a\u{A0}b"] {
            assert!(refuse_ambiguous("user", name).is_err() && check_name("table", name).is_ok(), "{name}");
        }
    }
}
