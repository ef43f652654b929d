//! Text → one [`Statement`]. Each kind of statement is read by its own function here or in [`super::ddl`]; what has no
//! function is refused.

use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, Delete as SqlDelete, Expr, FromTable, Ident, Insert as SqlInsert, ObjectName, Query, SetExpr,
    Statement as SqlStatement, TableAlias, TableFactor, TableObject, TableWithJoins, Update as SqlUpdate, Value,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::ddl;
use super::dialect::SeracDialect;
use super::limits::Limits;
use super::names::{self, TableName};
use super::settings;
use super::statement::{Delete, Insert, InsertSource, Statement, Update};
use super::tokens::{syntax_error, tokenize};
use super::types::refuse_system_column;
use super::validate::{admit, unsupported};
use crate::error::{EngineError, Result};

/// Levels the parser may go down; one parenthesis is about two of them.
const RECURSION_MAX: usize = 200;

/// Reads exactly one statement.
pub(crate) fn parse(sql: &str, limits: &Limits) -> Result<Statement> {
    let tokens = tokenize(sql, limits)?;
    let end = tokens.last().map_or(Location { line: 1, column: 1 }, |t| t.span.end);
    if tokens.iter().all(|t| t.token == Token::SemiColon) {
        return Err(EngineError::invalid("the statement is empty"));
    }
    let parser =
        Parser::new(&SeracDialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens);
    let mut reader = Reader { parser, limits, end };
    while reader.parser.consume_token(&Token::SemiColon) {}
    let statement = reader.statement()?;
    reader.end_of_statement()?;
    Ok(statement)
}

