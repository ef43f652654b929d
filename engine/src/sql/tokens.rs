//! Text to tokens: placed, counted, with `?` turned into `$1`, `$2`, ….

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::conflict::EXCLUDED;
use super::constraints::ROW;
use super::defaults::DEFAULT_MARK;
use super::dialect::SeracDialect;
use super::dml::TARGET_CATALOG;
use super::limits::Limits;
use super::planner::ALL_USERS_CATALOG;
use super::time_travel::CHANGES_CATALOG;
use crate::error::{EngineError, ErrorKind, Result};

/// The highest parameter: what other databases allow, and a list of that length is made for every statement.
pub(crate) const PARAMETERS_MAX: usize = 65_535;

/// The statement's tokens, without white space, within the limits.
pub(crate) fn tokenize(sql: &str, limits: &Limits) -> Result<Vec<TokenWithSpan>> {
    if sql.len() > limits.statement_bytes_max {
        return Err(EngineError::new(
            ErrorKind::ResourceExhausted,
            format!(
                "the statement has {} bytes, more than the {} allowed: send rows by ingest or as parameters, \
                 or raise statement_bytes_max",
                sql.len(),
                limits.statement_bytes_max
            ),
        ));
    }
    let mut tokens = Tokenizer::new(&SeracDialect, sql)
        .tokenize_with_location()
        .map_err(|e| syntax_error(e.location, &e.message))?;
    tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
    if tokens.len() > limits.tokens_max {
        return Err(EngineError::new(
            ErrorKind::ResourceExhausted,
            format!(
                "the statement has {} words, numbers and signs, more than the {} allowed: send rows by ingest or as \
                 parameters",
                tokens.len(),
                limits.tokens_max
            ),
        ));
    }
    refuse_own_names(&tokens)?;
    free_aliases(&mut tokens);
    check_depth(&tokens, limits)?;
    number_placeholders(&mut tokens)?;
    Ok(tokens)
}

/// By which statements of ours are told from a client's: what they mean is read without a right to.
const OWN_NAMES: [&str; 6] = [TARGET_CATALOG, ALL_USERS_CATALOG, EXCLUDED, ROW, DEFAULT_MARK, CHANGES_CATALOG];

/// Refuses names that are ours.
fn refuse_own_names(tokens: &[TokenWithSpan]) -> Result<()> {
    let is_own = |token: &&TokenWithSpan| match &token.token {
        Token::Word(word) => OWN_NAMES.contains(&word.value.as_str()),
        Token::DoubleQuotedString(text) => OWN_NAMES.contains(&text.as_str()),
        _ => false,
    };
    match tokens.iter().find(is_own) {
        Some(token) => Err(syntax_error(token.span.start, &format!("{} cannot be a name", token.token))),
        None => Ok(()),
    }
}

/// A syntax error at a place.
pub(crate) fn syntax_error(at: Location, message: &str) -> EngineError {
    EngineError::invalid(match (at.line, message) {
        (0, message) => format!("syntax error: {message}"),
        (line, message) => format!("syntax error at line {line}, column {}: {message}", at.column),
    })
}

