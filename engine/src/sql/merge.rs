//! MERGE: as it is read, and as the SELECT that finds and makes its rows.
//!
//! ```text
//! MERGE INTO t USING s ON t.k = s.k
//!     WHEN MATCHED AND s.gone THEN DELETE  WHEN MATCHED THEN UPDATE SET a = s.a  WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.a)
//!
//! SELECT t.<location>…, t._id, t._updated,
//!     CASE WHEN <1> THEN t.k WHEN <2> THEN t.k WHEN <3> THEN s.k END AS k, CASE … s.a … END AS a, <old columns>,
//!     CASE WHEN <1> THEN 1 WHEN <2> THEN 2 WHEN <3> THEN 3 END AS <clause>
//! FROM s LEFT JOIN t ON t.k = s.k WHERE <clause> IS NOT NULL
//!     with <1> = t._id IS NOT NULL AND s.gone, <2> = t._id IS NOT NULL, <3> = t._id IS NULL
//! ```
//! The first clause whose condition holds is a row's, as the standard has it. [`super::branches`] casts the values.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Join, JoinConstraint, JoinOperator, Query, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value, WildcardAdditionalOptions, helpers::attached_token::AttachedToken,
};
use datafusion::sql::sqlparser::parser::{IsOptional, Parser};
use datafusion::sql::sqlparser::tokenizer::Token;
use seracdb_storage::system_columns;

use super::defaults::mark_default;
use super::dml::{Source, query, require_column, select};
use super::insert::exact_decimal;
use super::names::{self, TableName, fold, quoted};
use super::parse::Reader;
use super::statement::{Merge, MergeAction, MergeClause, MergeWhen, Statement};
use super::validate::{admit, unsupported};
use super::writes::check_targets;
use crate::error::{EngineError, Result, counted};

/// The column that says which clause a row is of, from 1.
pub(crate) const CLAUSE_COLUMN: &str = "seracdb clause";

/// The column that says that a row has one of the source.
const FROM_SOURCE: &str = "seracdb source";

/// Clauses that one MERGE may have.
const CLAUSES_MAX: usize = 100;

impl Reader<'_> {
    /// MERGE INTO target USING source ON condition WHEN … THEN …
    pub(crate) fn merge(&mut self) -> Result<Statement> {
        self.parser.advance_token();
        self.word("INTO");
        let parsed = self.parser.parse_table_factor();
        let (table, alias) = self.merge_target(parsed)?;
        self.require_word("USING")?;
        let parsed = self.parser.parse_table_factor();
        let mut source = self.at(parsed)?;
        admit(&mut source, self.limits)?;
        self.require_word("ON")?;
        let parsed = self.parser.parse_expr();
        let mut on = self.at(parsed)?;
        admit(&mut on, self.limits)?;
        let mut clauses = Vec::new();
        while self.word("WHEN") {
            clauses.push(self.merge_clause(&table, alias.as_ref())?);
            if clauses.len() > CLAUSES_MAX {
                return Err(EngineError::invalid(format!("MERGE has more than {CLAUSES_MAX} clauses: split it")));
            }
        }
        if clauses.is_empty() {
            let token = self.parser.peek_token();
            return Err(self.expected("WHEN [NOT] MATCHED", &token));
        }
        let returning = match self.word("RETURNING") {
            true => {
                let parsed = self.parser.parse_comma_separated(Parser::parse_select_item);
                let items = self.at(parsed)?;
                self.returning(Some(items))?
            }
            false => vec![],
        };
        Ok(Statement::Merge(Box::new(Merge { table, alias, source, on, clauses, returning })))
    }

    fn merge_target(
        &self,
        parsed: std::result::Result<TableFactor, datafusion::sql::sqlparser::parser::ParserError>,
    ) -> Result<(TableName, Option<Ident>)> {
        let relation = self.at(parsed)?;
        super::writes::target(TableWithJoins { relation, joins: vec![] }, "MERGE")
    }

    fn require_word(&mut self, word: &str) -> Result<()> {
        match self.word(word) {
            true => Ok(()),
            false => {
                let token = self.parser.peek_token();
                Err(self.expected(word, &token))
            }
        }
    }

    fn merge_clause(&mut self, table: &TableName, alias: Option<&Ident>) -> Result<MergeClause> {
        let when = if self.word("MATCHED") {
            MergeWhen::Matched
        } else {
            self.require_word("NOT")?;
            self.require_word("MATCHED")?;
            match self.words(&["BY", "SOURCE"]) {
                true => MergeWhen::NotMatchedBySource,
                false => {
                    self.words(&["BY", "TARGET"]);
                    MergeWhen::NotMatched
                }
            }
        };
        let condition = match self.word("AND") {
            true => {
                let parsed = self.parser.parse_expr();
                let mut condition = self.at(parsed)?;
                admit(&mut condition, self.limits)?;
                Some(condition)
            }
            false => None,
        };
        self.require_word("THEN")?;
        let action = self.merge_action(table, alias)?;
        let fits = match (&when, &action) {
            (MergeWhen::NotMatched, MergeAction::Insert { .. }) | (_, MergeAction::Nothing) => true,
            (MergeWhen::NotMatched, _) => false,
            (_, action) => !matches!(action, MergeAction::Insert { .. }),
        };
        match fits {
            true => Ok(MergeClause { when, condition, action }),
            false => Err(EngineError::invalid(
                "MERGE: a row that is MATCHED, or NOT MATCHED BY SOURCE, is there and can be updated or deleted; one that is NOT MATCHED can be inserted",
            )),
        }
    }

    fn merge_action(&mut self, table: &TableName, alias: Option<&Ident>) -> Result<MergeAction> {
        if self.word("DELETE") {
            return Ok(MergeAction::Delete);
        }
        if self.words(&["DO", "NOTHING"]) {
            return Ok(MergeAction::Nothing);
        }
        if self.words(&["UPDATE", "SET"]) {
            let parsed = self.parser.parse_comma_separated(Parser::parse_assignment);
            let assignments = self.at(parsed)?;
            return Ok(MergeAction::Update(self.assignments(assignments, table, alias)?));
        }
        if !self.word("INSERT") {
            let token = self.parser.peek_token();
            return Err(self.expected("INSERT, UPDATE SET, DELETE or DO NOTHING", &token));
        }
        let parsed = self.parser.parse_parenthesized_qualified_column_list(IsOptional::Optional, false);
        let columns: Vec<String> =
            self.at(parsed)?.iter().map(|column| names::column_name(column, table, alias)).collect::<Result<_>>()?;
        check_targets(&columns, table)?;
        if self.words(&["DEFAULT", "VALUES"]) {
            return Ok(MergeAction::Insert { columns, values: None });
        }
        self.require_word("VALUES")?;
        let parsed = self.parser.expect_token(&Token::LParen);
        self.at(parsed)?;
        let parsed = self.parser.parse_comma_separated(Parser::parse_expr);
        let mut values = self.at(parsed)?;
        let parsed = self.parser.expect_token(&Token::RParen);
        self.at(parsed)?;
        for value in &mut values {
            mark_default(value);
            admit(value, self.limits)?;
        }
        Ok(MergeAction::Insert { columns, values: Some(values) })
    }
}

