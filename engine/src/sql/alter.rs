//! ALTER TABLE.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::TableConstraint;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::IsOptional;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::constraints::{OfTable, check_key_columns, kept, null_and_primary, of_table};
use super::ddl::{Declared, column, options};
use super::names::{TableName, fold};
use super::parse::{Reader, comes_later};
use super::statement::{AlterTable, ColumnChange, ConstraintChange, Statement};
use super::types::{column_type, refuse_system_column};
use super::validate::unsupported;
use crate::error::{EngineError, Result};

/// [IF EXISTS] name action.
pub(crate) fn alter_table(reader: &mut Reader<'_>) -> Result<Statement> {
    let if_exists = reader.words(&["IF", "EXISTS"]);
    let name = TableName::parse(&reader.object_name()?)?;
    let change = match first(reader)? {
        AlterTable::Changes { mut columns, mut constraints } => {
            while reader.parser.consume_token(&Token::Comma) {
                let Some(AlterTable::Changes { columns: more, constraints: too }) = action(reader)? else {
                    return Err(alone());
                };
                columns.extend(more);
                constraints.extend(too);
            }
            // Columns are changed first, and one that a constraint needs is not dropped.
            let drops = constraints.iter().any(|change| matches!(change, ConstraintChange::Drop { .. }));
            if drops && !columns.is_empty() {
                return Err(alone());
            }
            AlterTable::Changes { columns, constraints }
        }
        _ if reader.parser.peek_token_ref().token == Token::Comma => return Err(alone()),
        change => change,
    };
    Ok(Statement::AlterTable { name, if_exists, change })
}

fn alone() -> EngineError {
    EngineError::invalid(
        "one ALTER TABLE can ADD, DROP and ALTER … TYPE several columns and ADD several constraints, or ADD and DROP several \
         constraints: write what else is to change as another one",
    )
}

fn of_column(change: ColumnChange) -> AlterTable {
    AlterTable::Changes { columns: vec![change], constraints: vec![] }
}

fn of_constraint(change: ConstraintChange) -> AlterTable {
    AlterTable::Changes { columns: vec![], constraints: vec![change] }
}

fn first(reader: &mut Reader<'_>) -> Result<AlterTable> {
    let found = action(reader)?;
    let token = reader.parser.peek_token();
    found.ok_or_else(|| {
        reader.expected("ADD, DROP, RENAME, ALTER COLUMN, SET (…) or RESET (…) after ALTER TABLE", &token)
    })
}

/// `None` for something else.
fn action(reader: &mut Reader<'_>) -> Result<Option<AlterTable>> {
    if reader.word("ADD") {
        return add(reader).map(Some);
    }
    if reader.words(&["DROP", "CONSTRAINT"]) {
        return drop_constraint(reader).map(|change| Some(of_constraint(change)));
    }
    if reader.word("DROP") {
        return drop(reader).map(|change| Some(of_column(change)));
    }
    if reader.word("RENAME") {
        return rename(reader).map(Some);
    }
    if reader.word("ALTER") {
        reader.word("COLUMN");
        let column = own_column(reader)?;
        return alter_column(reader, column).map(Some);
    }
    if reader.word("RESET") {
        let parsed = reader.parser.parse_parenthesized_column_list(IsOptional::Mandatory, false);
        let names = reader.at(parsed)?;
        let reset = names.iter().map(|name| (name.value.to_lowercase(), None)).collect();
        return Ok(Some(AlterTable::Options(reset)));
    }
    let parsed = reader.parser.parse_options(Keyword::SET);
    let set: BTreeMap<String, String> = options(reader.at(parsed)?)?;
    let set: BTreeMap<_, _> = set.into_iter().map(|(name, value)| (name, Some(value))).collect();
    Ok((!set.is_empty()).then_some(AlterTable::Options(set)))
}

fn identifier(reader: &mut Reader<'_>) -> Result<String> {
    let parsed = reader.parser.parse_identifier();
    Ok(fold(&reader.at(parsed)?))
}

/// The name of a column that is not SeracDB's own.
fn own_column(reader: &mut Reader<'_>) -> Result<String> {
    let column = identifier(reader)?;
    refuse_system_column(&column)?;
    Ok(column)
}

/// A constraint, or a column.
fn add(reader: &mut Reader<'_>) -> Result<AlterTable> {
    if !is_constraint(reader) {
        return add_column(reader).map(of_column);
    }
    let parsed = reader.parser.parse_optional_table_constraint();
    let change = match reader.at(parsed)? {
        None => {
            let token = reader.parser.peek_token();
            return Err(reader.expected("CHECK, UNIQUE or PRIMARY KEY", &token));
        }
        Some(TableConstraint::ForeignKey(_)) => return Err(comes_later("ALTER TABLE … ADD FOREIGN KEY")),
        Some(constraint) => match of_table(&constraint, "ALTER TABLE", reader.limits)? {
            OfTable::Check(check) => ConstraintChange::Check(check),
            OfTable::Unique(key) => {
                check_key_columns(&key)?;
                ConstraintChange::Unique(key)
            }
        },
    };
    Ok(of_constraint(change))
}