/// Has `FROM t at` and the like mean an alias: the parser takes these words behind a table for a clause of other databases.
fn free_aliases(tokens: &mut [TokenWithSpan]) {
    let is_clause = |next: Option<&Token>| match next {
        Some(Token::LParen) => true,
        // AT TIME ZONE.
        Some(Token::Word(word)) => word.keyword == Keyword::TIME,
        _ => false,
    };
    for at in 0..tokens.len() {
        let Token::Word(word) = &tokens[at].token else { continue };
        if !matches!(word.keyword, Keyword::AT | Keyword::BEFORE | Keyword::CHANGES) {
            continue;
        }
        let mut behind = tokens[at + 1..].iter().map(|token| &token.token);
        let is_alias = !is_clause(behind.find(|token| !matches!(token, Token::Whitespace(_))));
        if let Token::Word(word) = &mut tokens[at].token
            && is_alias
        {
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// Turns `?` into `$1`, `$2`, … in order; checks `$n`.
fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let mut questions = 0;
    let mut dollars = false;
    for token in tokens {
        let at = token.span.start;
        let Token::Placeholder(name) = &mut token.token else { continue };
        match name.as_bytes() {
            b"?" => {
                questions += 1;
                *name = format!("${questions}");
            }
            [b'$', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                dollars = true;
                match name[1..].parse::<usize>() {
                    Ok(number @ 1..=PARAMETERS_MAX) => *name = format!("${number}"),
                    _ => {
                        let text = format!("{name} is not a parameter: they go from $1 to ${PARAMETERS_MAX}");
                        return Err(syntax_error(at, &text));
                    }
                }
            }
            _ => return Err(syntax_error(at, &format!("{name} is not a parameter: write ? or $1, $2, …"))),
        }
        if questions > 0 && dollars {
            return Err(syntax_error(at, "? and $n in one statement: use one of them"));
        }
        if questions > PARAMETERS_MAX {
            return Err(syntax_error(at, &format!("more than {PARAMETERS_MAX} parameters")));
        }
    }
    Ok(())
}

/// A level of a set operation takes about three times the stack of an operator.
const SET_WEIGHT: usize = 3;

/// Hundreds of subscripts in a row are enough.
const BRACKET_WEIGHT: usize = 20;

/// What opened a level and closes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parenthesis,
    Case,
    /// `STRUCT<` or `ARRAY<`.
    Type,
}

/// An open parenthesis, bracket, CASE or type, with what would nest within it so far.
struct Level {
    kind: Kind,
    /// Operators since the last comma: `a + b + c` nests as deep as it has operators.
    operators: usize,
    /// UNION, INTERSECT, EXCEPT: they nest likewise, and commas do not end them.
    set_operators: usize,
}

/// Where a statement is how deep.
struct Depth {
    levels: Vec<Level>,
    /// Operators and set operators of all levels.
    operators: usize,
}

/// Refuses text whose tree would be too deep to build or drop. An upper bound, taken before there is a tree: the parser
/// builds `a + b + c + …` in a loop, of any depth, and even dropping a tree of 100,000 levels overflows the stack.
fn check_depth(tokens: &[TokenWithSpan], limits: &Limits) -> Result<()> {
    let mut depth = Depth { levels: vec![], operators: 0 };
    depth.open(Kind::Parenthesis);
    let mut last = Keyword::NoKeyword;
    for token in tokens {
        depth.take(&token.token, last);
        if last == Keyword::INTERVAL && keyword(&token.token) == Keyword::INTERVAL {
            // The parser would go down one by one without a bound.
            return Err(syntax_error(token.span.start, "INTERVAL after INTERVAL: write INTERVAL '1 day'"));
        }
        last = keyword(&token.token);
        let too_deep = |what: String| {
            let place = token.span.start;
            Err(EngineError::new(
                ErrorKind::ResourceExhausted,
                format!("the statement is too deep at line {}, column {}: {what}", place.line, place.column),
            ))
        };
        if depth.operators > limits.chain_max {
            return too_deep(format!(
                "more than {} operators in one expression; use IN (…) for many values, or split the statement",
                limits.chain_max
            ));
        }
        // The first level is the statement itself.
        if depth.levels.len() > limits.nesting_max + 1 {
            return too_deep(format!("more than {} parentheses, brackets or CASEs in one another", limits.nesting_max));
        }
    }
    Ok(())
}

impl Depth {
    fn take(&mut self, token: &Token, last: Keyword) {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // Subscripts and array types chain too: a[1][2], INT[][]. The parser's types recurse without bounds.
                self.operators(if *token == Token::LBracket { BRACKET_WEIGHT } else { 1 });
                self.open(Kind::Parenthesis);
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.close(Kind::Parenthesis),
            Token::Comma | Token::SemiColon => self.end_chain(),
            Token::Lt if matches!(last, Keyword::STRUCT | Keyword::ARRAY | Keyword::MAP) => self.open(Kind::Type),
            Token::Gt if self.is_in(Kind::Type) => self.close(Kind::Type),
            Token::ShiftRight if self.is_in(Kind::Type) => {
                self.close(Kind::Type);
                self.close(Kind::Type);
            }
            token if is_operand(token) => match keyword(token) {
                Keyword::CASE => {
                    self.operator();
                    self.open(Kind::Case);
                }
                Keyword::END if self.is_in(Kind::Case) => self.close(Kind::Case),
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE if self.is_in(Kind::Case) => self.end_chain(),
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::MINUS => {
                    self.operators += SET_WEIGHT;
                    self.levels.iter_mut().last().into_iter().for_each(|top| top.set_operators += SET_WEIGHT);
                }
                keyword if is_operator_word(keyword) => self.operator(),
                _ => {}
            },
            _ => self.operator(),
        }
    }

    fn open(&mut self, kind: Kind) {
        self.levels.push(Level { kind, operators: 0, set_operators: 0 });
    }

    /// Closes the innermost level of this kind; a parenthesis closes what was left open in it.
    fn close(&mut self, kind: Kind) {
        while self.levels.len() > 1 {
            let Some(level) = self.levels.pop() else { return };
            self.operators -= level.operators + level.set_operators;
            if level.kind == kind {
                return;
            }
        }
    }

    fn is_in(&self, kind: Kind) -> bool {
        self.levels.last().is_some_and(|top| top.kind == kind)
    }

    fn operator(&mut self) {
        self.operators(1);
    }

    fn operators(&mut self, weight: usize) {
        self.operators += weight;
        self.levels.iter_mut().last().into_iter().for_each(|top| top.operators += weight);
    }

    fn end_chain(&mut self) {
        if let Some(top) = self.levels.last_mut() {
            self.operators -= std::mem::take(&mut top.operators);
        }
    }
}

