//! DESCRIBE, SHOW, SET, RESET, USE and the options of EXPLAIN.

use datafusion::sql::sqlparser::ast::{Expr, UtilityOption};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::ddl::option_text;
use super::names::{TableName, fold, namespace_name};
use super::parse::Reader;
use super::statement::Statement;
use super::transactions;
use super::validate::unsupported;
use crate::error::{EngineError, Result};

/// DESCRIBE table.
pub(crate) fn describe(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    reader.word("TABLE");
    Ok(Statement::Describe(TableName::parse(&reader.object_name()?)?))
}

/// SHOW TABLES, NAMESPACES, COLUMNS FROM table, CREATE TABLE table, MANIFEST, ALL or a setting.
pub(crate) fn show(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    if reader.word("TABLES") {
        let namespace = match reader.word("IN") || reader.word("FROM") {
            true => Some(namespace_name(&reader.object_name()?)?),
            false => None,
        };
        let like = match reader.word("LIKE") {
            true => Some(text(reader, "a pattern in quotes")?),
            false => None,
        };
        return Ok(Statement::ShowTables { namespace, like });
    }
    if reader.word("NAMESPACES") || reader.word("SCHEMAS") {
        return Ok(Statement::ShowNamespaces);
    }
    if reader.word("COLUMNS") {
        if !reader.word("FROM") && !reader.word("IN") {
            let token = reader.parser.peek_token();
            return Err(reader.expected("FROM after SHOW COLUMNS", &token));
        }
        return Ok(Statement::Describe(TableName::parse(&reader.object_name()?)?));
    }
    if reader.words(&["CREATE", "TABLE"]) || reader.words(&["CREATE", "VIEW"]) {
        return Ok(Statement::ShowCreate(TableName::parse(&reader.object_name()?)?));
    }
    if reader.word("MANIFEST") {
        return show_manifest(reader);
    }
    if reader.word("ALL") {
        return Ok(Statement::ShowSetting(None));
    }
    Ok(Statement::ShowSetting(Some(setting(reader)?)))
}

/// SHOW MANIFEST CACHE, SHOW MANIFEST FOR table.
fn show_manifest(reader: &mut Reader<'_>) -> Result<Statement> {
    if reader.word("CACHE") {
        return Ok(Statement::ShowManifestCache);
    }
    if reader.word("FOR") {
        return Ok(Statement::ShowManifest(TableName::parse(&reader.object_name()?)?));
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("CACHE or FOR after SHOW MANIFEST", &token))
}

/// SET [SESSION] name = value, SET name TO value, SET TIME ZONE value, SET SCHEMA 'name'.
pub(crate) fn set(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    if reader.word("LOCAL") {
        return Err(unsupported("SET LOCAL"));
    }
    if reader.word("TRANSACTION") {
        return transactions::set_transaction(reader);
    }
    reader.word("SESSION");
    let name = setting(reader)?;
    let assigned = reader.parser.consume_token(&Token::Eq) || reader.word("TO");
    if !assigned && !matches!(name.as_str(), "timezone" | "schema") {
        let token = reader.parser.peek_token();
        return Err(reader.expected(&format!("= or TO after SET {name}"), &token));
    }
    if reader.word("DEFAULT") {
        return Ok(Statement::Set { name, value: None });
    }
    let parsed = reader.parser.parse_expr();
    let value = reader.at(parsed)?;
    if reader.parser.peek_token_ref().token == Token::Comma {
        return Err(unsupported(&format!("SET {name} to several values")));
    }
    let text = option_text(&value)
        .ok_or_else(|| EngineError::invalid(format!("SET {name}: write a number, a word or a text in quotes")))?;
    if matches!(name.as_str(), "search_path" | "schema" | "namespace") {
        return Ok(Statement::UseNamespace(text));
    }
    Ok(Statement::Set { name, value: Some(text) })
}

/// RESET name.
pub(crate) fn reset(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    Ok(Statement::Set { name: setting(reader)?, value: None })
}

