//! How big and how deep a statement may be.
//!
//! Trees are built, cloned, compared and dropped by recursion, in the parser's crate and in DataFusion, and an overflowing
//! stack ends the process. Three fences, each before the next could overflow:
//! 1. [`Limits::chain_max`] and [`Limits::nesting_max`], counted on tokens, before there is a tree;
//! 2. [`super::balance`] turns long AND, OR and UNION chains, which tools do write, into trees of logarithmic depth;
//! 3. [`Limits::depth_max`], [`Limits::nodes_max`] and [`Limits::relations_max`], counted on the tree, before it is planned.
//!
//! The defaults are for a thread with [`STACK_BYTES`] of stack and DataFusion's `recursive_protection`; the tests of
//! [`super::params`] plan and run statements at each of them on such a thread.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, TableFactor, Visit, Visitor};

use crate::error::{EngineError, ErrorKind, Result};

/// The stack of a thread that parses and plans.
pub const STACK_BYTES: usize = 16 << 20;

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
    /// Levels of expressions and queries after balancing.
    pub depth_max: usize,
    /// Expressions and queries.
    pub nodes_max: usize,
    /// Tables and subqueries in FROM, all together. Each join is a level of the plan.
    pub relations_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_bytes_max: 16 << 20,
            tokens_max: 2_000_000,
            chain_max: 20_000,
            nesting_max: 64,
            depth_max: 500,
            nodes_max: 1_000_000,
            relations_max: 4_000,
        }
    }
}

/// Checks a parsed and balanced piece of a statement.
pub(crate) fn check<V: Visit>(piece: &V, limits: &Limits) -> Result<()> {
    let mut count = Count { limits, nodes: 0, depth: 0, relations: 0 };
    match piece.visit(&mut count) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Count<'a> {
    limits: &'a Limits,
    nodes: usize,
    depth: usize,
    relations: usize,
}

impl Count<'_> {
    fn enter(&mut self) -> ControlFlow<EngineError> {
        self.nodes += 1;
        self.depth += 1;
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
}

fn too_much(message: String) -> ControlFlow<EngineError> {
    ControlFlow::Break(EngineError::new(ErrorKind::ResourceExhausted, message))
}

impl Visitor for Count<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<EngineError> {
        self.enter()
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<EngineError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<EngineError> {
        self.enter()
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<EngineError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<EngineError> {
        self.relations += 1;
        if self.relations > self.limits.relations_max {
            return too_much(format!(
                "the statement is too big: more than {} tables and subqueries; split it",
                self.limits.relations_max
            ));
        }
        ControlFlow::Continue(())
    }
}
