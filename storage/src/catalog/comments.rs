//! What COMMENT says of what is in the catalog.

use std::sync::Arc;

use super::{Catalog, CatalogError, CatalogRecord, CatalogWrite};
use crate::keys::TableId;

/// What a comment is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommentOn {
    /// A namespace.
    Namespace(String),
    /// A table.
    Table(TableId),
    /// A column of a table, by its id.
    Column(TableId, u32),
    /// A view, by namespace and name.
    View(String, String),
    /// A column of a view, by its id.
    ViewColumn(String, String, u32),
}

impl Catalog {
    /// Sets or removes a comment.
    pub(super) fn comment(&mut self, on: &CommentOn, text: Option<&str>) -> Result<Vec<CatalogWrite>, CatalogError> {
        let text = text.map(str::to_owned);
        let record = match on {
            CommentOn::Namespace(name) => {
                let record = self.namespace(name).ok_or_else(|| CatalogError::NoNamespace(name.clone()))?;
                let mut record = (**record).clone();
                record.comment = text;
                CatalogRecord::Namespace(record)
            }
            CommentOn::Table(id) | CommentOn::Column(id, _) => {
                let record = self.table_by_id(*id).map(Arc::clone);
                let record = record.ok_or_else(|| CatalogError::NoTable(String::new(), id.0.to_string()))?;
                let mut record = (*record).clone();
                match (on, text) {
                    (CommentOn::Column(_, column), Some(text)) => drop(record.column_comments.insert(*column, text)),
                    (CommentOn::Column(_, column), None) => drop(record.column_comments.remove(column)),
                    (_, text) => record.comment = text,
                }
                CatalogRecord::Table(record)
            }
            CommentOn::View(namespace, name) | CommentOn::ViewColumn(namespace, name, _) => {
                let record = self.view(namespace, name);
                let record = record.ok_or_else(|| CatalogError::NoView(namespace.clone(), name.clone()))?;
                let mut record = (**record).clone();
                match (on, text) {
                    (CommentOn::ViewColumn(.., column), Some(text)) => {
                        drop(record.column_comments.insert(*column, text));
                    }
                    (CommentOn::ViewColumn(.., column), None) => drop(record.column_comments.remove(column)),
                    (_, text) => record.comment = text,
                }
                CatalogRecord::View(record)
            }
        };
        Ok(vec![self.put(record)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::CatalogChange;
    use super::super::tests::{app, table};
    use super::*;

    #[test]
    fn comments_are_set_changed_and_removed() {
        let mut catalog = app();
        catalog.apply(&table(1, "t")).unwrap();
        let before = catalog.table("app", "t").unwrap().clone();
        let mut say = |on: CommentOn, text: Option<&str>| {
            catalog.apply(&CatalogChange::Comment { on, text: text.map(str::to_owned) }).unwrap();
            catalog.clone()
        };
        say(CommentOn::Table(TableId(1)), Some("one"));
        say(CommentOn::Table(TableId(1)), Some("two"));
        let after = say(CommentOn::Column(TableId(1), 16), Some("column"));
        let record = after.table("app", "t").unwrap();
        assert_eq!((record.comment.as_deref(), record.column_comments[&16].as_str()), (Some("two"), "column"));
        assert_eq!(record, after.table_by_id(TableId(1)).unwrap());
        say(CommentOn::Column(TableId(1), 16), None);
        let after = say(CommentOn::Table(TableId(1)), None);
        assert_eq!(after.table("app", "t").unwrap(), &before);
        let after = say(CommentOn::Namespace("app".into()), Some("of it all"));
        assert_eq!(after.namespace("app").unwrap().comment.as_deref(), Some("of it all"));
    }

    #[test]
    fn nothing_is_said_of_what_is_not_there() {
        let mut catalog = app();
        for on in [
            CommentOn::Namespace("x".into()),
            CommentOn::Table(TableId(7)),
            CommentOn::Column(TableId(7), 16),
            CommentOn::View("app".into(), "v".into()),
        ] {
            assert!(catalog.apply(&CatalogChange::Comment { on, text: None }).is_err());
        }
    }
}
