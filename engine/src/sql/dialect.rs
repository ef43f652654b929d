//! The SQL that SeracDB reads: PostgreSQL's, with `STRUCT<…>` types, `* EXCLUDE (…)` and `?` parameters.
//!
//! Left out of PostgreSQL on purpose:
//! - custom operators and the geometric ones: with them `a>=?` and `a=?-1` are one operator each, and `?` is never a
//!   parameter. The operators DataFusion has (`->`, `@>`, `~*`, `!~~`, …) are tokens of their own;
//! - named function arguments whose name is an expression: the parser tries every argument twice, so that `f(f(f(…)))`
//!   takes 2^depth steps.

use std::any::TypeId;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ColumnOption, Expr, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::rewrite::call;

/// SeracDB's SQL dialect.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SeracDialect;

const BASE: PostgreSqlDialect = PostgreSqlDialect {};

/// Functions that are words of PostgreSQL's. A word in quotes is no keyword.
const SESSION_WORDS: [Keyword; 3] = [Keyword::CURRENT_USER, Keyword::SESSION_USER, Keyword::CURRENT_CATALOG];

/// IS DISTINCT FROM that one may have on its left.
const DISTINCTS_MAX: usize = 64;

fn distincts_in(expr: &Expr) -> usize {
    struct Distincts(usize);
    impl Visitor for Distincts {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 += usize::from(matches!(expr, Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..)));
            ControlFlow::Continue(())
        }
    }
    let mut found = Distincts(0);
    let _ = expr.visit(&mut found);
    found.0
}

/// Methods that answer yes.
macro_rules! yes {
    ($($method:ident),* $(,)?) => { $(fn $method(&self) -> bool { true })* };
}

impl Dialect for SeracDialect {
    /// What the parser does for PostgreSQL alone it does for us.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        BASE.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        BASE.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        BASE.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        BASE.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        BASE.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, _ch: char) -> bool {
        false
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        BASE.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        BASE.prec_value(precedence)
    }

    /// `current_user()`: PostgreSQL has it without parentheses alone, others with them.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let name = match &parser.peek_token_ref().token {
            Token::Word(word) if SESSION_WORDS.contains(&word.keyword) => word.value.clone(),
            _ => return None,
        };
        let has_parentheses =
            parser.peek_nth_token_ref(1).token == Token::LParen && parser.peek_nth_token_ref(2).token == Token::RParen;
        if !has_parentheses {
            return None;
        }
        (0..3).for_each(|_| parser.advance_token());
        Some(Ok(call(&name, [])))
    }

    /// `a IS [NOT] DISTINCT FROM b AND c` is `(a IS [NOT] DISTINCT FROM b) AND c`. The parser takes all that follows for its right
    /// side.
    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        type Distinct = fn(Box<Expr>, Box<Expr>) -> Expr;
        let distinct: Distinct = if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsDistinctFrom
        } else if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsNotDistinctFrom
        } else {
            return None;
        };
        // What stands before is copied: each part of it so many times at most.
        if distincts_in(expr) >= DISTINCTS_MAX {
            return Some(Err(ParserError::ParserError(format!(
                "more than {DISTINCTS_MAX} IS DISTINCT FROM, each of what the last one gives: write AND between them"
            ))));
        }
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(right.map(|right| distinct(Box::new(expr.clone()), Box::new(right))))
    }

    /// Options of a column that the parser knows of other databases only. It would go past them and forget them.
    fn parse_column_option(
        &self,
        parser: &mut Parser,
    ) -> Result<Option<Result<Option<ColumnOption>, ParserError>>, ParserError> {
        let others = [Keyword::AUTO_INCREMENT, Keyword::AUTOINCREMENT, Keyword::IDENTITY, Keyword::ASC, Keyword::DESC];
        let Some(word) = parser.parse_one_of_keywords(&others) else { return Ok(None) };
        if word == Keyword::IDENTITY && parser.consume_token(&Token::LParen) {
            parser.parse_comma_separated(Parser::parse_expr)?;
            parser.expect_token(&Token::RParen)?;
        }
        Ok(Some(Ok(Some(ColumnOption::DialectSpecific(vec![Token::make_keyword(&format!("{word:?}"))])))))
    }

    // As PostgreSQL.
    yes!(
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_explain_with_utility_options,
        supports_bitwise_shift_operators,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_comma_separated_trim,
    );

    // Beyond PostgreSQL: what DataFusion plans and its users write.
    yes!(
        supports_struct_literal,
        supports_select_wildcard_exclude,
        supports_select_wildcard_except,
        supports_select_wildcard_replace,
        supports_order_by_all,
        supports_table_versioning,
        supports_window_function_null_treatment_arg,
        supports_window_clause_named_window_reference,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresql_checks_hold() {
        let dialect: &dyn Dialect = &SeracDialect;
        assert!(dialect.is::<PostgreSqlDialect>());
    }

    #[test]
    fn is_distinct_from_ends_where_and_begins() {
        let parsed = |sql: &str| Parser::new(&SeracDialect).try_with_sql(sql).unwrap().parse_expr().unwrap();
        let operator = |sql: &str| match parsed(sql) {
            Expr::BinaryOp { op, .. } => op.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(operator("a IS DISTINCT FROM b AND c"), "AND");
        assert_eq!(operator("a IS NOT DISTINCT FROM b OR c"), "OR");
        assert_eq!(operator("x AND a IS DISTINCT FROM b OR c"), "OR");
        assert_eq!(operator("NOT a IS NOT DISTINCT FROM b AND c"), "AND");
        assert!(matches!(parsed("a IS DISTINCT FROM b + 1 = c"), Expr::IsDistinctFrom(..)));
        assert!(matches!(parsed("NOT a IS DISTINCT FROM b"), Expr::UnaryOp { .. }));
        let chain = |links: usize| {
            let sql = format!("a{}", " IS DISTINCT FROM b".repeat(links));
            Parser::new(&SeracDialect).try_with_sql(&sql).unwrap().parse_expr().is_ok()
        };
        assert!(chain(DISTINCTS_MAX) && !chain(DISTINCTS_MAX + 1));
    }

    #[test]
    fn parses_what_users_write() {
        for sql in [
            "SELECT * EXCLUDE (a) FROM t",
            "SELECT * EXCEPT (a, b) FROM t",
            "SELECT t.* EXCLUDE (a) FROM t",
            "SELECT a::int, b::numeric(10,2)[] FROM t",
            "SELECT CAST(a AS STRUCT<x INT, y STRUCT<z VARCHAR>>) FROM t",
            "SELECT ARRAY[1,2][1], [1,2,3]",
            "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a",
            "SELECT count(*) FILTER (WHERE a > 1) FROM t",
            "SELECT a ~* 'x', b !~ 'y', c @> d, e -> 'f' FROM t",
            "SELECT E'a\\nb', $$text$$, $tag$te'xt$tag$",
            "SELECT interval '1 day', date '2024-01-01', timestamp '2024-01-01 00:00:00'",
            "SELECT extract(year FROM a), position('a' IN b), substring(a FROM 1 FOR 2) FROM t",
            "SELECT a FROM t WHERE (a, b) IN (SELECT 1, 2)",
            "SELECT lag(a) OVER w FROM t WINDOW w AS (PARTITION BY b ORDER BY c)",
            "SELECT a FROM t /* block /* nested */ */ -- line",
            "SELECT a FROM t ORDER BY ALL",
            "SELECT struct(1, 2)",
        ] {
            Parser::parse_sql(&SeracDialect, sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }
}
