//! Tables of one name in several namespaces.
//!
//! To DataFusion `web.t.a` is a column of whatever is called `t` without a namespace, too, and of several tables the first one's. So
//! where a query has a table with its namespace, and one of the same name without, the latter gets its own: `FROM t JOIN web.t`
//! becomes `FROM default.t JOIN web.t`. A column `t.a` of both is that of the table which was written so. Others keep the name
//! that they were given, which is in errors and in the names of columns.
//!
//! `t.*` is of `web.t` where no other is called so: DataFusion wants all of its name.

use std::iter;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, TableFactor,
    TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};

use super::is_rows;
use crate::sql::ctes::Ctes;
use crate::sql::dml::TARGET_CATALOG;
use crate::sql::names::{TableName, fold};

/// Makes them differ in their names. `namespace_of`: that of a table which is named without.
pub(crate) fn tell_apart(query: &mut Query, namespace_of: &dyn Fn(&TableName) -> String) {
    if is_rows(query) {
        return;
    }
    let qualified = qualified(query);
    if !qualified.is_empty() {
        let mut tell = TellApart { qualified, namespace_of, ctes: Ctes::new(), levels: vec![] };
        let _ = VisitMut::visit(query, &mut tell);
    }
}

/// A table that is named with its namespace, and has no alias.
struct Named {
    namespace: String,
    table: String,
    /// Whether it is the one that the statement changes: it has its namespace always.
    is_target: bool,
}

fn named(name: &ObjectName) -> Option<Named> {
    let parts: Vec<String> = name.0.iter().map(|part| part.as_ident().map(fold)).collect::<Option<_>>()?;
    let [catalog @ .., namespace, table] = parts.as_slice() else { return None };
    let is_target = catalog.first().is_some_and(|catalog| catalog == TARGET_CATALOG);
    Some(Named { namespace: namespace.clone(), table: table.clone(), is_target })
}

/// Those of a query.
fn qualified(query: &Query) -> Vec<Named> {
    let mut found = Qualified(vec![]);
    let _ = Visit::visit(query, &mut found);
    found.0
}

struct Qualified(Vec<Named>);

impl Visitor for Qualified {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias: None, args: None, .. } = factor {
            self.0.extend(named(name));
        }
        ControlFlow::Continue(())
    }
}

/// What a FROM has.
struct Relation {
    /// What its columns are named by.
    name: String,
    /// The name with its namespace that its columns may have after this; absent of what is no table, and of one that keeps its own.
    full: Option<ObjectName>,
    /// Whether it was written with it.
    was_full: bool,
    is_target: bool,
}

struct TellApart<'a> {
    qualified: Vec<Named>,
    namespace_of: &'a dyn Fn(&TableName) -> String,
    ctes: Ctes<()>,
    /// Of each open query what its SELECT reads.
    levels: Vec<Vec<Relation>>,
}

impl TellApart<'_> {
    /// The name of a table that is to get its namespace.
    fn full(&self, name: &ObjectName) -> Option<ObjectName> {
        let [ObjectNamePart::Identifier(table)] = name.0.as_slice() else { return None };
        let table = TableName { namespace: None, table: fold(table) };
        let mut others = self.qualified.iter().filter(|other| other.table == table.table).peekable();
        if others.peek().is_none() || self.ctes.find(name).is_some() {
            return None;
        }
        let namespace = (self.namespace_of)(&table);
        let is_another = |other: &Named| !other.is_target || other.namespace != namespace;
        let found = others.any(is_another);
        found.then(|| TableName { namespace: Some(namespace), ..table }.to_object_name())
    }

    fn relation(&self, written: &ObjectName) -> Option<Relation> {
        let name = fold(written.0.last()?.as_ident()?);
        let (full, was_full, is_target) = match named(written) {
            None => (self.full(written), false, false),
            Some(Named { is_target: false, .. }) => (Some(written.clone()), true, false),
            Some(Named { namespace, table, .. }) => {
                let alone = TableName { namespace: None, table };
                // One in another namespace cannot have been written without.
                let was_full = (self.namespace_of)(&alone) != namespace;
                (Some(TableName { namespace: Some(namespace), ..alone }.to_object_name()), was_full, true)
            }
        };
        Some(Relation { name, full, was_full, is_target })
    }

    fn collect(&self, tables: &TableWithJoins, found: &mut Vec<Relation>) {
        for factor in iter::once(&tables.relation).chain(tables.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => self.collect(table_with_joins, found),
                TableFactor::Table { name, alias: None, args: None, .. } => found.extend(self.relation(name)),
                TableFactor::Table { alias: Some(alias), .. }
                | TableFactor::Derived { alias: Some(alias), .. }
                | TableFactor::TableFunction { alias: Some(alias), .. }
                | TableFactor::Function { alias: Some(alias), .. }
                | TableFactor::UNNEST { alias: Some(alias), .. }
                | TableFactor::NestedJoin { alias: Some(alias), .. } => {
                    let name = fold(&alias.name);
                    found.push(Relation { name, full: None, was_full: false, is_target: false });
                }
                _ => {}
            }
        }
    }
}

