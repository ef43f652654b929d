//! Text → one [`Statement`]. Each kind of statement is read by its own function, here, in [`super::writes`], [`super::ddl`],
//! [`super::users`], [`super::grants`], [`super::views`] or [`super::settings`]; what has no function is refused.

use datafusion::sql::sqlparser::ast::{ObjectName, Query};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::ddl;
use super::dialect::SeracDialect;
use super::grants;
use super::jobs;
use super::limits::Limits;
use super::names::TableName;
use super::settings;
use super::statement::Statement;
use super::subject::take_subject;
use super::tokens::{syntax_error, tokenize};
use super::transactions;
use super::validate::{admit, unsupported};
use super::views;
use crate::error::{EngineError, Result};

/// Levels the parser may go down; one parenthesis is about two of them.
pub(super) const RECURSION_MAX: usize = 200;

/// Reads exactly one statement, which is for the user who sends it.
pub(crate) fn parse(sql: &str, limits: &Limits) -> Result<Statement> {
    match parse_for(sql, limits) {
        Read { statement, subject: None } => statement,
        Read { subject: Some(_), .. } => Err(EngineError::invalid("AS USER is not possible here")),
    }
}

/// What was read: a statement or why there is none, and for which other user it is or would have been.
pub(crate) struct Read {
    pub(crate) statement: Result<Statement>,
    pub(crate) subject: Option<String>,
}

/// Reads exactly one statement, and for which other user it is.
pub(crate) fn parse_for(sql: &str, limits: &Limits) -> Read {
    let mut tokens = match tokenize(sql, limits) {
        Ok(tokens) => tokens,
        Err(error) => return Read { statement: Err(error), subject: None },
    };
    let (subject, taken) = take_subject(&mut tokens);
    let statement = taken.and_then(|()| parse_tokens(sql, tokens, limits)).and_then(|statement| {
        match subject.is_none() || may_be_for_others(&statement) {
            true => Ok(statement),
            false => {
                Err(EngineError::invalid("AS USER is possible for a SELECT, INSERT, UPDATE, DELETE or MERGE only"))
            }
        }
    });
    Read { statement, subject }
}

fn parse_tokens(sql: &str, tokens: Vec<TokenWithSpan>, limits: &Limits) -> Result<Statement> {
    let end = tokens.last().map_or(Location { line: 1, column: 1 }, |t| t.span.end);
    if tokens.iter().all(|t| t.token == Token::SemiColon) {
        return Err(EngineError::invalid("the statement is empty"));
    }
    let parser = Parser::new(&SeracDialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens);
    let mut reader = Reader { parser, limits, sql, end, hides_text: false };
    while reader.parser.consume_token(&Token::SemiColon) {}
    let statement = reader.statement()?;
    reader.end_of_statement()?;
    Ok(statement)
}

fn may_be_for_others(statement: &Statement) -> bool {
    use Statement::{Delete, Explain, Insert, Merge, Query, Update};
    matches!(statement, Query(_) | Explain { .. } | Insert(_) | Update(_) | Delete(_) | Merge(_))
}

/// Whether a text has parameters, be it a statement or not.
pub(crate) fn has_parameters(sql: &str, limits: &Limits) -> bool {
    let is_parameter = |token: &TokenWithSpan| matches!(token.token, Token::Placeholder(_));
    // Most have no sign of one: they need not be read twice.
    sql.contains(['?', '$']) && tokenize(sql, limits).is_ok_and(|tokens| tokens.iter().any(is_parameter))
}

/// The parser at its place in the statement.
pub(crate) struct Reader<'a> {
    pub(crate) parser: Parser<'a>,
    pub(crate) limits: &'a Limits,
    sql: &'a str,
    /// Where the text ends, for errors about what is missing there.
    end: Location,
    /// Whether what follows may be a password, or a part of one that was cut in two by its quotes.
    hides_text: bool,
}

