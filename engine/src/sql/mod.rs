//! SQL text to statements, and statements to what DataFusion plans.
//!
//! Text → tokens ([`tokens`]: size, chains, `?` → `$n`; [`subject`]: AS USER) → [`Statement`] ([`parse`], [`writes`], [`ddl`],
//! [`users`], [`grants`], [`views`], [`settings`]:
//! an allow-list by construction; [`with`]) → balanced, within the [`limits`], checked ([`validate`]) → a query with its wildcards
//! settled ([`dml`], [`insert`], [`wildcards`]) → a plan with typed parameters ([`params`], [`in_place`], [`infer`],
//! [`candidates`], [`planner`]) → values cast to their columns ([`branches`], [`coerce`]).
//!
//! What it does not know: the catalog, the storage, who is asking. Names and types of columns come in as arguments.

mod alter;
mod api_tokens;
mod balance;
pub(crate) mod branches;
mod candidates;
pub(crate) mod coerce;
pub(crate) mod conflict;
pub(crate) mod constraints;
mod ctes;
mod ddl;
pub(crate) mod defaults;
mod dialect;
pub(crate) mod dml;
pub(crate) mod errors;
mod fingerprint;
pub(crate) mod fit;
mod grants;
mod in_place;
mod infer;
pub(crate) mod insert;
mod jobs;
mod like;
pub(crate) mod limits;
pub(crate) mod mentions;
pub(crate) mod merge;
pub(crate) mod names;
pub(crate) mod params;
mod parse;
pub(crate) mod planner;
pub(crate) mod planted;
pub(crate) mod rewrite;
pub(crate) mod rules;
mod settings;
pub(crate) mod statement;
mod subject;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
pub(crate) mod time_travel;
mod tokens;
mod transactions;
pub(crate) mod tuples;
pub(crate) mod types;
mod users;
mod validate;
mod views;
pub(crate) mod wildcards;
mod with;
mod writes;

pub(crate) use fingerprint::{fingerprint, without_literals};
pub(crate) use limits::Limits;
pub(crate) use names::TableName;
pub(crate) use parse::{Read, has_parameters, parse, parse_for};
pub(crate) use statement::Statement;