/// The parser at its place in the statement.
pub(crate) struct Reader<'a> {
    pub(crate) parser: Parser<'a>,
    pub(crate) limits: &'a Limits,
    /// Where the text ends, for errors about what is missing there.
    end: Location,
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
            Keyword::SELECT | Keyword::WITH | Keyword::VALUES => self.query(),
            Keyword::TABLE => self.table_query(),
            Keyword::INSERT => self.insert(),
            Keyword::UPDATE => self.update(),
            Keyword::DELETE => self.delete(),
            Keyword::EXPLAIN => self.explain(),
            Keyword::DESCRIBE | Keyword::DESC => settings::describe(self),
            Keyword::SHOW => settings::show(self),
            Keyword::SET => settings::set(self),
            Keyword::RESET => settings::reset(self),
            Keyword::USE => settings::use_namespace(self),
            Keyword::CREATE => ddl::create(self),
            Keyword::DROP => ddl::drop(self),
            Keyword::STORAGE => ddl::storage(self),
            _ => Err(self.refused(keyword, &token)),
        }
    }

    /// A statement of another database, or no statement at all.
    fn refused(&self, keyword: Keyword, token: &TokenWithSpan) -> EngineError {
        let later = match keyword {
            Keyword::BEGIN | Keyword::START | Keyword::COMMIT | Keyword::ROLLBACK | Keyword::SAVEPOINT
            | Keyword::RELEASE | Keyword::END => "transactions over several statements",
            Keyword::MERGE => "MERGE",
            Keyword::ALTER => "ALTER",
            Keyword::TRUNCATE => "TRUNCATE (write DELETE FROM, or DROP and CREATE the table)",
            _ => "",
        };
        if !later.is_empty() {
            return comes_later(later);
        }
        match keyword {
            Keyword::NoKeyword => self.expected("a statement", token),
            _ => unsupported(&token.token.to_string().to_uppercase()),
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
                Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::TABLE | Keyword::INSERT
                | Keyword::UPDATE | Keyword::DELETE => self.statement()?,
                _ => return Err(self.expected("SELECT, INSERT, UPDATE or DELETE after EXPLAIN", &token)),
            },
            _ => return Err(self.expected("SELECT, INSERT, UPDATE or DELETE after EXPLAIN", &token)),
        };
        Ok(Statement::Explain {
            analyze: options.analyze,
            verbose: options.verbose,
            format: options.format,
            inner: Box::new(inner),
        })
    }

    fn insert(&mut self) -> Result<Statement> {
        let token = self.parser.next_token();
        let parsed = self.parser.parse_insert(token);
        let SqlStatement::Insert(insert) = self.at(parsed)? else {
            return Err(unsupported("this form of INSERT"));
        };
        refuse_insert_clauses(&insert)?;
        let TableObject::TableName(name) = &insert.table else {
            return Err(unsupported("INSERT INTO a function or query"));
        };
        let table = TableName::parse(name)?;
        let columns = insert
            .columns
            .iter()
            .map(|column| names::column_name(column, &table, None))
            .collect::<Result<Vec<_>>>()?;
        check_targets(&columns, &table)?;
        let source = self.insert_source(insert.source)?;
        Ok(Statement::Insert(Insert { table, columns, source }))
    }

    fn insert_source(&self, source: Option<Box<Query>>) -> Result<InsertSource> {
        let Some(mut query) = source else { return Ok(InsertSource::Defaults) };
        let is_plain = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none()
            && query.locks.is_empty();
        if let SetExpr::Values(values) = query.body.as_mut()
            && is_plain
        {
            let mut rows: Vec<Vec<Expr>> =
                std::mem::take(&mut values.rows).into_iter().map(|row| row.content).collect();
            rows.iter_mut().flatten().for_each(default_to_null);
            admit(&mut rows, self.limits)?;
            return Ok(InsertSource::Values(rows));
        }
        admit(query.as_mut(), self.limits)?;
        Ok(InsertSource::Query(query))
    }

    fn update(&mut self) -> Result<Statement> {
        let token = self.parser.next_token();
        let parsed = self.parser.parse_update(token);
        let SqlStatement::Update(update) = self.at(parsed)? else {
            return Err(unsupported("this form of UPDATE"));
        };
        refuse_update_clauses(&update)?;
        let (table, alias) = target(update.table, "UPDATE")?;
        let mut assignments = Vec::with_capacity(update.assignments.len());
        for assignment in update.assignments {
            match assignment.target {
                AssignmentTarget::ColumnName(name) => {
                    assignments.push((names::column_name(&name, &table, alias.as_ref())?, assignment.value));
                }
                AssignmentTarget::Tuple(columns) => assign_tuple(&columns, assignment.value, &table, &alias, &mut assignments)?,
            }
        }
        check_targets(assignments.iter().map(|(column, _)| column), &table)?;
        for (_, value) in &mut assignments {
            default_to_null(value);
            admit(value, self.limits)?;
        }
        let mut selection = update.selection;
        admit(&mut selection, self.limits)?;
        Ok(Statement::Update(Update { table, alias, assignments, selection }))
    }

    fn delete(&mut self) -> Result<Statement> {
        let token = self.parser.next_token();
        let parsed = self.parser.parse_delete(token);
        let SqlStatement::Delete(delete) = self.at(parsed)? else {
            return Err(unsupported("this form of DELETE"));
        };
        refuse_delete_clauses(&delete)?;
        let (FromTable::WithFromKeyword(mut from) | FromTable::WithoutKeyword(mut from)) = delete.from;
        let (Some(only), true) = (from.pop(), from.is_empty()) else {
            return Err(unsupported("DELETE FROM several tables"));
        };
        let (table, alias) = target(only, "DELETE")?;
        let mut selection = delete.selection;
        admit(&mut selection, self.limits)?;
        Ok(Statement::Delete(Delete { table, alias, selection }))
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
                &format!("a second statement begins at '{}': send one statement at a time", token.token),
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
            _ => syntax_error(found.span.start, &format!("expected {what}, found '{}'", found.token)),
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

fn parse_place(place: &str) -> Option<Location> {
    let (line, column) = place.split_once(", Column: ")?;
    let location = Location { line: line.parse().ok()?, column: column.parse().ok()? };
    (location.line > 0).then_some(location)
}

/// SQL that SeracDB is to have.
pub(crate) fn comes_later(what: &str) -> EngineError {
    EngineError::new(crate::error::ErrorKind::Unimplemented, format!("{what}: not supported yet"))
}

fn refuse(refused: bool, error: impl FnOnce() -> EngineError) -> Result<()> {
    if refused { Err(error()) } else { Ok(()) }
}

fn refuse_insert_clauses(insert: &SqlInsert) -> Result<()> {
    refuse(insert.on.is_some(), || comes_later("INSERT … ON CONFLICT"))?;
    refuse(insert.returning.is_some(), || comes_later("INSERT … RETURNING"))?;
    refuse(insert.table_alias.is_some(), || unsupported("an alias in INSERT"))?;
    refuse(insert.overwrite || insert.replace_into || insert.or.is_some(), || unsupported("INSERT OVERWRITE or REPLACE"))?;
    let others = insert.ignore
        || !insert.assignments.is_empty()
        || insert.partitioned.is_some()
        || !insert.after_columns.is_empty()
        || insert.has_table_keyword
        || insert.output.is_some()
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.multi_table_insert_type.is_some()
        || !insert.multi_table_into_clauses.is_empty()
        || !insert.multi_table_when_clauses.is_empty()
        || insert.multi_table_else_clause.is_some();
    refuse(others, || unsupported("this form of INSERT"))
}

fn refuse_update_clauses(update: &SqlUpdate) -> Result<()> {
    refuse(update.returning.is_some(), || comes_later("UPDATE … RETURNING"))?;
    refuse(update.from.is_some(), || comes_later("UPDATE … FROM (write a subquery in SET and WHERE)"))?;
    refuse(update.limit.is_some() || !update.order_by.is_empty(), || unsupported("UPDATE … ORDER BY or LIMIT"))?;
    refuse(update.or.is_some() || update.output.is_some(), || unsupported("this form of UPDATE"))
}

fn refuse_delete_clauses(delete: &SqlDelete) -> Result<()> {
    refuse(delete.returning.is_some(), || comes_later("DELETE … RETURNING"))?;
    refuse(delete.using.is_some(), || comes_later("DELETE … USING (write a subquery in WHERE)"))?;
    refuse(delete.limit.is_some() || !delete.order_by.is_empty(), || unsupported("DELETE … ORDER BY or LIMIT"))?;
    refuse(!delete.tables.is_empty(), || unsupported("DELETE from several tables"))?;
    refuse(delete.output.is_some(), || unsupported("this form of DELETE"))
}

/// The one plain table an UPDATE or DELETE is about.
fn target(table: TableWithJoins, verb: &str) -> Result<(TableName, Option<Ident>)> {
    refuse(!table.joins.is_empty(), || comes_later(&format!("{verb} with a JOIN (write a subquery in WHERE)")))?;
    let mut relation = table.relation;
    // `UPDATE t SET …` is followed by SET, never by one of these; a table function or sample is.
    let TableFactor::Table { name, alias, args: None, .. } = &mut relation else {
        return Err(unsupported(&format!("{verb} of anything but a table")));
    };
    let name = TableName::parse(name)?;
    let alias = alias.take();
    admit(&mut relation, &Limits::default())?;
    match alias {
        None => Ok((name, None)),
        Some(TableAlias { name: alias, columns, .. }) if columns.is_empty() => Ok((name, Some(alias))),
        Some(_) => Err(unsupported(&format!("{verb} with an alias for columns"))),
    }
}

fn assign_tuple(
    columns: &[ObjectName],
    value: Expr,
    table: &TableName,
    alias: &Option<Ident>,
    assignments: &mut Vec<(String, Expr)>,
) -> Result<()> {
    let values = match value {
        Expr::Tuple(values) => values,
        // (b) = (1) reads as one parenthesized expression.
        Expr::Nested(value) if columns.len() == 1 => vec![*value],
        Expr::Subquery(_) => return Err(comes_later("SET (a, b) = (SELECT …) (write one subquery per column)")),
        _ => return Err(EngineError::invalid("SET (a, b) = … needs as many values in parentheses")),
    };
    if values.len() != columns.len() {
        return Err(EngineError::invalid(format!(
            "SET assigns {} columns but has {} values",
            columns.len(),
            values.len()
        )));
    }
    for (column, value) in columns.iter().zip(values) {
        assignments.push((names::column_name(column, table, alias.as_ref())?, value));
    }
    Ok(())
}

/// Columns that are written: each once, and no system column.
fn check_targets<'a>(columns: impl IntoIterator<Item = &'a String>, table: &TableName) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for column in columns {
        refuse_system_column(column)?;
        if !seen.insert(column) {
            return Err(EngineError::invalid(format!("column '{column}' of {table} is given twice")));
        }
    }
    Ok(())
}

/// Columns have no defaults yet, so DEFAULT is NULL.
fn default_to_null(value: &mut Expr) {
    if matches!(value, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default")) {
        *value = Expr::value(Value::Null);
    }
}
