//! CREATE, DROP and STORAGE. Read word by word, not by the parser's own functions: those accept and half ignore the
//! clauses of a dozen databases.

use std::collections::{BTreeMap, HashSet};

use datafusion::sql::sqlparser::ast::{
    ColumnDef as SqlColumn, ColumnOption, Expr, GeneratedExpressionMode, Query, SqlOption, UnaryOperator, Value,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::IsOptional;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::alter::alter_table;
use super::api_tokens::{create_token, drop_token};
use super::constraints::{self, OfTable, refuse_key_column};
use super::like::like;
use super::limits::Limits;
use super::names::{TableName, fold, namespace_name};
use super::params::has_placeholder;
use super::parse::{Reader, comes_later};
use super::statement::{CheckDef, ColumnDef, CreateIndex, CreateTable, CreateTableAs, Statement, TableKind, UniqueDef};
use super::types::{column_type, no_sequences, refuse_system_column};
use super::users::{alter_user, create_user, drop_user};
use super::validate::unsupported;
use super::views::create_view;
use crate::error::{EngineError, Result};

/// CREATE …
pub(crate) fn create(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    if reader.word("NAMESPACE") || reader.word("SCHEMA") {
        let if_not_exists = reader.words(&["IF", "NOT", "EXISTS"]);
        let name = namespace_name(&reader.object_name()?)?;
        return Ok(Statement::CreateNamespace { name, if_not_exists });
    }
    if reader.words(&["OR", "REPLACE"]) {
        return create_or_replace(reader);
    }
    if let Some(of) = table_of(reader) {
        return create_table(reader, of, false);
    }
    if reader.word("USER") {
        return create_user(reader);
    }
    if reader.word("TOKEN") {
        return create_token(reader);
    }
    if reader.word("INDEX") {
        return create_index(reader, false);
    }
    if reader.words(&["UNIQUE", "INDEX"]) {
        return create_index(reader, true);
    }
    if reader.word("VIEW") {
        return create_view(reader, false);
    }
    if reader.words(&["TEMPORARY", "VIEW"]) || reader.words(&["TEMP", "VIEW"]) {
        return Err(comes_later("CREATE TEMPORARY VIEW (write the query as WITH, or create a view that stays)"));
    }
    let token = reader.parser.peek_token();
    let Token::Word(word) = &token.token else {
        return Err(reader.expected("TABLE, VIEW, NAMESPACE, INDEX, USER or TOKEN after CREATE", &token));
    };
    Err(match word.keyword {
        Keyword::MATERIALIZED => comes_later("CREATE MATERIALIZED VIEW"),
        Keyword::NoKeyword => reader.expected("TABLE, VIEW, NAMESPACE, INDEX, USER or TOKEN after CREATE", &token),
        _ => unsupported(&format!("CREATE {}", word.value.to_uppercase())),
    })
}

/// What may take the place of another of its name.
fn create_or_replace(reader: &mut Reader<'_>) -> Result<Statement> {
    if reader.word("VIEW") {
        return create_view(reader, true);
    }
    if let Some(of) = table_of(reader) {
        return create_table(reader, of, true);
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("TABLE or VIEW after CREATE OR REPLACE", &token))
}

/// Goes past [SHARED | USER | STREAM | TEMPORARY | TEMP] TABLE; gives the kind, and whether it is temporary.
fn table_of(reader: &mut Reader<'_>) -> Option<(TableKind, bool)> {
    let kinds = [
        ("SHARED", TableKind::Shared, false),
        ("USER", TableKind::User, false),
        ("STREAM", TableKind::Stream, false),
        ("TEMPORARY", TableKind::Shared, true),
        ("TEMP", TableKind::Shared, true),
    ];
    if reader.word("TABLE") {
        return Some((TableKind::Shared, false));
    }
    kinds.into_iter().find(|(word, ..)| reader.words(&[word, "TABLE"])).map(|(_, kind, temporary)| (kind, temporary))
}

/// DROP …
pub(crate) fn drop(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    if reader.word("NAMESPACE") || reader.word("SCHEMA") {
        let if_exists = reader.words(&["IF", "EXISTS"]);
        let name = namespace_name(&reader.object_name()?)?;
        return Ok(Statement::DropNamespace { name, if_exists, cascade: cascade(reader) });
    }
    if ["SHARED", "USER", "STREAM"].iter().any(|kind| reader.words(&[kind, "TABLE"])) || reader.word("TABLE") {
        let if_exists = reader.words(&["IF", "EXISTS"]);
        return Ok(Statement::DropTable { names: table_names(reader)?, if_exists, cascade: cascade(reader) });
    }
    if reader.word("VIEW") {
        let if_exists = reader.words(&["IF", "EXISTS"]);
        return Ok(Statement::DropView { names: table_names(reader)?, if_exists, cascade: cascade(reader) });
    }
    if reader.word("TOKEN") {
        return drop_token(reader);
    }
    if reader.word("INDEX") {
        let if_exists = reader.words(&["IF", "EXISTS"]);
        let name = TableName::parse(&reader.object_name()?)?;
        // Nothing depends on an index, so both mean the same.
        cascade(reader);
        return Ok(Statement::DropIndex { name, if_exists });
    }
    if reader.word("USER") {
        return drop_user(reader);
    }
    let token = reader.parser.peek_token();
    Err(match &token.token {
        Token::Word(word) if word.keyword != Keyword::NoKeyword => {
            unsupported(&format!("DROP {}", word.value.to_uppercase()))
        }
        _ => reader.expected("TABLE, VIEW, INDEX, NAMESPACE or USER after DROP", &token),
    })
}

/// name, …
fn table_names(reader: &mut Reader<'_>) -> Result<Vec<TableName>> {
    let mut names = vec![TableName::parse(&reader.object_name()?)?];
    while reader.parser.consume_token(&Token::Comma) {
        names.push(TableName::parse(&reader.object_name()?)?);
    }
    Ok(names)
}

/// ALTER …
pub(crate) fn alter(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    if reader.word("USER") {
        return alter_user(reader);
    }
    if ["SHARED", "USER", "STREAM"].iter().any(|kind| reader.words(&[kind, "TABLE"])) || reader.word("TABLE") {
        return alter_table(reader);
    }
    Err(comes_later("ALTER of anything but a USER or TABLE"))
}

/// [CASCADE | RESTRICT].
fn cascade(reader: &mut Reader<'_>) -> bool {
    let cascade = reader.word("CASCADE");
    if !cascade {
        reader.word("RESTRICT");
    }
    cascade
}

/// STORAGE FLUSH TABLE name, STORAGE FLUSH ALL, STORAGE COMPACT TABLE name, STORAGE CHECK TABLE name.
pub(crate) fn storage(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.parser.advance_token();
    if reader.words(&["FLUSH", "TABLE"]) {
        return Ok(Statement::FlushTable(TableName::parse(&reader.object_name()?)?));
    }
    if reader.words(&["FLUSH", "ALL"]) {
        return Ok(Statement::FlushAll);
    }
    if reader.words(&["COMPACT", "TABLE"]) {
        return Ok(Statement::CompactTable(TableName::parse(&reader.object_name()?)?));
    }
    if reader.words(&["CHECK", "TABLE"]) {
        return Ok(Statement::CheckTable(TableName::parse(&reader.object_name()?)?));
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("FLUSH TABLE, FLUSH ALL, COMPACT TABLE or CHECK TABLE after STORAGE", &token))
}

/// [IF NOT EXISTS] [name] ON table (column, …), and of a unique one [NULLS [NOT] DISTINCT].
fn create_index(reader: &mut Reader<'_>, unique: bool) -> Result<Statement> {
    let if_not_exists = reader.words(&["IF", "NOT", "EXISTS"]);
    let name = if reader.word("ON") {
        None
    } else {
        let parsed = reader.parser.parse_identifier();
        let name = fold(&reader.at(parsed)?);
        if !reader.word("ON") {
            let token = reader.parser.peek_token();
            return Err(reader.expected("ON and the table", &token));
        }
        Some(name)
    };
    if name.is_none() && if_not_exists {
        return Err(EngineError::invalid("CREATE INDEX IF NOT EXISTS needs the index's name"));
    }
    let table = TableName::parse(&reader.object_name()?)?;
    if reader.word("USING") {
        return Err(unsupported("CREATE INDEX … USING (there is one kind of index)"));
    }
    let parsed = reader.parser.parse_parenthesized_column_list(IsOptional::Mandatory, false);
    let columns: Vec<String> = reader.at(parsed)?.iter().map(fold).collect();
    let mut seen = HashSet::new();
    if let Some(twice) = columns.iter().find(|column| !seen.insert(column.as_str())) {
        return Err(EngineError::invalid(format!("CREATE INDEX names column '{twice}' twice")));
    }
    let unique = unique.then(|| {
        let nulls_equal = reader.words(&["NULLS", "NOT", "DISTINCT"]);
        // What is so in any case.
        reader.words(&["NULLS", "DISTINCT"]);
        nulls_equal
    });
    if unique.is_some() {
        columns.iter().try_for_each(|column| refuse_key_column("UNIQUE", column))?;
    }
    Ok(Statement::CreateIndex(CreateIndex { name, table, columns, if_not_exists, unique }))
}

/// [IF NOT EXISTS] name (column type [NOT NULL | NULL] [PRIMARY KEY | UNIQUE], …, [PRIMARY KEY | UNIQUE (…)])
/// [WITH (key = value, …)].
fn create_table(reader: &mut Reader<'_>, (kind, temporary): (TableKind, bool), or_replace: bool) -> Result<Statement> {
    let if_not_exists = reader.words(&["IF", "NOT", "EXISTS"]);
    if or_replace && if_not_exists {
        return Err(EngineError::invalid("CREATE TABLE is either OR REPLACE or IF NOT EXISTS"));
    }
    let name = TableName::parse(&reader.object_name()?)?;
    if let Some(namespace) = name.namespace.as_ref().filter(|_| temporary) {
        return Err(EngineError::invalid(format!(
            "a temporary table is in no namespace: write '{}' without '{namespace}.'",
            name.table
        )));
    }
    let of = |columns, options, query| {
        Statement::CreateTableAs(CreateTableAs {
            name: name.clone(),
            kind,
            temporary,
            if_not_exists,
            or_replace,
            columns,
            options,
            query,
        })
    };
    if is_as_query(reader) {
        let columns = match reader.parser.peek_token_ref().token {
            Token::LParen => column_names(reader)?,
            _ => vec![],
        };
        let options = with_options(reader)?;
        return Ok(of(columns, options, as_query(reader)?));
    }
    if let Some(like) = like(reader)? {
        let options = with_options(reader)?;
        return Ok(Statement::CreateTable(CreateTable {
            name,
            kind,
            temporary,
            if_not_exists,
            or_replace,
            like: Some(like),
            columns: vec![],
            unique: vec![],
            checks: vec![],
            options,
        }));
    }
    let token = reader.parser.peek_token();
    if token.token != Token::LParen {
        return Err(reader.expected("the columns in parentheses", &token));
    }
    let parsed = reader.parser.parse_columns();
    let (declared, constraints) = reader.at(parsed)?;
    let (mut columns, mut nullable) = (Vec::with_capacity(declared.len()), HashSet::new());
    let (mut unique, mut checks) = (Vec::new(), Vec::new());
    for declared in declared {
        let Declared { column, says_null } = column(declared, &mut unique, &mut checks, reader.limits)?;
        if says_null {
            nullable.insert(column.name.clone());
        }
        columns.push(column);
    }
    let mut seen = HashSet::new();
    for column in &columns {
        if !seen.insert(column.name.to_lowercase()) {
            return Err(EngineError::invalid(format!("column '{}' is declared twice", column.name)));
        }
    }
    if columns.is_empty() {
        return Err(EngineError::invalid("a table needs at least one column"));
    }
    for constraint in &constraints {
        match constraints::of_table(constraint, "CREATE TABLE", reader.limits)? {
            OfTable::Unique(key) => unique.push(key),
            OfTable::Check(check) => checks.push(check),
        }
    }
    constraints::check(&unique, &mut columns, &nullable)?;
    if kind == TableKind::Stream
        && let Some(key) = unique.first()
    {
        return Err(unsupported(&format!("{} in a stream table, whose rows go by themselves,", key.what())));
    }
    let options = with_options(reader)?;
    if reader.word("AS") {
        return Err(unsupported(
            "CREATE TABLE … AS with types of columns (give their names only, and write CAST in the query)",
        ));
    }
    Ok(Statement::CreateTable(CreateTable {
        name,
        kind,
        temporary,
        if_not_exists,
        or_replace,
        like: None,
        columns,
        unique,
        checks,
        options,
    }))
}

fn with_options(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>> {
    let parsed = reader.parser.parse_options(Keyword::WITH);
    options(reader.at(parsed)?)
}

/// Whether `[(name, …)] [WITH (…)] AS` is next.
fn is_as_query(reader: &mut Reader<'_>) -> bool {
    let is_word = |token: &Token, word: &str| matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word));
    match &reader.parser.peek_token_ref().token {
        token if is_word(token, "AS") || is_word(token, "WITH") => true,
        // A name without a type.
        Token::LParen => matches!(reader.parser.peek_nth_token_ref(2).token, Token::Comma | Token::RParen),
        _ => false,
    }
}