impl Reader<'_> {
    fn statement(&mut self) -> Result<Statement> {
        let token = self.parser.peek_token();
        let keyword = match &token.token {
            Token::LParen => return self.query(),
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => return Err(self.expected("a statement", &token)),
        };
        match keyword {
            Keyword::SELECT | Keyword::VALUES => self.query(),
            Keyword::WITH => self.with(),
            Keyword::TABLE => self.table_query(),
            Keyword::INSERT => self.insert(),
            Keyword::UPDATE => self.update(),
            Keyword::DELETE => self.delete(),
            Keyword::MERGE => self.merge(),
            Keyword::TRUNCATE => self.truncate(),
            Keyword::EXPLAIN => self.explain(),
            Keyword::DESCRIBE | Keyword::DESC => settings::describe(self),
            Keyword::SHOW => settings::show(self),
            Keyword::SET => settings::set(self),
            Keyword::RESET => settings::reset(self),
            Keyword::USE => settings::use_namespace(self),
            Keyword::CREATE => ddl::create(self),
            Keyword::ALTER => ddl::alter(self),
            Keyword::DROP => ddl::drop(self),
            Keyword::GRANT => grants::grant(self),
            Keyword::REVOKE => grants::revoke(self),
            Keyword::COMMENT => views::comment(self),
            Keyword::STORAGE => ddl::storage(self),
            Keyword::BEGIN | Keyword::START => transactions::begin(self),
            Keyword::COMMIT | Keyword::END => transactions::commit(self),
            Keyword::ROLLBACK | Keyword::ABORT => transactions::rollback(self),
            Keyword::SAVEPOINT => transactions::savepoint(self),
            Keyword::RELEASE => transactions::release(self),
            _ if self.words(&["RUN", "JOB"]) => jobs::run_job(self),
            _ if self.words(&["CANCEL", "JOB"]) => jobs::cancel_job(self),
            _ if self.words(&["CANCEL", "QUERY"]) => jobs::cancel_query(self),
            _ => Err(self.refused(keyword, &token)),
        }
    }

    /// A statement of another database, or no statement at all.
    fn refused(&self, keyword: Keyword, token: &TokenWithSpan) -> EngineError {
        match keyword {
            Keyword::NoKeyword => self.expected("a statement", token),
            _ => unsupported(&token.token.to_string().to_uppercase()),
        }
    }

    /// A query that is a part of another statement, with its text.
    pub(crate) fn query_with_text(&mut self) -> Result<(Box<Query>, String)> {
        let token = self.parser.peek_token();
        let is_query = match &token.token {
            Token::LParen => true,
            Token::Word(word) => {
                let queries = [Keyword::SELECT, Keyword::WITH, Keyword::VALUES, Keyword::TABLE];
                word.quote_style.is_none() && queries.contains(&word.keyword)
            }
            _ => false,
        };
        match is_query.then(|| self.statement()).transpose()? {
            Some(Statement::Query(query)) => {
                let end = self.parser.get_current_token().span.end;
                Ok((query, self.sql[offset(self.sql, token.span.start)..offset(self.sql, end)].to_owned()))
            }
            _ => Err(self.expected("a query", &token)),
        }
    }

    fn query(&mut self) -> Result<Statement> {
        Ok(Statement::Query(self.parse_query()?))
    }

    fn parse_query(&mut self) -> Result<Box<Query>> {
        let query = self.parser.parse_query();
        let mut query = self.at(query)?;
        admit(query.as_mut(), self.limits)?;
        Ok(query)
    }

    /// `TABLE name` is `SELECT * FROM name`; DataFusion has no plan for it.
    fn table_query(&mut self) -> Result<Statement> {
        self.parser.advance_token();
        let name = TableName::parse(&self.object_name()?)?;
        Ok(Statement::Query(Box::new(super::dml::select_all(&name))))
    }

    fn explain(&mut self) -> Result<Statement> {
        let options = settings::explain_options(self)?;
        let token = self.parser.peek_token();
        let inner = match &token.token {
            Token::LParen => self.query()?,
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                Keyword::SELECT
                | Keyword::WITH
                | Keyword::VALUES
                | Keyword::TABLE
                | Keyword::INSERT
                | Keyword::UPDATE
                | Keyword::DELETE
                | Keyword::MERGE => self.statement()?,
                _ => return Err(self.expected("SELECT, INSERT, UPDATE, DELETE or MERGE after EXPLAIN", &token)),
            },
            _ => return Err(self.expected("SELECT, INSERT, UPDATE, DELETE or MERGE after EXPLAIN", &token)),
        };
        Ok(Statement::Explain {
            analyze: options.analyze,
            verbose: options.verbose,
            format: options.format,
            inner: Box::new(inner),
        })
    }

    /// Nothing may follow but `;`.
    pub(crate) fn end_of_statement(&mut self) -> Result<()> {
        let mut ended = false;
        while self.parser.consume_token(&Token::SemiColon) {
            ended = true;
        }
        let token = self.parser.peek_token();
        match (&token.token, ended) {
            (Token::EOF, _) => Ok(()),
            (_, true) => Err(syntax_error(
                token.span.start,
                &format!("a second statement begins at {}: send one statement at a time", self.shown(&token.token)),
            )),
            (_, false) => Err(self.expected("the end of the statement", &token)),
        }
    }

    /// `name` or `namespace.name`.
    pub(crate) fn object_name(&mut self) -> Result<ObjectName> {
        let name = self.parser.parse_object_name(false);
        self.at(name)
    }

    /// The error of finding this token here.
    pub(crate) fn expected(&self, what: &str, found: &TokenWithSpan) -> EngineError {
        match found.token {
            Token::EOF => syntax_error(self.end, &format!("expected {what}, found the end of the statement")),
            _ => syntax_error(found.span.start, &format!("expected {what}, found {}", self.shown(&found.token))),
        }
    }

    /// From here on errors repeat nothing of the statement.
    pub(crate) fn hide_text(&mut self) {
        self.hides_text = true;
    }

    fn shown(&self, token: &Token) -> String {
        match self.hides_text {
            true => "something else".to_owned(),
            false => format!("'{token}'"),
        }
    }

    /// The parser's result, with its error put the way ours are.
    pub(crate) fn at<T>(&self, result: Result<T, ParserError>) -> Result<T> {
        result.map_err(|error| match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => self.parser_error(&text),
            ParserError::RecursionLimitExceeded => EngineError::new(
                crate::error::ErrorKind::ResourceExhausted,
                "the statement is too deep: too many parentheses or subqueries in one another; split it",
            ),
        })
    }

    /// `Expected: x, found: y at Line: 1, Column: 2` → `syntax error at line 1, column 2: expected x, found 'y'`.
    fn parser_error(&self, text: &str) -> EngineError {
        let (message, at) = match text.rsplit_once(" at Line: ") {
            Some((message, place)) => (message, parse_place(place)),
            None => (text, None),
        };
        let message = match message.strip_prefix("Expected: ").and_then(|m| m.rsplit_once(", found: ")) {
            Some((what, "EOF")) => format!("expected {what}, found the end of the statement"),
            Some((what, found)) => format!("expected {what}, found '{found}'"),
            None => message.strip_prefix("sql parser error: ").unwrap_or(message).to_owned(),
        };
        syntax_error(at.unwrap_or(self.end), &message)
    }
}

/// The byte of a text at this place.
fn offset(text: &str, at: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, c) in text.char_indices() {
        if (line, column) >= (at.line, at.column) {
            return offset;
        }
        (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    text.len()
}

fn parse_place(place: &str) -> Option<Location> {
    let (line, column) = place.split_once(", Column: ")?;
    let location = Location { line: line.parse().ok()?, column: column.parse().ok()? };
    (location.line > 0).then_some(location)
}

/// SQL that SeracDB is to have.
pub(crate) fn comes_later(what: &str) -> EngineError {
    EngineError::new(crate::error::ErrorKind::Unimplemented, format!("{what}: not supported yet"))
}
