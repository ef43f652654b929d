//! A WITH query may have the name of one further out, which it then hides: `WITH x AS (…) SELECT … FROM (WITH x AS (…)
//! SELECT … FROM x)`. DataFusion knows one query of a name, so the inner one gets another name, and keeps its own as an
//! alias wherever it is read. Not with RECURSIVE, where it could read itself: that stays an error.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query, TableAlias, TableFactor, VisitMut, VisitorMut};

use crate::sql::ctes::{Cte, Ctes};
use crate::sql::names::{fold, quoted};

/// Renames the WITH queries that hide others.
pub(super) fn rename_inner(query: &mut Query) {
    let _ = query.visit(&mut Rename { ctes: Ctes::new(), levels: vec![] });
}

struct Rename {
    /// Each WITH query's name after this.
    ctes: Ctes<String>,
    levels: Vec<Level>,
}

/// A query that is being visited.
struct Level {
    /// Its WITH queries' names after this, in order.
    names: Vec<String>,
    /// How many of them were visited.
    visited: usize,
}

impl Rename {
    fn hides_another(&self, name: &Ident) -> bool {
        self.ctes.find(&ObjectName::from(vec![name.clone()])).is_some()
    }
}

impl VisitorMut for Rename {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut names = vec![];
        let mut renamed = vec![];
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let hides = !with.recursive && self.hides_another(&cte.alias.name);
                let name = fold(&cte.alias.name);
                names.push(if hides { format!("__with_{}_{name}", self.levels.len()) } else { name });
                renamed.push(hides);
            }
        }
        // It goes by the names as they are written.
        self.ctes.enter(query);
        let tables = query.with.iter_mut().flat_map(|with| &mut with.cte_tables);
        for ((cte, name), hides) in tables.zip(&names).zip(renamed) {
            if hides {
                cte.alias.name = quoted(name);
            }
        }
        self.levels.push(Level { names, visited: 0 });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.levels.pop();
        let above = self.levels.last_mut();
        let name = above.as_ref().and_then(|above| above.names.get(above.visited).cloned()).unwrap_or_default();
        if self.ctes.leave(name).is_none()
            && let Some(above) = above
        {
            above.visited += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(Cte::Known(renamed)) = self.ctes.find(name) else { return ControlFlow::Continue(()) };
        let Some(written) = name.0.last().and_then(|part| part.as_ident()).cloned() else {
            return ControlFlow::Continue(());
        };
        if fold(&written) != *renamed {
            let renamed = ObjectName::from(vec![quoted(renamed)]);
            alias.get_or_insert(TableAlias { explicit: true, name: written, columns: vec![], at: None });
            *name = renamed;
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::SeracDialect;
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::parser::Parser;

    fn after(sql: &str) -> String {
        let mut statements = Parser::parse_sql(&SeracDialect, sql).unwrap();
        let Statement::Query(query) = &mut statements[0] else { panic!("{sql}") };
        rename_inner(query);
        query.to_string()
    }

    #[test]
    fn the_inner_one_is_renamed() {
        for same in [
            "WITH x AS (SELECT 1 AS n), y AS (SELECT n FROM x) SELECT n FROM x, y",
            "SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) AS a, (WITH x AS (SELECT 2) SELECT * FROM x) AS b",
            "WITH x AS (SELECT 1 AS n) SELECT n FROM (WITH RECURSIVE x AS (SELECT 2 AS n) SELECT n FROM x) AS s",
        ] {
            assert_eq!(after(same), same);
        }
        assert_eq!(
            after("WITH x AS (SELECT 1 AS n) SELECT n FROM (WITH x AS (SELECT n FROM x) SELECT x.n FROM X) AS s, x"),
            "WITH x AS (SELECT 1 AS n) SELECT n FROM \
             (WITH \"__with_1_x\" AS (SELECT n FROM x) SELECT x.n FROM \"__with_1_x\" AS X) AS s, x"
        );
    }
}