fn column_names(reader: &mut Reader<'_>) -> Result<Vec<String>> {
    let parsed = reader.parser.parse_parenthesized_column_list(IsOptional::Mandatory, false);
    let names: Vec<String> = reader.at(parsed)?.iter().map(fold).collect();
    names.iter().try_for_each(|name| refuse_system_column(name))?;
    Ok(names)
}

fn as_query(reader: &mut Reader<'_>) -> Result<Box<Query>> {
    if !reader.word("AS") {
        let token = reader.parser.peek_token();
        return Err(reader.expected("AS and a query, or columns with their types", &token));
    }
    let (query, _) = reader.query_with_text()?;
    if has_placeholder(&*query) {
        return Err(unsupported("a parameter in CREATE TABLE … AS (CREATE the table, then INSERT INTO … SELECT)"));
    }
    Ok(query)
}

/// A column, and whether it was said that it may be NULL.
pub(super) struct Declared {
    pub(super) column: ColumnDef,
    pub(super) says_null: bool,
}

pub(super) fn column(
    column: SqlColumn,
    unique: &mut Vec<UniqueDef>,
    checks: &mut Vec<CheckDef>,
    limits: &Limits,
) -> Result<Declared> {
    let name = fold(&column.name);
    refuse_system_column(&name)?;
    if name.is_empty() {
        return Err(EngineError::invalid("a column needs a name"));
    }
    let (mut nullable, mut default, mut generated) = (None, None, None);
    for option in &column.options {
        let constraint_name = option.name.as_ref().map(fold);
        let says = match &option.option {
            ColumnOption::Null => true,
            ColumnOption::NotNull => false,
            option if let Some(mut key) = constraints::of_column(&name, option)? => {
                key.name = key.name.or(constraint_name);
                unique.push(key);
                continue;
            }
            ColumnOption::Check(check) => {
                checks.push(constraints::check_of(check, constraint_name, limits)?);
                continue;
            }
            ColumnOption::Default(expr) => {
                if default.replace(constraints::kept(expr, limits)?).is_some() {
                    return Err(EngineError::invalid(format!("column '{name}' has two defaults")));
                }
                continue;
            }
            ColumnOption::Generated {
                generation_expr: Some(expr),
                sequence_options: None,
                generation_expr_mode,
                ..
            } => {
                if *generation_expr_mode == Some(GeneratedExpressionMode::Virtual) {
                    return Err(unsupported(&format!("column '{name}': GENERATED … VIRTUAL (write STORED)")));
                }
                generated = Some(constraints::kept(expr, limits)?);
                continue;
            }
            other => return Err(column_option_refused(&name, other)),
        };
        if nullable.is_some_and(|known| known != says) {
            return Err(EngineError::invalid(format!("column '{name}' is both NULL and NOT NULL")));
        }
        nullable = Some(says);
    }
    let data_type = column_type(&column.data_type)
        .map_err(|e| EngineError { message: format!("column '{name}': {}", e.message), ..e })?;
    if default.is_some() && generated.is_some() {
        return Err(EngineError::invalid(format!("column '{name}' has a DEFAULT and is GENERATED")));
    }
    let column = ColumnDef { name, data_type, nullable: nullable.unwrap_or(true), default, generated };
    Ok(Declared { column, says_null: nullable == Some(true) })
}