/// The relation that a name of one part means among those of this name, when it is a table whose name has more.
fn meant<'a>(relations: &'a [Relation], name: &Ident) -> Option<&'a ObjectName> {
    let name = fold(name);
    let same: Vec<&Relation> = relations.iter().filter(|relation| relation.name == name).collect();
    match (same.iter().find(|relation| !relation.was_full), same.as_slice()) {
        (Some(written_so), _) => written_so.full.as_ref(),
        (None, [only]) => only.full.as_ref(),
        (None, _) => None,
    }
}

impl VisitorMut for TellApart<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.ctes.enter(query);
        self.levels.push(vec![]);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.ctes.leave(());
        self.levels.pop();
        ControlFlow::Continue(())
    }

    /// Its query has what it reads in sight until its end, for ORDER BY.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut relations = vec![];
        select.from.iter().for_each(|tables| self.collect(tables, &mut relations));
        // The target's columns are not all the client's.
        let items: &mut [SelectItem] =
            if relations.iter().any(|relation| relation.is_target) { &mut [] } else { &mut select.projection };
        for item in items {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
                && let [ObjectNamePart::Identifier(table)] = name.0.as_slice()
                && let Some(full) = meant(&relations, table)
            {
                *name = full.clone();
            }
        }
        if let Some(level) = self.levels.last_mut() {
            *level = relations;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias: None, args: None, .. } = factor
            && let Some(full) = self.full(name)
        {
            *name = full;
        }
        ControlFlow::Continue(())
    }

    /// Of one table DataFusion finds the columns by either name.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, column] = parts.as_slice()
        {
            let wanted = fold(table);
            let count = |level: &[Relation]| level.iter().filter(|relation| relation.name == wanted).count();
            let nearest = self.levels.iter().rev().find(|level| count(level.as_slice()) > 0);
            if let Some(level) = nearest.filter(|level| count(level.as_slice()) > 1)
                && let Some(full) = meant(level, table)
            {
                let table = full.0.iter().filter_map(|part| part.as_ident().cloned());
                *parts = table.chain([column.clone()]).collect();
            }
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
        tell_apart(query, &|_| "own".to_owned());
        query.to_string()
    }

    #[test]
    fn a_table_without_its_namespace_gets_it_beside_one_with_another() {
        for (sql, expected) in [
            (
                "SELECT t.a, web.t.a FROM t JOIN web.t ON t.a = web.t.a ORDER BY t.a",
                "SELECT \"own\".\"t\".a, web.t.a FROM \"own\".\"t\" JOIN web.t ON \"own\".\"t\".a = web.t.a \
                 ORDER BY \"own\".\"t\".a",
            ),
            ("SELECT a, T.b FROM web.t, T", "SELECT a, \"own\".\"t\".b FROM web.t, \"own\".\"t\""),
            (
                "SELECT a FROM web.t WHERE EXISTS (SELECT 1 FROM t WHERE t.k = web.t.k)",
                "SELECT a FROM web.t WHERE EXISTS (SELECT 1 FROM \"own\".\"t\" WHERE t.k = web.t.k)",
            ),
            (
                "SELECT t.* EXCLUDE (b), web.t.* FROM (t JOIN web.t USING (a))",
                "SELECT \"own\".\"t\".* EXCLUDE (b), web.t.* FROM (\"own\".\"t\" JOIN web.t USING(a))",
            ),
            ("SELECT t.* FROM web.t JOIN u ON true", "SELECT web.t.* FROM web.t JOIN u ON true"),
            (
                "WITH u AS (SELECT a FROM t) SELECT a FROM u, web.t",
                "WITH u AS (SELECT a FROM \"own\".\"t\") SELECT a FROM u, web.t",
            ),
            (
                "SELECT a FROM t FOR SYSTEM_TIME AS OF now() JOIN web.t ON true",
                "SELECT a FROM \"own\".\"t\" FOR SYSTEM_TIME AS OF now() JOIN web.t ON true",
            ),
            (
                "SELECT t.n FROM \"seracdb target\".own.t, web.t WHERE t.k = web.t.k",
                "SELECT \"own\".\"t\".n FROM \"seracdb target\".own.t, web.t WHERE \"own\".\"t\".k = web.t.k",
            ),
            (
                "SELECT t.n FROM \"seracdb target\".web.t, t WHERE t.k = web.t.k",
                "SELECT \"own\".\"t\".n FROM \"seracdb target\".web.t, \"own\".\"t\" WHERE \"own\".\"t\".k = web.t.k",
            ),
        ] {
            assert_eq!(after(sql), expected);
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        for same in [
            "SELECT t.a, t.* FROM t",
            "SELECT t.a FROM web.t WHERE t.b = 1",
            "SELECT t.a FROM t, web.u",
            "SELECT t.a FROM t, web.t AS x",
            "SELECT t.a, t.* FROM u AS t, web.t",
            "SELECT web.t.a FROM web.t JOIN app.t ON web.t.a = app.t.a",
            "SELECT t.* FROM web.t, app.t",
            "WITH t AS (SELECT 1 AS a) SELECT t.a FROM t, web.t",
            "SELECT a FROM \"seracdb target\".own.t WHERE a IN (SELECT t.a FROM t)",
            "SELECT t.* FROM \"seracdb target\".own.t",
            "VALUES (1)",
        ] {
            assert_eq!(after(same), same);
        }
    }
}
