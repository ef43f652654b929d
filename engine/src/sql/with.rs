//! WITH before INSERT, UPDATE, DELETE and MERGE: each of its queries stands wherever the statement names it.
//!
//! ```text
//! WITH x (k) AS (SELECT a FROM u) DELETE FROM t USING x AS y WHERE t.a = y.k
//! DELETE FROM t USING (SELECT a FROM u) AS y (k) WHERE t.a = y.k
//! ```
//! DataFusion does the same with the WITH queries of a SELECT, in its plan. Here it is done in the tree of the text, which has to
//! stay small: a query that names another one twice, which names another one twice, doubles with every step.

use std::ops::{ControlFlow, Range};

use datafusion::sql::sqlparser::ast::{
    Cte, ObjectName, ObjectNamePart, Query, TableAlias, TableAliasColumnDef, TableFactor, VisitMut, VisitorMut, With,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::ctes::Ctes;
use super::limits::Limits;
use super::mentions::relations_of;
use super::names::{TableName, fold, quoted};
use super::parse::Reader;
use super::statement::{ConflictAction, InsertSource, MergeAction, OnConflict, Statement};
use super::tuples::require_steady;
use super::validate::{admit, unsupported};
use crate::error::{EngineError, ErrorKind, Result};

/// WITH queries before such a statement, and copies that are made of them.
const COPIES_MAX: usize = 1_000;

/// Bytes of a token that weigh as much as another token.
const TOKEN_BYTES: usize = 100;

impl Reader<'_> {
    /// WITH queries and what they are for: a query, or a statement that changes rows.
    pub(crate) fn with(&mut self) -> Result<Statement> {
        self.parser.advance_token();
        let with_token = self.parser.get_current_token().clone().into();
        let recursive = self.parser.parse_keyword(Keyword::RECURSIVE);
        let mut places: Vec<Range<usize>> = Vec::new();
        let parsed = self.parser.parse_comma_separated(|parser| {
            let start = parser.index();
            let cte = parser.parse_cte();
            places.push(start..parser.index());
            cte
        });
        let cte_tables = self.at(parsed)?;
        let token = self.parser.peek_token();
        let keyword = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        };
        let mut statement = match keyword {
            Keyword::INSERT => self.insert()?,
            Keyword::UPDATE => self.update()?,
            Keyword::DELETE => self.delete()?,
            Keyword::MERGE => self.merge()?,
            Keyword::WITH => return Err(self.expected("SELECT, INSERT, UPDATE, DELETE or MERGE", &token)),
            _ => {
                let parsed = self.parser.parse_query();
                let mut query = self.at(parsed)?;
                query.with = Some(With { with_token, recursive, cte_tables });
                admit(query.as_mut(), self.limits)?;
                return Ok(Statement::Query(query));
            }
        };
        if recursive {
            return Err(unsupported(
                "WITH RECURSIVE before INSERT, UPDATE, DELETE or MERGE, where a WITH query is put wherever it is named \
                 (for INSERT, write it after it: INSERT INTO t WITH RECURSIVE … SELECT …)",
            ));
        }
        let weights = places.into_iter().map(|place| self.weight(place)).collect::<Vec<_>>();
        put_in(cte_tables, weights, &mut statement, self.limits)?;
        require_steady(&statement)?;
        Ok(statement)
    }

    /// How much memory the tree of these tokens takes, in tokens.
    fn weight(&self, place: Range<usize>) -> usize {
        let bytes = |token: &Token| match token {
            Token::Word(word) => word.value.len(),
            Token::Number(text, _)
            | Token::SingleQuotedString(text)
            | Token::DoubleQuotedString(text)
            | Token::EscapedStringLiteral(text)
            | Token::UnicodeStringLiteral(text)
            | Token::NationalStringLiteral(text)
            | Token::HexStringLiteral(text) => text.len(),
            Token::DollarQuotedString(text) => text.value.len(),
            _ => 0,
        };
        place.map(|at| 1 + bytes(&self.parser.token_at(at).token) / TOKEN_BYTES).sum()
    }
}

