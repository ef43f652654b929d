//! How big and how deep a statement may be.
//!
//! Trees are built, cloned, compared and dropped by recursion, in the parser's crate and in DataFusion, and an overflowing
//! stack ends the process. Three fences, each before the next could overflow:
//! 1. [`Limits::chain_max`] and [`Limits::nesting_max`], counted on tokens, before there is a tree;
//! 2. [`super::balance`] turns long AND, OR and UNION chains, which tools do write, into trees of logarithmic depth;
//! 3. the others, counted on the tree while it is balanced, before it is planned.
//!
//! Measured with [`STACK_BYTES`] of stack, DataFusion's `recursive_protection` and an unoptimized build: sums and other
//! chains plan and run at 2,400 levels (in quadratic time: 9 s), EXCEPT at 600 and not at 1,200; ORs, ANDs and UNIONs at
//! 4,000. Subqueries in the expressions of one another double the optimizer's work each (20: 8 s), joins take cubic time
//! (200: 7 s), and a WITH query is planned anew wherever it is named. `tests/deep.rs` goes to each limit.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, Select, SetExpr, TableFactor, VisitMut, VisitorMut};

use super::balance::{balance_expr, balance_set};
use super::ctes::{Cte, Ctes};
use crate::error::{EngineError, ErrorKind, Result};

/// The stack of a thread that parses and plans.
pub const STACK_BYTES: usize = 16 << 20;

/// Levels that the stack has room for.
pub const DEPTH_MAX: usize = 500;

/// How big and how deep a statement may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of text.
    pub statement_bytes_max: usize,
    /// Tokens that are not white space. One token costs about half a kilobyte of tree.
    pub tokens_max: usize,
    /// Operators that could nest in one expression as it is written.
    pub chain_max: usize,
    /// Parentheses, brackets, CASEs and `STRUCT<`s in one another.
    pub nesting_max: usize,
    /// Levels of expressions and queries after balancing; also WITH queries that build on one another.
    pub depth_max: usize,
    /// Expressions and queries.
    pub nodes_max: usize,
    /// Subqueries in the expressions of one another.
    pub subqueries_max: usize,
    /// Tables, subqueries and functions in one FROM.
    pub joins_max: usize,
    /// Tables and functions all together, those of a WITH query as often as it is named.
    pub relations_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_bytes_max: 16 << 20,
            tokens_max: 2_000_000,
            chain_max: 10_000,
            nesting_max: 64,
            depth_max: DEPTH_MAX,
            nodes_max: 1_000_000,
            subqueries_max: 12,
            joins_max: 100,
            relations_max: 5_000,
        }
    }
}

/// Balances a parsed piece of a statement and checks it.
pub(crate) fn fit<V: VisitMut>(piece: &mut V, limits: &Limits) -> Result<()> {
    fit_with(piece, limits, &|_| None).map(drop)
}

/// The same together with the views that it names. `size_of`: what is in one.
pub(crate) fn fit_with<V: VisitMut>(
    piece: &mut V,
    limits: &Limits,
    size_of: &dyn Fn(&ObjectName) -> Option<Size>,
) -> Result<Size> {
    let mut fit = Fit {
        limits,
        size_of,
        nodes: 0,
        depth: 0,
        deepest: 0,
        subqueries: 0,
        expressions: vec![0],
        set_depths: vec![],
        sizes: vec![Size::default()],
        ctes: Ctes::new(),
    };
    match piece.visit(&mut fit) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => {
            let all = fit.sizes.first().copied().unwrap_or_default();
            Ok(Size { depth: fit.deepest, subqueries: fit.subqueries, ..all })
        }
    }
}

struct Fit<'a> {
    limits: &'a Limits,
    size_of: &'a dyn Fn(&ObjectName) -> Option<Size>,
    nodes: usize,
    depth: usize,
    /// The largest depth so far.
    deepest: usize,
    /// The most subqueries in the expressions of one another so far.
    subqueries: usize,
    /// For each query that is open, and outside of them: expressions that are open directly in it.
    expressions: Vec<usize>,
    /// Levels of set operations of each open query, which are not visited one by one.
    set_depths: Vec<usize>,
    /// Of each open query so far, and of what is outside of queries.
    sizes: Vec<Size>,
    ctes: Ctes<Size>,
}

/// What a query is in a plan, where a WITH query or a view stands wherever it is named.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    relations: usize,
    /// Queries in one another.
    levels: usize,
    /// Levels of expressions and queries; of a view.
    depth: usize,
    /// Subqueries in the expressions of one another; of a view.
    subqueries: usize,
}

type Flow = ControlFlow<EngineError>;

fn too_much(message: String) -> Flow {
    ControlFlow::Break(EngineError::new(ErrorKind::ResourceExhausted, message))
}