/// The keyword a word is; a quoted one is none.
fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn is_operand(token: &Token) -> bool {
    matches!(
        token,
        Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::Placeholder(_)
            | Token::Period
            | Token::EOF
    )
}

fn is_operator_word(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::AND
            | Keyword::OR
            | Keyword::XOR
            | Keyword::NOT
            | Keyword::IS
            | Keyword::IN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::RLIKE
            | Keyword::REGEXP
            | Keyword::SIMILAR
            | Keyword::BETWEEN
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::NOTNULL
            | Keyword::OVERLAPS
            | Keyword::OPERATOR
            | Keyword::DIV
            | Keyword::MEMBER
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholders(sql: &str) -> Result<Vec<String>> {
        let tokens = tokenize(sql, &Limits::default())?;
        Ok(tokens
            .into_iter()
            .filter_map(|t| match t.token {
                Token::Placeholder(name) => Some(name),
                _ => None,
            })
            .collect())
    }

    #[test]
    fn question_marks_are_numbered_on_tokens() {
        for (sql, expected) in [
            ("SELECT ?, ?", &["$1", "$2"][..]),
            ("SELECT '?', \"?\", $$?$$, E'?' -- ?\n /* ? */, ?", &["$1"]),
            ("SELECT a>=?, b=?-1, ?||'x', ?::int, a@>?, -?", &["$1", "$2", "$3", "$4", "$5", "$6"]),
            ("SELECT $2, $1, $2", &["$2", "$1", "$2"]),
            ("SELECT $007", &["$7"]),
            ("SELECT a$1", &[]),
        ] {
            assert_eq!(placeholders(sql).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn bad_parameters_say_where() {
        for (sql, part) in [
            ("SELECT ?, $1", "column 11: ? and $n in one statement"),
            ("SELECT $1,\n ?", "line 2, column 2: ? and $n"),
            ("SELECT $0", "$0 is not a parameter"),
            ("SELECT $99999", "go from $1 to $65535"),
            ("SELECT $99999999999999999999999", "go from $1"),
            ("SELECT $name", "$name is not a parameter"),
            ("SELECT ?1", "?1 is not a parameter"),
            ("SELECT INTERVAL INTERVAL '1 day'", "INTERVAL after INTERVAL"),
        ] {
            let error = placeholders(sql).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            assert!(error.message.contains(part), "{sql}: {}", error.message);
        }
    }

    #[test]
    fn some_names_are_ours() {
        for sql in [
            "SELECT * FROM \"seracdb target\".ns.t",
            "UPDATE t SET a = (SELECT max(b) FROM \"seracdb target\".ns.t)",
            "SELECT 1 AS \"seracdb target\"",
            "SELECT * FROM \"seracdb all users\".ns.t",
        ] {
            assert!(tokenize(sql, &Limits::default()).is_err(), "{sql}");
        }
        for sql in ["SELECT 'seracdb target'", "SELECT 1 AS \"seracdb  target\"", "SELECT \"Seracdb target\".a"] {
            tokenize(sql, &Limits::default()).unwrap();
        }
    }

    #[test]
    fn unterminated_text_says_where() {
        let error = placeholders("SELECT 1,\n  'abc").unwrap_err();
        assert!(error.message.starts_with("syntax error at line 2, column 3: "), "{}", error.message);
    }

    #[test]
    fn chains_are_bounded_but_lists_are_not() {
        let limits = Limits { chain_max: 100, ..Limits::default() };
        let many = |part: &str, n: usize| part.repeat(n);
        for sql in [
            format!("SELECT 1{}", many(", 1 + 2 + 3", 1000)),
            format!("INSERT INTO t VALUES (1){}", many(", (-1, f(2) + 1)", 1000)),
            format!("SELECT CASE{} END", many(" WHEN a = 1 THEN b + 1", 1000)),
            format!("SELECT a{} FROM t", many(" + CASE WHEN 1 THEN 2 END", 40)),
        ] {
            tokenize(&sql, &limits).unwrap_or_else(|e| panic!("{sql:.60}: {e}"));
        }
        for sql in [
            format!("SELECT 1{}", many(" + 1", 101)),
            format!("SELECT 1{}", many(" IS NULL", 101)),
            format!("SELECT a{}", many("[1]", 6)),
            format!("SELECT a{}", many("::int", 101)),
            format!("SELECT {}1", many("- ", 101)),
            format!("SELECT 1, 2{}", many(" UNION SELECT 1, 2", 34)),
            format!("SELECT 1{} + 1", many(" + CASE WHEN a THEN b END", 101)),
            format!("SELECT {}1", many("f(1, 2 + ", 60)),
            format!("SELECT {}1", many("CASE WHEN a THEN ", 101)),
        ] {
            let error = tokenize(&sql, &limits).unwrap_err();
            assert_eq!(error.kind, ErrorKind::ResourceExhausted, "{sql:.60}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let limits = Limits { nesting_max: 10, ..Limits::default() };
        let nested = |open: &str, n: usize, close: &str| format!("SELECT {}1{}", open.repeat(n), close.repeat(n));
        for (open, close) in [("(", ")"), ("f(", ")"), ("[", "]"), ("CASE WHEN a THEN ", " END"), ("a::STRUCT<x ", ">")]
        {
            tokenize(&nested(open, 10, close), &limits).unwrap_or_else(|e| panic!("{open}: {}", e.message));
            tokenize(&nested(open, 11, close), &limits).unwrap_err();
        }
        // Closed ones do not count, whatever closes them.
        tokenize(&"SELECT (1), [1], CASE WHEN 1 THEN 2 END, a::STRUCT<x ARRAY<INT>>, ".repeat(50), &limits).unwrap();
        tokenize(&"SELECT (CASE), (STRUCT<a), ".repeat(50), &limits).unwrap();
    }

    #[test]
    fn size_is_bounded() {
        let limits = Limits { statement_bytes_max: 10, ..Limits::default() };
        assert_eq!(tokenize("SELECT 12345", &limits).unwrap_err().kind, ErrorKind::ResourceExhausted);
        let limits = Limits { tokens_max: 3, ..Limits::default() };
        assert_eq!(tokenize("SELECT 1, 2", &limits).unwrap_err().kind, ErrorKind::ResourceExhausted);
    }
}
