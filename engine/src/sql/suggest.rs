//! The name that was probably meant.

/// Nearest of these names, when one is near: `flihts` → `flights`. Case is no difference.
pub(crate) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = unknown.to_lowercase();
    let length = lower.chars().count();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        // A third of the letters may differ: `id` does not suggest `ts`, nor `a` anything but `A`.
        .filter(|(distance, name)| *distance <= length.max(name.chars().count()) / 3)
        .min()
        .map(|(_, name)| name)
}

/// `unknown table 'flihts': did you mean 'flights'?`
pub(crate) fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    suggesting(&format!("unknown {what} '{name}'"), name, known)
}

/// The same for somebody to whom it may be hidden: `known` has nothing of what is.
pub(crate) fn unknown_or_hidden<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    suggesting(&format!("unknown {what} '{name}' (or you have no right to it)"), name, known)
}

fn suggesting<'a>(text: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(near) if near != name && near.eq_ignore_ascii_case(name) => {
            format!("{text}: did you mean \"{near}\"? Names with capitals need double quotes")
        }
        Some(near) => format!("{text}: did you mean '{near}'?"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near() {
        let known = ["flights", "airports", "id", "Name"];
        for (name, expected) in [
            ("flihts", "unknown table 'flihts': did you mean 'flights'?"),
            ("flighst", "unknown table 'flighst': did you mean 'flights'?"),
            ("planes", "unknown table 'planes'"),
            ("xy", "unknown table 'xy'"),
            ("name", "unknown table 'name': did you mean \"Name\"? Names with capitals need double quotes"),
        ] {
            assert_eq!(unknown("table", name, known), expected);
        }
        assert_eq!(unknown("table", "t", []), "unknown table 't'");
        let hidden = "unknown table 'flihts' (or you have no right to it): did you mean 'flights'?";
        assert_eq!(unknown_or_hidden("table", "flihts", known), hidden);
        assert_eq!(unknown_or_hidden("view", "v", known), "unknown view 'v' (or you have no right to it)");
    }
}
