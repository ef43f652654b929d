//! CREATE VIEW and COMMENT, word by word.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::ObjectName;
use datafusion::sql::sqlparser::parser::IsOptional;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::names::{TableName, fold, namespace_name};
use super::params::parameter_count;
use super::parse::Reader;
use super::statement::{Commented, CreateView, Statement};
use crate::error::{EngineError, ErrorKind, Result};

/// Bytes that a view's query may have: it is read again wherever the view is.
const VIEW_BYTES_MAX: usize = 64 << 10;
/// Bytes that a comment may have: they go along with every listing.
const COMMENT_BYTES_MAX: usize = 4 << 10;

/// [IF NOT EXISTS] name [(column, …)] AS query.
pub(crate) fn create_view(reader: &mut Reader<'_>, or_replace: bool) -> Result<Statement> {
    let if_not_exists = reader.words(&["IF", "NOT", "EXISTS"]);
    if or_replace && if_not_exists {
        return Err(EngineError::invalid("OR REPLACE and IF NOT EXISTS in one statement: keep one of them"));
    }
    let name = TableName::parse(&reader.object_name()?)?;
    let parsed = reader.parser.parse_parenthesized_column_list(IsOptional::Optional, false);
    let columns: Vec<String> = reader.at(parsed)?.iter().map(fold).collect();
    let mut seen = HashSet::new();
    if let Some(twice) = columns.iter().find(|column| !seen.insert(column.as_str())) {
        return Err(EngineError::invalid(format!("CREATE VIEW names column '{twice}' twice")));
    }
    if !reader.word("AS") {
        let token = reader.parser.peek_token();
        return Err(reader.expected("AS and a query", &token));
    }
    let (query, text) = reader.query_with_text()?;
    if text.len() > VIEW_BYTES_MAX {
        return Err(too_long("the query of a view", text.len(), VIEW_BYTES_MAX));
    }
    let query = Statement::Query(query);
    if parameter_count(&query) > 0 {
        return Err(EngineError::invalid("a view has no parameters: write the values themselves"));
    }
    match query {
        Statement::Query(query) => {
            Ok(Statement::CreateView(CreateView { name, or_replace, if_not_exists, columns, query, text }))
        }
        _ => Err(EngineError::internal("a view of something else than a query")),
    }
}

/// COMMENT ON {TABLE | VIEW | COLUMN | NAMESPACE | SCHEMA} name IS {'text' | NULL}.
pub(crate) fn comment(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    if !reader.word("ON") {
        let token = reader.parser.peek_token();
        return Err(reader.expected("ON after COMMENT", &token));
    }
    let on = if reader.word("TABLE") {
        Commented::Table(TableName::parse(&reader.object_name()?)?)
    } else if reader.word("VIEW") {
        Commented::View(TableName::parse(&reader.object_name()?)?)
    } else if reader.word("COLUMN") {
        column(&reader.object_name()?)?
    } else if reader.word("NAMESPACE") || reader.word("SCHEMA") {
        Commented::Namespace(namespace_name(&reader.object_name()?)?)
    } else {
        let token = reader.parser.peek_token();
        return Err(reader.expected("TABLE, VIEW, COLUMN or NAMESPACE after COMMENT ON", &token));
    };
    if !reader.word("IS") {
        let token = reader.parser.peek_token();
        return Err(reader.expected("IS and a text in quotes, or NULL", &token));
    }
    let text = match reader.word("NULL") {
        true => None,
        false => Some(text(reader)?),
    };
    Ok(Statement::Comment { on, text })
}

/// A comment that is empty is none.
fn text(reader: &mut Reader<'_>) -> Result<String> {
    let token = reader.parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => match text.len() {
            0..=COMMENT_BYTES_MAX => Ok(text),
            bytes => Err(too_long("a comment", bytes, COMMENT_BYTES_MAX)),
        },
        _ => Err(reader.expected("a text in quotes, or NULL", &token)),
    }
}

fn too_long(what: &str, bytes: usize, bytes_max: usize) -> EngineError {
    let message = format!("{what} has at most {bytes_max} bytes, but this one has {bytes}");
    EngineError::new(ErrorKind::ResourceExhausted, message)
}

/// `table.column`, `namespace.table.column`.
fn column(name: &ObjectName) -> Result<Commented> {
    match name.0.split_last() {
        Some((column, table)) if !table.is_empty() && column.as_ident().is_some() => {
            let column = column.as_ident().map(fold).unwrap_or_default();
            Ok(Commented::Column(TableName::parse(&ObjectName(table.to_vec()))?, column))
        }
        _ => Err(EngineError::invalid(format!("'{name}' is no column: write table.column or namespace.table.column"))),
    }
}
