//! ALTER TABLE.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::IsOptional;

use super::constraints::kept;
use super::ddl::options;
use super::names::{TableName, fold};
use super::parse::{Reader, comes_later};
use super::statement::{AlterTable, Statement};
use super::types::refuse_system_column;
use crate::error::Result;

/// [IF EXISTS] name action.
pub(crate) fn alter_table(reader: &mut Reader<'_>) -> Result<Statement> {
    let if_exists = reader.words(&["IF", "EXISTS"]);
    let name = TableName::parse(&reader.object_name()?)?;
    let change = action(reader)?;
    Ok(Statement::AlterTable { name, if_exists, change })
}

fn action(reader: &mut Reader<'_>) -> Result<AlterTable> {
    if reader.word("RESET") {
        let parsed = reader.parser.parse_parenthesized_column_list(IsOptional::Mandatory, false);
        let names = reader.at(parsed)?;
        return Ok(AlterTable::Options(names.iter().map(|name| (name.value.to_lowercase(), None)).collect()));
    }
    if reader.word("ALTER") {
        reader.word("COLUMN");
        let parsed = reader.parser.parse_identifier();
        let column = fold(&reader.at(parsed)?);
        refuse_system_column(&column)?;
        return alter_column(reader, column);
    }
    let parsed = reader.parser.parse_options(Keyword::SET);
    let set: BTreeMap<String, String> = options(reader.at(parsed)?)?;
    if !set.is_empty() {
        return Ok(AlterTable::Options(set.into_iter().map(|(name, value)| (name, Some(value))).collect()));
    }
    for later in ["ADD", "DROP", "RENAME"] {
        if reader.word(later) {
            return Err(comes_later(&format!("ALTER TABLE … {later}")));
        }
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("SET (…), RESET (…) or ALTER COLUMN after ALTER TABLE", &token))
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
    for later in [&["SET", "NOT", "NULL"][..], &["DROP", "NOT", "NULL"], &["TYPE"], &["SET", "DATA", "TYPE"]] {
        if reader.words(later) {
            return Err(comes_later(&format!("ALTER COLUMN … {}", later.join(" "))));
        }
    }
    let token = reader.parser.peek_token();
    Err(reader.expected("SET DEFAULT or DROP DEFAULT after ALTER COLUMN", &token))
}
