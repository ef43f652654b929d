//! Tests over several modules: text → statement, and text → plan → rows against a plain DataFusion with tables in memory.

mod deep;
mod fixture;
mod granting;
mod parameters;
mod parsing;
mod planning;
mod star;
