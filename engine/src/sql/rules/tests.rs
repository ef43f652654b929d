//! The rules, from SQL text to rows.