/// The rows of a MERGE: location columns, `_id` and `_updated` of those that are there, all user columns as they become (of a row
/// that is deleted, as they are), these columns as they are, and the clause.
pub(crate) fn merge_query(
    merge: &Merge,
    user_columns: &[(String, DataType)],
    location_columns: &[&str],
    old: &[&str],
) -> Result<Query> {
    let target = Source { table: &merge.table, alias: merge.alias.as_ref(), is_target: true };
    let values: Vec<Vec<Expr>> = merge
        .clauses
        .iter()
        .map(|clause| values_of(clause, &target, user_columns, &merge.table))
        .collect::<Result<_>>()?;
    let conditions: Vec<Expr> = merge.clauses.iter().map(|clause| condition_of(clause, &target, merge)).collect();
    let mut items = target.location(location_columns);
    for (place, (column, _)) in user_columns.iter().enumerate() {
        let value = |clause: usize| values[clause][place].clone();
        let expr = by_clause(&conditions, value);
        items.push(SelectItem::ExprWithAlias { expr, alias: quoted(column) });
    }
    items.extend(target.old(old));
    let numbered = |clause: usize| Expr::value(Value::Number((clause + 1).to_string(), false));
    let number = by_clause(&conditions, numbered);
    items.push(SelectItem::ExprWithAlias { expr: number.clone(), alias: quoted(CLAUSE_COLUMN) });
    let mut selection = Expr::IsNotNull(Box::new(number.clone()));
    let does_nothing = |(_, clause): &(usize, &MergeClause)| matches!(clause.action, MergeAction::Nothing);
    let nothing: Vec<Expr> =
        merge.clauses.iter().enumerate().filter(does_nothing).map(|(clause, _)| numbered(clause)).collect();
    if !nothing.is_empty() {
        selection = and(selection, Expr::InList { expr: Box::new(number), list: nothing, negated: true });
    }
    let statement = select(items, vec![joined(merge, &target)?], Some(selection));
    Ok(query(SetExpr::Select(Box::new(statement))))
}

/// The new values of a row, by user column.
fn values_of(
    clause: &MergeClause,
    target: &Source<'_>,
    user_columns: &[(String, DataType)],
    table: &TableName,
) -> Result<Vec<Expr>> {
    let null = || Expr::value(Value::Null);
    let mut values: Vec<Expr> = match &clause.action {
        MergeAction::Insert { columns, values } => {
            let places: Vec<usize> = match columns.is_empty() {
                true => (0..user_columns.len()).collect(),
                false => columns.iter().map(|name| require_column(name, user_columns, table)).collect::<Result<_>>()?,
            };
            let mut row: Vec<Expr> = user_columns.iter().map(|_| null()).collect();
            if let Some(values) = values {
                check_values(values.len(), places.len())?;
                values.iter().zip(places).for_each(|(value, place)| row[place] = value.clone());
            }
            row
        }
        MergeAction::Update(assignments) => {
            for (name, _) in assignments {
                require_column(name, user_columns, table)?;
            }
            let value = |name: &String| assignments.iter().find(|(assigned, _)| assigned == name);
            let as_it_is = |name: &String| target.column(name);
            let new =
                |(name, _): &(String, DataType)| value(name).map_or_else(|| as_it_is(name), |(_, value)| value.clone());
            user_columns.iter().map(new).collect()
        }
        MergeAction::Delete => user_columns.iter().map(|(name, _)| target.column(name)).collect(),
        MergeAction::Nothing => user_columns.iter().map(|_| null()).collect(),
    };
    values.iter_mut().zip(user_columns).for_each(|(value, (_, data_type))| exact_decimal(value, data_type));
    Ok(values)
}

