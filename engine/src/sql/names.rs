//! Names of tables and columns: unquoted ones fold to lower case, quoted ones stay as they are.

use std::fmt;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::dialect::SeracDialect;
use crate::error::{EngineError, Result};

/// The one catalog there is. `seracdb.ns.t` and `ns.t` are the same table.
pub(crate) const CATALOG: &str = "seracdb";

/// A table's name as a statement gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableName {
    /// Its namespace; `None` = the session's.
    pub namespace: Option<String>,
    /// The table.
    pub table: String,
}

impl TableName {
    /// The AST's name.
    pub(crate) fn parse(name: &ObjectName) -> Result<Self> {
        let parts = idents(name)?;
        match parts.as_slice() {
            [table] => Ok(Self { namespace: None, table: fold(table) }),
            [namespace, table] => Ok(Self { namespace: Some(fold(namespace)), table: fold(table) }),
            [catalog, namespace, table] => {
                let catalog = fold(catalog);
                if catalog != CATALOG {
                    return Err(EngineError::not_found(format!(
                        "unknown catalog '{catalog}' in '{name}': the only catalog is '{CATALOG}'"
                    )));
                }
                Ok(Self { namespace: Some(fold(namespace)), table: fold(table) })
            }
            _ => Err(EngineError::invalid(format!(
                "'{name}' is not a table name: write table, namespace.table or {CATALOG}.namespace.table"
            ))),
        }
    }

    /// The name that a text is, written as in a statement.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let mut parser = Parser::new(&SeracDialect).try_with_sql(text).ok()?;
        let name = parser.parse_object_name(false).ok()?;
        let is_all = parser.peek_token().token == Token::EOF;
        Self::parse(&name).ok().filter(|_| is_all)
    }

    /// The AST's name for it, quoted, so that it means the same again.
    pub(crate) fn to_object_name(&self) -> ObjectName {
        let mut parts = Vec::with_capacity(2);
        if let Some(namespace) = &self.namespace {
            parts.push(ObjectNamePart::Identifier(quoted(namespace)));
        }
        parts.push(ObjectNamePart::Identifier(quoted(&self.table)));
        ObjectName(parts)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

/// The name an identifier means.
pub(crate) fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// A name as a statement has to write it.
pub(crate) fn sql_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
    match name.starts_with(is_plain) && name.chars().all(|c| is_plain(c) || c.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// A name as a statement may have it: in quotes where it would mean another, or nothing, without.
pub(crate) fn quoted_if_needed(name: &str) -> String {
    match ALL_KEYWORDS.binary_search(&name.to_ascii_uppercase().as_str()) {
        Ok(_) => quoted(name).to_string(),
        Err(_) => sql_name(name),
    }
}

/// A name that means itself, whatever its letters.
pub(crate) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// A namespace's name; a leading catalog is accepted.
pub(crate) fn namespace_name(name: &ObjectName) -> Result<String> {
    match idents(name)?.as_slice() {
        [namespace] => Ok(fold(namespace)),
        [catalog, namespace] if fold(catalog) == CATALOG => Ok(fold(namespace)),
        [catalog, _] => Err(EngineError::not_found(format!(
            "unknown catalog '{}' in '{name}': the only catalog is '{CATALOG}'",
            fold(catalog)
        ))),
        _ => Err(EngineError::invalid(format!("'{name}' is not a namespace: write one name"))),
    }
}

/// A column as INSERT and SET name it; a table in front of it is dropped when it is `table` or `alias`.
pub(crate) fn column_name(name: &ObjectName, table: &TableName, alias: Option<&Ident>) -> Result<String> {
    let parts = idents(name)?;
    match parts.as_slice() {
        [column] => Ok(fold(column)),
        [qualifier, column] if is_qualifier(qualifier, table, alias) => Ok(fold(column)),
        _ => Err(EngineError::invalid(format!("'{name}' is not a column of {table}: write the column's name alone"))),
    }
}

fn is_qualifier(qualifier: &Ident, table: &TableName, alias: Option<&Ident>) -> bool {
    match alias {
        Some(alias) => fold(alias) == fold(qualifier),
        None => table.table == fold(qualifier),
    }
}

fn idents(name: &ObjectName) -> Result<Vec<&Ident>> {
    name.0
        .iter()
        .map(|part| part.as_ident().ok_or_else(|| EngineError::invalid(format!("'{name}' is not a name"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn object(parts: &[&str]) -> ObjectName {
        ObjectName::from(
            parts
                .iter()
                .map(|p| match p.strip_prefix('"') {
                    Some(rest) => Ident::with_quote('"', rest.trim_end_matches('"')),
                    None => Ident::new(*p),
                })
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn folding_and_catalog() {
        for (parts, expected) in [
            (&["Flights"][..], "flights"),
            (&["\"Flights\""], "Flights"),
            (&["NS", "T"], "ns.t"),
            (&["SeracDB", "ns", "\"T\""], "ns.T"),
        ] {
            assert_eq!(TableName::parse(&object(parts)).unwrap().to_string(), expected);
        }
        assert_eq!(TableName::parse(&object(&["other", "ns", "t"])).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(TableName::parse(&object(&["a", "b", "c", "d"])).unwrap_err().kind, ErrorKind::InvalidArgument);
    }

    #[test]
    fn names_in_sql() {
        for (name, expected) in [("t_1", "t_1"), ("T", "\"T\""), ("1t", "\"1t\""), ("a\"b", "\"a\"\"b\""), ("", "\"\"")]
        {
            assert_eq!(sql_name(name), expected);
        }
    }

    #[test]
    fn object_names_round_trip() {
        for name in [
            TableName { namespace: None, table: "a b\"c".into() },
            TableName { namespace: Some("Ns".into()), table: "T".into() },
        ] {
            assert_eq!(TableName::parse(&name.to_object_name()).unwrap(), name);
        }
    }

    #[test]
    fn columns_may_be_qualified_by_the_table_or_its_alias() {
        let table = TableName { namespace: None, table: "t".into() };
        let alias = Ident::new("X");
        assert_eq!(column_name(&object(&["t", "A"]), &table, None).unwrap(), "a");
        assert_eq!(column_name(&object(&["x", "a"]), &table, Some(&alias)).unwrap(), "a");
        assert!(column_name(&object(&["t", "a"]), &table, Some(&alias)).is_err());
        assert!(column_name(&object(&["u", "a"]), &table, None).is_err());
    }
}
