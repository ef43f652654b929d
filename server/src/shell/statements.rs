//! Splits a script at its semicolons: not those in quotes, dollar quotes or comments. Where a statement may begin, a
//! backslash begins a command of the shell, which ends with its line.

/// A script's statements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// The complete statements, the shell's commands and, last, a statement without a semicolon. Without surrounding
    /// space; none is empty.
    pub(super) statements: Vec<&'a str>,
    /// Whether the text ends where a statement may end: after a semicolon, or with nothing but space and comments.
    pub(super) complete: bool,
}

pub(super) fn split(text: &str) -> Split<'_> {
    let bytes = text.as_bytes();
    let mut statements = Vec::new();
    let mut start = 0;
    let mut at = 0;
    // Whether something else than space and comments has been seen since the last semicolon.
    let mut something = false;
    let mut open = false;
    while at < bytes.len() {
        if bytes[at] == b';' {
            if something {
                statements.push(text[start..at].trim());
            }
            at += 1;
            (start, something) = (at, false);
            continue;
        }
        if bytes[at] == b'\\' && !something {
            let end = text[at..].find('\n').map_or(text.len(), |length| at + length + 1);
            statements.push(text[at..end].trim());
            (at, start) = (end, end);
            continue;
        }
        let token = token(text, at);
        something |= token.counts;
        open = !token.closed;
        at = token.end;
    }
    if something {
        statements.push(text[start..].trim());
    }
    Split { statements, complete: !something && !open }
}

/// A piece of a script in which no semicolon ends a statement.
struct Token {
    end: usize,
    /// Neither space nor comment.
    counts: bool,
    /// It has its end: the quote is closed.
    closed: bool,
}

fn token(text: &str, at: usize) -> Token {
    let rest = &text[at..];
    match rest.as_bytes()[0] {
        quote @ (b'\'' | b'"' | b'`') => quoted(text, at, quote),
        b'-' if rest.starts_with("--") => {
            Token { end: rest.find('\n').map_or(text.len(), |end| at + end + 1), counts: false, closed: true }
        }
        b'/' if rest.starts_with("/*") => block_comment(text, at),
        b'$' => dollar_quoted(text, at),
        first if first.is_ascii_whitespace() => Token { end: at + 1, counts: false, closed: true },
        first if first.is_ascii_alphanumeric() || first == b'_' => {
            // A whole word, for a$b$ is a name and no dollar quote.
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            Token { end: at + word, counts: true, closed: true }
        }
        _ => Token { end: at + rest.chars().next().map_or(1, char::len_utf8), counts: true, closed: true },
    }
}

/// To the closing quote. A doubled quote inside begins the next token, which is one more quoted piece: the same end.
fn quoted(text: &str, at: usize, quote: u8) -> Token {
    let end = text.as_bytes()[at + 1..].iter().position(|byte| *byte == quote).map(|length| at + length + 2);
    Token { end: end.unwrap_or(text.len()), counts: true, closed: end.is_some() }
}

/// Block comments nest, as in standard SQL.
fn block_comment(text: &str, at: usize) -> Token {
    let bytes = text.as_bytes();
    let (mut depth, mut end) = (1, at + 2);
    while end < bytes.len() && depth > 0 {
        match &bytes[end..] {
            [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
            [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
            _ => end += 1,
        }
    }
    Token { end, counts: false, closed: depth == 0 }
}

/// `$$ … $$` or `$tag$ … $tag$`; otherwise the dollar of a parameter.
fn dollar_quoted(text: &str, at: usize) -> Token {
    let rest = &text[at + 1..];
    let tag = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|length| rest[*length..].starts_with('$'));
    let Some(length) = tag.filter(|_| !rest.starts_with(|c: char| c.is_ascii_digit())) else {
        return Token { end: at + 1, counts: true, closed: true };
    };
    let delimiter = &text[at..at + length + 2];
    let body = at + delimiter.len();
    let end = text[body..].find(delimiter).map(|found| body + found + delimiter.len());
    Token { end: end.unwrap_or(text.len()), counts: true, closed: end.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, statements: &[&str], complete: bool) {
        assert_eq!(split(text), Split { statements: statements.to_vec(), complete }, "{text:?}");
    }

    #[test]
    fn semicolons_separate() {
        check("", &[], true);
        check(" ;; ; \n", &[], true);
        check("SELECT 1", &["SELECT 1"], false);
        check("SELECT 1;", &["SELECT 1"], true);
        check("a; b ;c", &["a", "b", "c"], false);
    }

    #[test]
    fn a_backslash_where_a_statement_begins_is_a_command_up_to_the_end_of_its_line() {
        check("\\d", &["\\d"], true);
        check("SELECT 1; \\d a.b ; \n SELECT 2;", &["SELECT 1", "\\d a.b ;", "SELECT 2"], true);
        check("-- a comment\n\\dn\n\\q", &["\\dn", "\\q"], true);
        check("SELECT '\n\\d'; b;", &["SELECT '\n\\d'", "b"], true);
    }

    #[test]
    fn quotes_hide_semicolons() {
        check("SELECT ';'; b;", &["SELECT ';'", "b"], true);
        check("SELECT 'it''s; fine'; b;", &["SELECT 'it''s; fine'", "b"], true);
        check("SELECT \"a;\"\"b\"; b;", &["SELECT \"a;\"\"b\"", "b"], true);
        check("SELECT 'ä;ö'; ü;", &["SELECT 'ä;ö'", "ü"], true);
        check("SELECT 'open;", &["SELECT 'open;"], false);
    }

    #[test]
    fn dollar_quotes_hide_semicolons() {
        check("SELECT $$a;b$$; c;", &["SELECT $$a;b$$", "c"], true);
        check("SELECT $x$a;$$;$x$; c;", &["SELECT $x$a;$$;$x$", "c"], true);
        check("SELECT $1;$2;", &["SELECT $1", "$2"], true);
        check("SELECT $1$;b;", &["SELECT $1$", "b"], true);
        check("SELECT a$b$;c$b$;", &["SELECT a$b$", "c$b$"], true);
        check("SELECT $$ open;", &["SELECT $$ open;"], false);
        check("$", &["$"], false);
    }

    #[test]
    fn comments_hide_semicolons_and_are_no_statements() {
        check("-- a;b\nSELECT 1;", &["-- a;b\nSELECT 1"], true);
        check("SELECT 1; -- done;", &["SELECT 1"], true);
        check("/* a; /* b; */ ; */ SELECT 1;", &["/* a; /* b; */ ; */ SELECT 1"], true);
        check("/* open; ", &[], false);
        check("SELECT 4-2;", &["SELECT 4-2"], true);
        check("SELECT '--'; b;", &["SELECT '--'", "b"], true);
    }
}