fn column_option_refused(name: &str, option: &ColumnOption) -> EngineError {
    let what = match option {
        ColumnOption::ForeignKey(_) => "REFERENCES",
        ColumnOption::Generated { generation_expr: None, .. } => {
            return no_sequences(&format!("column '{name}': GENERATED … AS IDENTITY"));
        }
        ColumnOption::DialectSpecific(words) if numbers_rows(words) => {
            return no_sequences(&format!("column '{name}': {option}"));
        }
        ColumnOption::Generated { .. } => "GENERATED",
        ColumnOption::Collation(_) => "COLLATE",
        other => return unsupported(&format!("column '{name}': {other}")),
    };
    comes_later(&format!("column '{name}': {what}"))
}

/// Whether it is AUTO_INCREMENT, AUTOINCREMENT or IDENTITY.
fn numbers_rows(words: &[Token]) -> bool {
    let numbering = [Keyword::AUTO_INCREMENT, Keyword::AUTOINCREMENT, Keyword::IDENTITY];
    words.iter().any(|token| matches!(token, Token::Word(word) if numbering.contains(&word.keyword)))
}

pub(super) fn options(options: Vec<SqlOption>) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for option in options {
        let SqlOption::KeyValue { key, value } = option else {
            return Err(EngineError::invalid(format!("WITH ({option}): write key = value")));
        };
        let key = key.value.to_lowercase();
        let Some(text) = option_text(&value) else {
            return Err(EngineError::invalid(format!(
                "WITH ({key} = {value}): write a number, a word or a text in quotes"
            )));
        };
        if map.insert(key.clone(), text).is_some() {
            return Err(EngineError::invalid(format!("WITH gives '{key}' twice")));
        }
    }
    Ok(map)
}

/// The text of a literal or word.
pub(crate) fn option_text(value: &Expr) -> Option<String> {
    match value {
        Expr::Identifier(word) => Some(fold(word)),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(digits.clone()),
            Value::Boolean(yes) => Some(yes.to_string()),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) | Value::DoubleQuotedString(text) => {
                Some(text.clone())
            }
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Some(format!("-{}", option_text(expr)?)),
        _ => None,
    }
}

impl Reader<'_> {
    /// Goes past this word if it is next; not past a quoted one.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    /// Goes past these words if all of them are next.
    pub(crate) fn words(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(i, expected)| match self.parser.peek_nth_token_ref(i).token {
            Token::Word(ref word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected),
            _ => false,
        });
        if all {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        all
    }
}