/// Whether a constraint is next. A column may be called like the beginning of one, and has a type then.
fn is_constraint(reader: &Reader<'_>) -> bool {
    let is_word = |place, expected| is_word(reader, place, expected);
    let before_columns = reader.parser.peek_nth_token_ref(1).token == Token::LParen;
    is_word(0, "CONSTRAINT")
        || is_word(1, "KEY") && (is_word(0, "PRIMARY") || is_word(0, "FOREIGN"))
        || is_word(0, "UNIQUE") && (before_columns || is_word(1, "NULLS"))
        || is_word(0, "CHECK") && before_columns
}

/// Whether so many words on there is this one, without quotes.
fn is_word(reader: &Reader<'_>, place: usize, expected: &str) -> bool {
    match &reader.parser.peek_nth_token_ref(place).token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected),
        _ => false,
    }
}

/// [COLUMN] [IF NOT EXISTS] name type [NOT NULL | NULL] [DEFAULT expr] [[CONSTRAINT name] UNIQUE | PRIMARY KEY | CHECK (…)].
fn add_column(reader: &mut Reader<'_>) -> Result<ColumnChange> {
    reader.word("COLUMN");
    let if_not_exists = reader.words(&["IF", "NOT", "EXISTS"]);
    let parsed = reader.parser.parse_column_def();
    let (mut unique, mut checks) = (vec![], vec![]);
    let Declared { mut column, says_null } = column(reader.at(parsed)?, &mut unique, &mut checks, reader.limits)?;
    if column.generated.is_some() {
        return Err(comes_later("ALTER TABLE … ADD COLUMN … GENERATED"));
    }
    if says_null && unique.iter().any(|key| key.primary) {
        return Err(null_and_primary(&column.name));
    }
    unique.iter().try_for_each(check_key_columns)?;
    let keys = unique.into_iter().map(ConstraintChange::Unique);
    let mut constraints: Vec<_> = keys.chain(checks.into_iter().map(ConstraintChange::Check)).collect();
    // Rows that are there have NULL in it. There may be none.
    if !column.nullable && column.default.is_none() {
        column.nullable = true;
        constraints.push(ConstraintChange::NotNull(column.name.clone()));
    }
    Ok(ColumnChange::Add { column, if_not_exists, constraints })
}

/// [IF EXISTS] name [CASCADE | RESTRICT]. Nothing depends on a constraint, so both mean the same.
fn drop_constraint(reader: &mut Reader<'_>) -> Result<ConstraintChange> {
    let if_exists = reader.words(&["IF", "EXISTS"]);
    let name = identifier(reader)?;
    if !reader.word("CASCADE") {
        reader.word("RESTRICT");
    }
    Ok(ConstraintChange::Drop { name, if_exists })
}

/// [COLUMN] [IF EXISTS] name [CASCADE | RESTRICT].
fn drop(reader: &mut Reader<'_>) -> Result<ColumnChange> {
    reader.word("COLUMN");
    let if_exists = reader.words(&["IF", "EXISTS"]);
    let column = own_column(reader)?;
    if reader.word("CASCADE") {
        return Err(unsupported("DROP COLUMN … CASCADE (drop what reads it first)"));
    }
    reader.word("RESTRICT");
    Ok(ColumnChange::Drop { column, if_exists })
}

/// TO name, CONSTRAINT name TO name, [COLUMN] name TO name.
fn rename(reader: &mut Reader<'_>) -> Result<AlterTable> {
    if reader.word("TO") {
        return Ok(AlterTable::Rename(TableName::parse(&reader.object_name()?)?));
    }
    // A column may be called so.
    if !is_word(reader, 1, "TO") && reader.word("CONSTRAINT") {
        let name = identifier(reader)?;
        require_to(reader)?;
        return Ok(of_constraint(ConstraintChange::Rename { name, to: identifier(reader)? }));
    }
    reader.word("COLUMN");
    let column = own_column(reader)?;
    require_to(reader)?;
    Ok(AlterTable::RenameColumn { column, to: own_column(reader)? })
}

fn require_to(reader: &mut Reader<'_>) -> Result<()> {
    if reader.word("TO") {
        return Ok(());
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("TO and the new name", &token))
}

fn alter_column(reader: &mut Reader<'_>, column: String) -> Result<AlterTable> {
    if reader.words(&["SET", "DEFAULT"]) {
        let parsed = reader.parser.parse_expr();
        let default = Some(kept(&reader.at(parsed)?, reader.limits)?);
        return Ok(AlterTable::Default { column, default });
    }
    if reader.words(&["DROP", "DEFAULT"]) {
        return Ok(AlterTable::Default { column, default: None });
    }
    if reader.words(&["DROP", "NOT", "NULL"]) {
        return Ok(of_column(ColumnChange::DropNotNull(column)));
    }
    if reader.word("TYPE") || reader.words(&["SET", "DATA", "TYPE"]) {
        let parsed = reader.parser.parse_data_type();
        let data_type = column_type(&reader.at(parsed)?)
            .map_err(|error| EngineError { message: format!("column '{column}': {}", error.message), ..error })?;
        if reader.word("USING") {
            return Err(unsupported("ALTER COLUMN … TYPE … USING (values stay what they are: the type becomes wider)"));
        }
        return Ok(of_column(ColumnChange::Type { column, data_type }));
    }
    if reader.words(&["SET", "NOT", "NULL"]) {
        return Ok(of_constraint(ConstraintChange::NotNull(column)));
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("TYPE, SET DEFAULT, DROP DEFAULT, SET NOT NULL or DROP NOT NULL after ALTER COLUMN", &token))
}