/// USE [NAMESPACE | SCHEMA] name.
pub(crate) fn use_namespace(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    // USE schema; is a namespace of that name.
    let is_keyword = matches!(reader.parser.peek_nth_token_ref(1).token, Token::Word(_));
    if is_keyword && !reader.word("NAMESPACE") {
        reader.word("SCHEMA");
    }
    Ok(Statement::UseNamespace(namespace_name(&reader.object_name()?)?))
}

/// A setting's name: `search_path`, `datafusion.execution.batch_size`, `TIME ZONE`.
fn setting(reader: &mut Reader<'_>) -> Result<String> {
    if reader.words(&["TIME", "ZONE"]) {
        return Ok("timezone".into());
    }
    let name = reader.object_name()?;
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect();
    Ok(parts.join(".").to_lowercase())
}

fn text(reader: &mut Reader<'_>, what: &str) -> Result<String> {
    let token = reader.parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) => Ok(text),
        _ => Err(reader.expected(what, &token)),
    }
}

/// What stands between EXPLAIN and its statement.
#[derive(Debug, Default)]
pub(crate) struct ExplainOptions {
    pub(crate) analyze: bool,
    pub(crate) verbose: bool,
    pub(crate) format: Option<String>,
}

/// EXPLAIN [ANALYZE] [VERBOSE] [FORMAT name] or EXPLAIN (ANALYZE, VERBOSE, FORMAT name).
pub(crate) fn explain_options(reader: &mut Reader<'_>) -> Result<ExplainOptions> {
    reader.parser.advance_token();
    let mut options = ExplainOptions::default();
    if reader.parser.peek_token_ref().token == Token::LParen && !is_query_ahead(reader) {
        let parsed = reader.parser.parse_utility_options();
        for option in reader.at(parsed)? {
            apply(&mut options, &option)?;
        }
        return Ok(options);
    }
    options.analyze = reader.word("ANALYZE");
    options.verbose = reader.word("VERBOSE");
    if reader.word("FORMAT") {
        let _ = reader.parser.consume_token(&Token::Eq);
        let token = reader.parser.next_token();
        options.format = Some(match &token.token {
            Token::Word(word) => format_name(&word.value)?,
            Token::SingleQuotedString(text) => format_name(text)?,
            _ => return Err(reader.expected("a format after FORMAT", &token)),
        });
    }
    Ok(options)
}

/// `EXPLAIN (SELECT …)` has a query in its parentheses.
fn is_query_ahead(reader: &Reader<'_>) -> bool {
    match &reader.parser.peek_nth_token_ref(1).token {
        Token::LParen => true,
        Token::Word(word) => ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|k| word.value.eq_ignore_ascii_case(k)),
        _ => false,
    }
}

fn apply(options: &mut ExplainOptions, option: &UtilityOption) -> Result<()> {
    let name = option.name.value.to_lowercase();
    let text = option.arg.as_ref().map(|arg: &Expr| option_text(arg).unwrap_or_else(|| arg.to_string()).to_lowercase());
    let on = match text.as_deref() {
        None | Some("true" | "on" | "1") => Some(true),
        Some("false" | "off" | "0") => Some(false),
        Some(_) => None,
    };
    match (name.as_str(), on, text) {
        ("analyze", Some(on), _) => options.analyze = on,
        ("verbose", Some(on), _) => options.verbose = on,
        ("format", _, Some(text)) => options.format = Some(format_name(&text)?),
        _ => {
            return Err(EngineError::invalid(format!(
                "EXPLAIN ({option}): the options are ANALYZE, VERBOSE and FORMAT name"
            )));
        }
    }
    Ok(())
}

/// DataFusion's name of a format; PostgreSQL's TEXT and JSON are the nearest of them.
fn format_name(name: &str) -> Result<String> {
    match name.to_lowercase().as_str() {
        "indent" | "text" | "traditional" => Ok("indent".into()),
        "tree" => Ok("tree".into()),
        "pgjson" | "json" => Ok("pgjson".into()),
        "graphviz" => Ok("graphviz".into()),
        other => {
            Err(EngineError::invalid(format!("unknown EXPLAIN format '{other}': use indent, tree, pgjson or graphviz")))
        }
    }
}
