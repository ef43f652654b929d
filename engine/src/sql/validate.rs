//! What no query may hold, at any depth: clauses that DataFusion's planner silently ignores, and writes inside queries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Fetch, FunctionArg, GroupByExpr, JoinConstraint, JoinOperator, LimitClause, ObjectName, ObjectNamePart, Query,
    Select, SetExpr, TableFactor, TableVersion, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::ctes::Ctes;
use super::limits::{self, Limits};
use super::mentions::{ALL_USERS, plain_text};
use super::names::fold;
use super::time_travel::{AS_OF, CHANGES, wrong_call};
use crate::error::{EngineError, ErrorKind, Result};

/// Makes a parsed piece of a statement fit to be planned: balanced, within the limits, checked.
pub(crate) fn admit<V: VisitMut>(piece: &mut V, limits: &Limits) -> Result<()> {
    limits::fit(piece, limits)?;
    match piece.visit(&mut Admit { ctes: Ctes::new() }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// SQL that SeracDB does not have.
pub(crate) fn unsupported(what: &str) -> EngineError {
    EngineError::new(ErrorKind::Unimplemented, format!("{what} is not supported"))
}

struct Admit {
    ctes: Ctes<()>,
}

type Flow = ControlFlow<EngineError>;

fn refuse_if(refused: bool, what: &str) -> Flow {
    if refused { ControlFlow::Break(unsupported(what)) } else { ControlFlow::Continue(()) }
}

/// DataFusion plans `a JOIN b` as a cross join.
fn refuse_without_condition(join: &JoinOperator) -> Flow {
    match join {
        JoinOperator::Join(JoinConstraint::None)
        | JoinOperator::Inner(JoinConstraint::None)
        | JoinOperator::Left(JoinConstraint::None)
        | JoinOperator::LeftOuter(JoinConstraint::None)
        | JoinOperator::Right(JoinConstraint::None)
        | JoinOperator::RightOuter(JoinConstraint::None)
        | JoinOperator::FullOuter(JoinConstraint::None) => {
            ControlFlow::Break(EngineError::invalid("syntax error: a JOIN needs ON or USING (or write CROSS JOIN)"))
        }
        _ => ControlFlow::Continue(()),
    }
}

/// The functions that read the table which their first argument names.
const READERS: [&str; 3] = [ALL_USERS, AS_OF, CHANGES];

/// DataFusion calls a table function by one part of its name, and reads the table's name from whatever is a text when it is
/// planned. What asks which tables a statement reads knows only what is written plainly. Of `all_users` that is asked where
/// the audit log has it.
fn check_call(name: &ObjectName, args: &[FunctionArg]) -> Flow {
    let [ObjectNamePart::Identifier(function)] = name.0.as_slice() else {
        let wrong = format!("'{name}' is no table function: their names are of one part");
        return ControlFlow::Break(EngineError::invalid(wrong));
    };
    let is_plain = args.first().is_some_and(|first| plain_text(first).is_some());
    match fold(function).as_str() {
        CHANGES if !is_plain => ControlFlow::Break(wrong_call()),
        AS_OF if !is_plain => {
            ControlFlow::Break(EngineError::invalid("write namespace.table FOR SYSTEM_TIME AS OF time"))
        }
        _ => ControlFlow::Continue(()),
    }
}

impl VisitorMut for Admit {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        self.ctes.enter(query);
        refuse_if(
            !query.locks.is_empty(),
            "SELECT … FOR UPDATE or FOR SHARE (a commit is checked against others anyway)",
        )?;
        refuse_if(query.for_clause.is_some(), "FOR XML, JSON or BROWSE")?;
        refuse_if(query.settings.is_some(), "SETTINGS in a query")?;
        refuse_if(query.format_clause.is_some(), "FORMAT in a query")?;
        refuse_if(!query.pipe_operators.is_empty(), "|> in a query")?;
        if let Some(with) = &query.with {
            refuse_if(with.cte_tables.iter().any(|cte| cte.from.is_some()), "FROM after a WITH query")?;
        }
        check_set(&query.body)?;
        match query.fetch.take() {
            Some(fetch) => fetch_to_limit(query, fetch),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, _: &mut Query) -> Flow {
        self.ctes.leave(());
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        for join in select.from.iter().flat_map(|table| &table.joins) {
            refuse_without_condition(&join.join_operator)?;
        }
        refuse_if(select.into.is_some(), "SELECT … INTO (CREATE the table, then INSERT INTO … SELECT)")?;
        refuse_if(select.top.is_some(), "TOP (write LIMIT)")?;
        refuse_if(select.exclude.is_some(), "EXCLUDE after the select list (write * EXCLUDE (…))")?;
        refuse_if(select.select_modifiers.is_some(), "a modifier after SELECT")?;
        refuse_if(!select.lateral_views.is_empty(), "LATERAL VIEW (write UNNEST)")?;
        refuse_if(select.prewhere.is_some(), "PREWHERE (write WHERE)")?;
        refuse_if(!select.connect_by.is_empty(), "CONNECT BY (write WITH RECURSIVE)")?;
        refuse_if(!select.cluster_by.is_empty(), "CLUSTER BY in a query")?;
        refuse_if(!select.distribute_by.is_empty(), "DISTRIBUTE BY in a query")?;
        refuse_if(!select.sort_by.is_empty(), "SORT BY (write ORDER BY)")?;
        refuse_if(select.value_table_mode.is_some(), "SELECT AS STRUCT or AS VALUE")?;
        let modifiers = match &select.group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
        };
        refuse_if(!modifiers.is_empty(), "WITH ROLLUP, CUBE or TOTALS (write GROUP BY ROLLUP (…) or CUBE (…))")
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        match factor {
            TableFactor::Table {
                name,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
                args,
                ..
            } => {
                refuse_if(version.is_some() && args.is_some(), "a table function AS OF a time")?;
                if let Some(call) = args {
                    check_call(name, &call.args)?;
                }
                refuse_if(sample.is_some(), "TABLESAMPLE")?;
                let as_of = matches!(version, None | Some(TableVersion::ForSystemTimeAsOf(_)));
                refuse_if(!as_of, "AT, BEFORE, CHANGES or VERSION behind a table (write FOR SYSTEM_TIME AS OF time)")?;
                if version.is_some() && self.ctes.find(name).is_some() {
                    return ControlFlow::Break(EngineError::invalid(format!(
                        "'{name}' is a WITH query: write FOR SYSTEM_TIME AS OF in it, at the tables that it reads"
                    )));
                }
                refuse_if(*with_ordinality, "WITH ORDINALITY")?;
                let hinted = !with_hints.is_empty() || !index_hints.is_empty();
                refuse_if(
                    hinted || !partitions.is_empty() || json_path.is_some(),
                    "a hint, partition or path on a table",
                )
            }
            TableFactor::Derived { sample, .. } => refuse_if(sample.is_some(), "TABLESAMPLE"),
            TableFactor::Function { name, args, with_ordinality, .. } => {
                refuse_if(*with_ordinality, "WITH ORDINALITY")?;
                check_call(name, args)?;
                let function = name.to_string().to_lowercase();
                let is_reader = READERS.contains(&function.trim_matches('"'));
                refuse_if(is_reader, &format!("LATERAL {function}(…) (write it without LATERAL)"))
            }
            TableFactor::UNNEST { with_ordinality, .. } => refuse_if(*with_ordinality, "WITH ORDINALITY"),
            TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            _ => refuse_if(true, "this kind of table in FROM"),
        }
    }

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> Flow {
        let Value::Placeholder(name) = &value.value else { return ControlFlow::Continue(()) };
        let numbered = name.strip_prefix('$').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if numbered {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(EngineError::invalid(format!("{name} is not a parameter: write ? or $1, $2, …")))
    }
}

/// The queries of a set operation; those in parentheses are visited by themselves.
fn check_set(body: &SetExpr) -> Flow {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) => ControlFlow::Continue(()),
        SetExpr::Values(values) => refuse_if(values.value_keyword, "VALUE (write VALUES)"),
        SetExpr::SetOperation { left, right, .. } => {
            check_set(left)?;
            check_set(right)
        }
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => refuse_if(
            true,
            "INSERT, UPDATE, DELETE or MERGE inside a query (for INSERT, write the WITH after it: INSERT INTO t WITH … SELECT …)",
        ),
        SetExpr::Table(_) => refuse_if(true, "TABLE inside a query (write SELECT * FROM)"),
    }
}

fn fetch_to_limit(query: &mut Query, fetch: Fetch) -> Flow {
    refuse_if(fetch.with_ties, "FETCH … WITH TIES")?;
    refuse_if(fetch.percent, "FETCH … PERCENT")?;
    let rows = fetch
        .quantity
        .unwrap_or_else(|| datafusion::sql::sqlparser::ast::Expr::value(Value::Number("1".into(), false)));
    query.limit_clause = Some(match query.limit_clause.take() {
        None => LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by: vec![] },
        Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => {
            LimitClause::LimitOffset { limit: Some(rows), offset, limit_by }
        }
        Some(_) => {
            return ControlFlow::Break(EngineError::invalid("LIMIT and FETCH in one query: keep one of them"));
        }
    });
    ControlFlow::Continue(())
}
