//! What may be a name: of a namespace, table, view, index, column or user.
//!
//! Paths of files are made of names and cannot be left by one, whatever it is (`storage/src/paths.rs`). Here it is about people:
//! two names that look the same should be the same.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup, JoiningType,
    NoncharacterCodePoint, PrependedConcatenationMark,
};
use icu_properties::{CodePointMapData, CodePointSetData};

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
    let why = if has_unseen(name) {
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

/// Whether it has characters that are not seen. Joiners are, where they change how their neighbours look.
fn has_unseen(name: &str) -> bool {
    name.char_indices().any(|(at, c)| match c {
        NON_JOINER | JOINER => !joins(c, &name[..at], &name[at + c.len_utf8()..]),
        _ => is_unseen(c),
    })
}

const NON_JOINER: char = '\u{200C}';
const JOINER: char = '\u{200D}';
/// The empty pattern of Braille, a filler of Khitan's small script, and a note without a head: blank by their looks only.
const BLANK: [char; 3] = ['\u{2800}', '\u{16FE4}', '\u{1D159}'];

fn is_unseen(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    BLANK.contains(&c)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
        || match CodePointMapData::<GeneralCategory>::new().get(c) {
            Control | LineSeparator | ParagraphSeparator => true,
            // Signs that are written around numbers are seen.
            Format => !CodePointSetData::new::<PrependedConcatenationMark>().contains(c),
            _ => false,
        }
}

/// Whether a joiner does something between what is before and after it, by the rules that names of hosts have for it
/// (RFC 5892, A.1 and A.2).
fn joins(joiner: char, before: &str, after: &str) -> bool {
    let is_written = |c: char| {
        let category = CodePointMapData::<GeneralCategory>::new().get(c);
        GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Mark).contains(category)
    };
    let (Some(last), Some(next)) = (before.chars().next_back(), after.chars().next()) else { return false };
    let follows_virama =
        CodePointMapData::<CanonicalCombiningClass>::new().get(last) == CanonicalCombiningClass::Virama;
    is_written(last) && is_written(next) && (follows_virama || joiner == NON_JOINER && parts_joined(before, after))
}

/// Whether letters of a joined script, such as Arabic, meet here.
fn parts_joined(before: &str, after: &str) -> bool {
    let joining = |c: char| CodePointMapData::<JoiningType>::new().get(c);
    let is_transparent = |kind: &JoiningType| *kind == JoiningType::Transparent;
    let last = before.chars().rev().map(joining).find(|kind| !is_transparent(kind));
    let next = after.chars().map(joining).find(|kind| !is_transparent(kind));
    matches!(last, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
        && matches!(next, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_others() {
        let joined = ["नमस्\u{200D}ते", "क्\u{200C}ष", "می\u{200C}خواهم"];
        for name in ["plain", "Zoë", "한글", "../x", "a b", "Ω", "\u{600}1", "🧊", "\u{E000}"].into_iter().chain(joined)
        {
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
        // A joiner that joins nothing, or nothing that is joined.
        for name in [
            "a\u{200D}b",
            "a\u{200C}b",
            "नमस्\u{200D}",
            "\u{200D}क",
            "می\u{200C}",
            "می\u{200D}خ",
            "\u{200C}",
            "👩\u{200D}🚀",
        ] {
            assert!(refuse_ambiguous("user", name).is_err(), "{name}");
        }
        for c in "\u{34F}\u{FE0F}\u{E0100}\u{E0061}\u{3164}\u{115F}\u{FFA0}\u{17B4}\u{180B}\u{206A}\u{FFF9}\u{1D173}\u{2800}\u{FDD0}\u{10FFFF}".chars() {
            assert!(refuse_ambiguous("user", &format!("carla{c}")).is_err(), "{c:?}");
        }
        for name in [" ", "a ", " a", "a\u{A0}b"] {
            assert!(refuse_ambiguous("user", name).is_err() && check_name("table", name).is_ok(), "{name}");
        }
    }
}