/// Refuses another number of values than of columns.
pub(super) fn check_values(given: usize, wanted: usize) -> Result<()> {
    if given == wanted {
        return Ok(());
    }
    Err(EngineError::invalid(format!("MERGE inserts {}, but {wanted} are wanted", counted(given, "value"))))
}

fn condition_of(clause: &MergeClause, target: &Source<'_>, merge: &Merge) -> Expr {
    let id = || Box::new(target.column(system_columns::ID));
    let source = || Box::new(Expr::Identifier(quoted(FROM_SOURCE)));
    let when = match clause.when {
        MergeWhen::Matched if merge.by_source() => and(Expr::IsNotNull(id()), Expr::IsNotNull(source())),
        MergeWhen::Matched => Expr::IsNotNull(id()),
        MergeWhen::NotMatched => Expr::IsNull(id()),
        MergeWhen::NotMatchedBySource => Expr::IsNull(source()),
    };
    match &clause.condition {
        Some(condition) => and(when, Expr::Nested(Box::new(condition.clone()))),
        None => when,
    }
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

fn by_clause(conditions: &[Expr], value: impl Fn(usize) -> Expr) -> Expr {
    let when = |(clause, condition): (usize, &Expr)| CaseWhen { condition: condition.clone(), result: value(clause) };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: conditions.iter().enumerate().map(when).collect(),
        else_result: None,
    }
}

/// Source and target, as the clauses need them.
fn joined(merge: &Merge, target: &Source<'_>) -> Result<TableWithJoins> {
    let has = |when: MergeWhen| merge.clauses.iter().any(|clause| clause.when == when);
    let on = JoinConstraint::On(merge.on.clone());
    let operator = match (has(MergeWhen::NotMatched), has(MergeWhen::NotMatchedBySource)) {
        (false, false) => JoinOperator::Inner(on),
        (true, false) => JoinOperator::LeftOuter(on),
        (false, true) => JoinOperator::RightOuter(on),
        (true, true) => JoinOperator::FullOuter(on),
    };
    let relation = if merge.by_source() { marked(&merge.source, target)? } else { merge.source.clone() };
    let join = Join { relation: target.relation(), global: false, join_operator: operator };
    Ok(TableWithJoins { relation, joins: vec![join] })
}

/// The source as RETURNING sees it: called as the clauses call it.
pub(crate) fn source_in_sight(merge: &Merge) -> TableFactor {
    let mut source = merge.source.clone();
    if let TableFactor::Table { name, alias: alias @ None, .. } = &mut source
        && merge.by_source()
    {
        let last = name.0.last().and_then(|part| part.as_ident()).map(fold);
        *alias = last.map(|last| TableAlias { explicit: true, name: quoted(&last), columns: vec![], at: None });
    }
    source
}

/// A source with a column that is never NULL.
fn marked(source: &TableFactor, target: &Source<'_>) -> Result<TableFactor> {
    let alias = match source {
        TableFactor::Table { name, alias: None, .. } => {
            let last = name.0.last().and_then(|part| part.as_ident()).map(fold);
            // Without its namespace it would be taken for the target.
            if target.alias.is_none() && last.as_ref() == Some(&target.table.table) {
                return Err(EngineError::invalid(format!(
                    "MERGE … WHEN NOT MATCHED BY SOURCE: '{name}' is called as the target is: give one of them an alias"
                )));
            }
            last.map(|last| TableAlias { explicit: true, name: quoted(&last), columns: vec![], at: None })
        }
        TableFactor::Table { alias, .. } => alias.clone(),
        TableFactor::Derived { alias, .. } => alias.clone(),
        _ => None,
    };
    // Names of columns are given inside.
    let Some(alias) = alias.map(|alias| TableAlias { columns: vec![], ..alias }) else {
        return Err(unsupported(
            "MERGE … WHEN NOT MATCHED BY SOURCE from a source without a name (write (SELECT …) AS s)",
        ));
    };
    let all = SelectItem::Wildcard(WildcardAdditionalOptions::default());
    let marker = SelectItem::ExprWithAlias { expr: Expr::value(Value::Boolean(true)), alias: quoted(FROM_SOURCE) };
    let from = TableWithJoins { relation: source.clone(), joins: vec![] };
    let subquery = query(SetExpr::Select(Box::new(select(vec![all, marker], vec![from], None))));
    Ok(TableFactor::Derived { lateral: false, subquery: Box::new(subquery), alias: Some(alias), sample: None })
}