/// Puts WITH queries wherever a statement names them. `weights`: of each.
fn put_in(queries: Vec<Cte>, weights: Vec<usize>, statement: &mut Statement, limits: &Limits) -> Result<()> {
    if queries.len() > COPIES_MAX {
        return Err(too_much());
    }
    let mut put = Put { queries: vec![], limits, ctes: Ctes::new(), open: 0, copies: 0, weight: 0 };
    for (query, weight) in queries.into_iter().zip(weights) {
        put.add(query, weight)?;
    }
    put.statement(statement)
}

fn too_much() -> EngineError {
    EngineError::new(
        ErrorKind::ResourceExhausted,
        format!(
            "the statement is too big: its WITH queries stand wherever they are named, in more than {COPIES_MAX} places or \
             too large; split it"
        ),
    )
}

/// A WITH query in which those before it are put already.
struct WithQuery {
    name: String,
    columns: Vec<TableAliasColumnDef>,
    query: Box<Query>,
    /// The tables that it names without a namespace.
    tables: Vec<ObjectName>,
    /// Queries that are put in it.
    copies: usize,
    /// Tokens of it and of them.
    weight: usize,
    /// Queries in one another.
    levels: usize,
}

struct Put<'a> {
    queries: Vec<WithQuery>,
    limits: &'a Limits,
    /// The WITH queries of the statement's own queries, which come first.
    ctes: Ctes<()>,
    /// Queries that are being visited.
    open: usize,
    /// Of all so far.
    copies: usize,
    /// Of all copies so far.
    weight: usize,
}