impl Fit<'_> {
    fn enter(&mut self, levels: usize) -> Flow {
        self.nodes += 1;
        self.depth += levels;
        self.deepest = self.deepest.max(self.depth);
        if self.depth > self.limits.depth_max {
            return too_much(format!(
                "the statement is too deep: more than {} expressions in one another; split it, or use IN (…) for many \
                 values",
                self.limits.depth_max
            ));
        }
        if self.nodes > self.limits.nodes_max {
            return too_much(format!(
                "the statement is too big: more than {} expressions; split it, or send values as parameters or by ingest",
                self.limits.nodes_max
            ));
        }
        ControlFlow::Continue(())
    }

    /// How many of the open queries are in an expression of the one around them.
    fn inside(&self) -> usize {
        // The last one is the innermost query's own.
        self.expressions.iter().rev().skip(1).filter(|open| **open > 0).count()
    }

    /// So many subqueries are in the expressions of one another here.
    fn nest(&mut self, subqueries: usize) -> Flow {
        self.subqueries = self.subqueries.max(subqueries);
        if subqueries > self.limits.subqueries_max {
            return too_much(format!(
                "the statement is too deep: more than {} subqueries in the expressions of one another; use joins or WITH",
                self.limits.subqueries_max
            ));
        }
        ControlFlow::Continue(())
    }

    /// A view stands here.
    fn view(&mut self, size: Size) -> Flow {
        self.deepest = self.deepest.max(self.depth + size.depth);
        if self.deepest > self.limits.depth_max {
            return too_much(format!(
                "the statement is too deep: more than {} expressions in one another, counting those of its views",
                self.limits.depth_max
            ));
        }
        self.nest(self.inside() + size.subqueries)?;
        self.add(Size { relations: size.relations.max(1), ..size })
    }

    /// This is now a part of the innermost open query.
    fn add(&mut self, part: Size) -> Flow {
        let Some(here) = self.sizes.last_mut() else { return ControlFlow::Continue(()) };
        here.relations = here.relations.saturating_add(part.relations);
        here.levels = here.levels.max(part.levels);
        if here.relations > self.limits.relations_max {
            return too_much(format!(
                "the statement is too big: more than {} tables, counting those of a WITH query or view as often as \
                 it is named; split it",
                self.limits.relations_max
            ));
        }
        if here.levels > self.limits.depth_max {
            return too_much(format!(
                "the statement is too deep: more than {} WITH queries that build on one another; split it",
                self.limits.depth_max
            ));
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Fit<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        balance_set(&mut query.body);
        let set_depth = set_depth(&query.body);
        // A level of EXCEPT or INTERSECT is a join in the plan: it counts twice.
        self.enter(1 + 2 * set_depth)?;
        self.set_depths.push(set_depth);
        self.expressions.push(0);
        self.nest(self.inside())?;
        self.ctes.enter(query);
        self.sizes.push(Size::default());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> Flow {
        self.depth -= 1 + 2 * self.set_depths.pop().unwrap_or(0);
        self.expressions.pop();
        let mut size = self.sizes.pop().unwrap_or_default();
        size.levels += 1;
        match self.ctes.leave(size) {
            Some(size) => self.add(size),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        balance_expr(expr);
        self.expressions.iter_mut().last().into_iter().for_each(|open| *open += 1);
        self.enter(1)
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> Flow {
        self.depth -= 1;
        self.expressions.iter_mut().last().into_iter().for_each(|open| *open -= 1);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        let joins = select.from.iter().map(|table| 1 + table.joins.len()).sum::<usize>();
        if joins > self.limits.joins_max {
            return too_much(format!(
                "the statement is too big: more than {} tables in one FROM; join some of them in a subquery",
                self.limits.joins_max
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        let one = Size { relations: 1, ..Size::default() };
        let part = match factor {
            TableFactor::Table { name, .. } => match self.ctes.find(name) {
                Some(Cte::Known(size)) => Size { relations: size.relations.max(1), ..*size },
                Some(Cte::Recursive) => one,
                None => match (self.size_of)(name) {
                    Some(view) => return self.view(view),
                    None => one,
                },
            },
            // What is in it is counted by itself.
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => Size::default(),
            _ => one,
        };
        self.add(part)
    }
}

/// Levels of set operations, parenthesized ones not included. Without recursion: this is what bounds it.
fn set_depth(body: &SetExpr) -> usize {
    let mut deepest = 0;
    let mut open = vec![(body, 0)];
    while let Some((body, depth)) = open.pop() {
        deepest = deepest.max(depth);
        if let SetExpr::SetOperation { left, right, .. } = body {
            open.push((left, depth + 1));
            open.push((right, depth + 1));
        }
    }
    deepest
}