impl Put<'_> {
    /// Knows another WITH query, which names those before it only.
    fn add(&mut self, cte: Cte, weight: usize) -> Result<()> {
        let (name, mut query) = (fold(&cte.alias.name), cte.query);
        if self.queries.iter().any(|known| known.name == name) {
            return Err(EngineError::invalid(format!("WITH has two queries named '{name}'")));
        }
        admit(query.as_mut(), self.limits)?;
        let before = (self.copies, self.weight);
        self.piece(query.as_mut())?;
        let mut levels = Levels::default();
        let _ = query.visit(&mut levels);
        let tables = relations_of(&query).into_iter().filter(|table| table.namespace.is_none());
        self.queries.push(WithQuery {
            name,
            columns: cte.alias.columns,
            tables: tables.map(|table| table.to_object_name()).collect(),
            query,
            copies: self.copies - before.0,
            weight: weight + self.weight - before.1,
            levels: levels.deepest,
        });
        Ok(())
    }

    fn statement(&mut self, statement: &mut Statement) -> Result<()> {
        match statement {
            Statement::Insert(insert) => {
                self.refuse_target(&insert.table)?;
                match &mut insert.source {
                    InsertSource::Query(query) => self.piece(query)?,
                    InsertSource::Values(rows) => self.piece(rows)?,
                    InsertSource::Defaults => {}
                }
                if let Some(OnConflict { action: ConflictAction::Update { assignments, selection }, .. }) =
                    &mut insert.conflict
                {
                    assignments.iter_mut().try_for_each(|(_, value)| self.piece(value))?;
                    self.piece(selection)?;
                }
            }
            Statement::Update(update) => {
                self.refuse_target(&update.table)?;
                update.assignments.iter_mut().try_for_each(|(_, value)| self.piece(value))?;
                self.piece(&mut update.from)?;
                self.piece(&mut update.selection)?;
            }
            Statement::Delete(delete) => {
                self.refuse_target(&delete.table)?;
                self.piece(&mut delete.using)?;
                self.piece(&mut delete.selection)?;
            }
            Statement::Merge(merge) => {
                self.refuse_target(&merge.table)?;
                self.piece(&mut merge.source)?;
                self.piece(&mut merge.on)?;
                for clause in &mut merge.clauses {
                    self.piece(&mut clause.condition)?;
                    match &mut clause.action {
                        MergeAction::Insert { values, .. } => self.piece(values)?,
                        MergeAction::Update(assignments) => {
                            assignments.iter_mut().try_for_each(|(_, value)| self.piece(value))?;
                        }
                        MergeAction::Delete | MergeAction::Nothing => {}
                    }
                }
            }
            _ => return Err(EngineError::internal("WITH stands before a statement that changes no rows")),
        }
        let returning = match statement {
            Statement::Insert(insert) => &mut insert.returning,
            Statement::Update(update) => &mut update.returning,
            Statement::Delete(delete) => &mut delete.returning,
            Statement::Merge(merge) => &mut merge.returning,
            _ => return Ok(()),
        };
        self.piece(returning)
    }

    fn refuse_target(&self, table: &TableName) -> Result<()> {
        match table.namespace.is_none() && self.queries.iter().any(|query| query.name == table.table) {
            true => Err(EngineError::invalid(format!("'{table}' is a WITH query, which cannot be changed"))),
            false => Ok(()),
        }
    }

    /// Puts the queries into a piece of a statement, which has to be fit with them too.
    fn piece<P: VisitMut>(&mut self, piece: &mut P) -> Result<()> {
        let before = self.copies;
        if let ControlFlow::Break(error) = piece.visit(self) {
            return Err(error);
        }
        match self.copies == before {
            true => Ok(()),
            false => admit(piece, self.limits),
        }
    }

    /// What a table of a FROM is, if it is a WITH query.
    fn replacement(&mut self, factor: &TableFactor) -> Result<Option<TableFactor>> {
        let TableFactor::Table { name, alias, args: None, version, .. } = factor else { return Ok(None) };
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return Ok(None) };
        let wanted = fold(ident);
        let Some(known) = self.queries.iter().find(|query| query.name == wanted) else { return Ok(None) };
        if self.ctes.find(name).is_some() {
            return Ok(None);
        }
        if version.is_some() {
            return Err(EngineError::invalid(format!(
                "'{name}' is a WITH query: write FOR SYSTEM_TIME AS OF in it, at the tables that it reads"
            )));
        }
        // A table that it reads would be another one there.
        if let Some(hidden) = known.tables.iter().find(|table| self.ctes.find(table).is_some()) {
            return Err(EngineError::invalid(format!(
                "WITH query '{wanted}' reads {hidden}, and stands where another WITH query is named so: give that another name"
            )));
        }
        self.copies += 1 + known.copies;
        self.weight += known.weight;
        if self.copies > COPIES_MAX || self.weight > self.limits.nodes_max {
            return Err(too_much());
        }
        if self.open + known.levels > self.limits.nesting_max {
            return Err(EngineError::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "the statement is too deep: more than {} queries in one another, those of WITH included; split it",
                    self.limits.nesting_max
                ),
            ));
        }
        let alias = alias.clone().unwrap_or_else(|| TableAlias {
            explicit: true,
            name: quoted(&wanted),
            columns: vec![],
            at: None,
        });
        let columns = if alias.columns.is_empty() { known.columns.clone() } else { alias.columns };
        let alias = TableAlias { columns, ..alias };
        let subquery = known.query.clone();
        Ok(Some(TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None }))
    }
}

impl VisitorMut for Put<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        self.open += 1;
        self.ctes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<EngineError> {
        self.open -= 1;
        self.ctes.leave(());
        ControlFlow::Continue(())
    }

    // After what is in it: what is put here names tables only, be they called like WITH queries.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<EngineError> {
        match self.replacement(factor) {
            Ok(None) => {}
            Ok(Some(query)) => *factor = query,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

/// How many queries are in one another.
#[derive(Default)]
struct Levels {
    open: usize,
    deepest: usize,
}

impl VisitorMut for Levels {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.open += 1;
        self.deepest = self.deepest.max(self.open);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.open -= 1;
        ControlFlow::Continue(())
    }
}
