//! Views: the records, and the rules that keep what they read there and their nesting finite.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, CatalogRecord, CatalogWrite, GrantOn};
use crate::schema::{Column, user_fields};

/// Views that may read one another.
pub const VIEW_NESTING_MAX: usize = 32;

/// A view: the text of a query, and what it was made over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRecord {
    /// Namespace.
    pub namespace: String,
    /// Name; no table of the namespace has it.
    pub name: String,
    /// The query as it was written.
    pub query: String,
    /// The namespace that names without one mean in the query.
    pub resolves_in: String,
    /// Its columns as of its creation.
    pub columns: Vec<Column>,
    /// The tables and views that the query names, each once.
    pub reads: Vec<ViewRead>,
    /// What COMMENT ON VIEW has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What COMMENT ON COLUMN has said, by column id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_comments: BTreeMap<u32, String>,
    /// Nanoseconds since the Unix epoch.
    pub created_at_ns: i64,
    /// Name of the user who created it, and owns it.
    pub created_by: String,
}

/// A table or view that a view reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRead {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The columns that it showed when the view was created, in order: what `*` means in the view.
    pub columns: Vec<String>,
    /// It is in no catalog, but always there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub built_in: bool,
}

/// What becomes of the views that read a table which is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// While there are any, the table stays.
    Refuse,
    /// They are dropped too.
    Drop,
    /// They stay: another table takes the name in the same commit.
    Keep,
}

/// Namespace and name.
pub(super) type ViewKey = (String, String);
type Views = BTreeMap<ViewKey, Arc<ViewRecord>>;

impl ViewRecord {
    /// Its columns as a client sees them.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(user_fields(&self.columns)))
    }

    /// The id of a column.
    pub fn column_id(&self, name: &str) -> Option<u32> {
        self.columns.iter().find(|column| column.name == name).map(|column| column.id)
    }

    /// What was said of a column.
    pub fn column_comment(&self, name: &str) -> Option<&str> {
        self.column_comments.get(&self.column_id(name)?).map(String::as_str)
    }

    fn key(&self) -> ViewKey {
        (self.namespace.clone(), self.name.clone())
    }

    fn does_read(&self, namespace: &str, name: &str) -> bool {
        self.reads.iter().any(|read| read.namespace == namespace && read.name == name)
    }

    /// It in the place of another of its name. It stays the same view: of its owner, as old, with its comments as far as its
    /// columns have the same names.
    fn replacing(&self, before: &Self) -> Self {
        let of_name = |column: &Column| {
            let text = before.column_comments.get(&before.column_id(&column.name)?)?;
            Some((column.id, text.clone()))
        };
        let column_comments = self.columns.iter().filter_map(of_name).collect();
        let (comment, created_by) = (before.comment.clone(), before.created_by.clone());
        Self { comment, column_comments, created_by, created_at_ns: before.created_at_ns, ..self.clone() }
    }
}

impl Catalog {
    /// A view by name.
    pub fn view(&self, namespace: &str, name: &str) -> Option<&Arc<ViewRecord>> {
        self.views.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All views by namespace and name.
    pub fn views(&self) -> impl Iterator<Item = &Arc<ViewRecord>> {
        self.views.values()
    }

    /// The views of a namespace by name.
    pub fn views_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<ViewRecord>> {
        self.views
            .range((namespace.to_owned(), String::new())..)
            .take_while(move |((of, _), _)| of == namespace)
            .map(|(_, view)| view)
    }

    /// The views that read a table or view, by namespace and name.
    pub fn views_reading(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<ViewRecord>> {
        self.views.values().filter(move |view| view.does_read(namespace, name))
    }

    /// Whether every view comes to an end: none reads itself, and none too many others.
    pub(crate) fn check_views(&self) -> Result<(), CatalogError> {
        check_nesting(&self.views)
    }

    pub(super) fn create_view(&mut self, view: &ViewRecord, replace: bool) -> Result<Vec<CatalogWrite>, CatalogError> {
        let name = || (view.namespace.clone(), view.name.clone());
        if self.namespace(&view.namespace).is_none() {
            return Err(CatalogError::NoNamespace(view.namespace.clone()));
        }
        if self.table(&view.namespace, &view.name).is_some() {
            let (namespace, name) = name();
            return Err(CatalogError::TableExists(namespace, name));
        }
        let before = self.view(&view.namespace, &view.name);
        if before.is_some() && !replace {
            let (namespace, name) = name();
            return Err(CatalogError::ViewExists(namespace, name));
        }
        let view = before.map_or_else(|| view.clone(), |before| view.replacing(before));
        let is_there = |read: &ViewRead| {
            self.table(&read.namespace, &read.name).is_some() || self.view(&read.namespace, &read.name).is_some()
        };
        if let Some(gone) = view.reads.iter().find(|read| !read.built_in && !is_there(read)) {
            return Err(CatalogError::NoTable(gone.namespace.clone(), gone.name.clone()));
        }
        let mut views = self.views.clone();
        views.insert(view.key(), Arc::new(view.clone()));
        check_nesting(&views)?;
        Ok(vec![self.put(CatalogRecord::View(view))])
    }

    pub(super) fn drop_view(
        &mut self,
        namespace: &str,
        name: &str,
        cascade: bool,
    ) -> Result<Vec<CatalogWrite>, CatalogError> {
        if self.view(namespace, name).is_none() {
            return Err(CatalogError::NoView(namespace.to_owned(), name.to_owned()));
        }
        let readers = if cascade { Readers::Drop } else { Readers::Refuse };
        let mut writes = self.release("view", namespace, name, readers)?;
        self.views.remove(&(namespace.to_owned(), name.to_owned()));
        writes.push(CatalogWrite::RemoveView(namespace.to_owned(), name.to_owned()));
        let gone = GrantOn::View(namespace.to_owned(), name.to_owned());
        writes.extend(self.forget_grants(|on, _| *on == gone));
        Ok(writes)
    }

    /// Settles what becomes of the views that read what is about to be dropped.
    pub(super) fn release(
        &mut self,
        what: &'static str,
        namespace: &str,
        name: &str,
        readers: Readers,
    ) -> Result<Vec<CatalogWrite>, CatalogError> {
        let reading: Vec<ViewKey> = self.views_reading(namespace, name).map(|view| view.key()).collect();
        match (readers, reading.first()) {
            (Readers::Keep, _) | (_, None) => Ok(vec![]),
            (Readers::Refuse, Some((of, view))) => Err(CatalogError::IsRead {
                what,
                name: format!("{namespace}.{name}"),
                view: (of.clone(), view.clone()),
            }),
            (Readers::Drop, _) => {
                let mut writes = Vec::new();
                for (of, view) in reading {
                    // One that reads another of them is gone with that.
                    if self.view(&of, &view).is_some() {
                        writes.extend(self.drop_view(&of, &view, true)?);
                    }
                }
                Ok(writes)
            }
        }
    }
}

/// Refuses views that read themselves, or too many one another.
fn check_nesting(views: &Views) -> Result<(), CatalogError> {
    let mut known = BTreeMap::new();
    views.keys().try_for_each(|key| nesting(views, key, &mut vec![], &mut known).map(drop))
}

/// How many views are in one another from this one down. Goes down no further than [`VIEW_NESTING_MAX`].
fn nesting<'a>(
    views: &'a Views,
    key: &'a ViewKey,
    open: &mut Vec<&'a ViewKey>,
    known: &mut BTreeMap<&'a ViewKey, usize>,
) -> Result<usize, CatalogError> {
    let Some(view) = views.get(key) else { return Ok(0) };
    if let Some(known) = known.get(key) {
        return Ok(*known);
    }
    if open.contains(&key) {
        return Err(CatalogError::ViewReadsItself(key.0.clone(), key.1.clone()));
    }
    open.push(key);
    let mut deepest = 0;
    if open.len() <= VIEW_NESTING_MAX + 1 {
        for read in view.reads.iter().filter(|read| !read.built_in) {
            let below = views.get_key_value(&(read.namespace.clone(), read.name.clone()));
            if let Some((below, _)) = below {
                deepest = deepest.max(nesting(views, below, open, known)?);
            }
        }
    }
    let levels = deepest + 1;
    // Where the way down was cut off, it is too long already.
    if levels > VIEW_NESTING_MAX || open.len() > VIEW_NESTING_MAX + 1 {
        return Err(CatalogError::ViewsTooDeep(key.0.clone(), key.1.clone()));
    }
    open.pop();
    known.insert(key, levels);
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{app, table};
    use super::super::{CatalogChange, CommentOn, NamespaceRecord};
    use super::*;
    use crate::keys::TableId;

    fn view(name: &str, reads: &[&str]) -> ViewRecord {
        let read = |name: &&str| ViewRead {
            namespace: "app".into(),
            name: (*name).into(),
            columns: vec!["a".into()],
            built_in: false,
        };
        let column = |name: &str, id| Column::new(id, name, arrow::datatypes::DataType::Int32, true);
        ViewRecord {
            query: "SELECT a, b FROM t".into(),
            columns: vec![column("a", 16), column("b", 17)],
            reads: reads.iter().map(read).collect(),
            ..super::super::tests::view(name)
        }
    }

    fn create(name: &str, reads: &[&str]) -> CatalogChange {
        CatalogChange::CreateView { view: view(name, reads), replace: false }
    }

    fn replace(name: &str, reads: &[&str]) -> CatalogChange {
        CatalogChange::CreateView { view: view(name, reads), replace: true }
    }

    fn drop_table(views: Readers) -> CatalogChange {
        CatalogChange::DropTable { id: TableId(1), namespace: "app".into(), name: "t".into(), views }
    }

    fn names(catalog: &Catalog) -> Vec<&str> {
        catalog.views().map(|view| view.name.as_str()).collect()
    }

    fn with(changes: &[CatalogChange]) -> Catalog {
        let mut catalog = app();
        catalog.apply(&table(1, "t")).unwrap();
        changes.iter().for_each(|change| drop(catalog.apply(change).unwrap()));
        catalog
    }

    #[test]
    fn views_and_tables_share_their_names() {
        let mut catalog = with(&[create("v", &["t"])]);
        assert!(matches!(catalog.apply(&create("v", &["t"])), Err(CatalogError::ViewExists(..))));
        assert!(matches!(catalog.apply(&table(2, "v")), Err(CatalogError::ViewExists(..))));
        assert!(matches!(catalog.apply(&replace("t", &[])), Err(CatalogError::TableExists(..))));
        assert!(matches!(catalog.apply(&create("w", &["nothing"])), Err(CatalogError::NoTable(..))));
        assert_eq!(names(&catalog), ["v"]);
    }

    #[test]
    fn what_is_read_stays_or_takes_its_readers_along() {
        let mut catalog = with(&[create("v", &["t"]), create("w", &["v", "t"]), create("x", &[])]);
        let refused = catalog.apply(&drop_table(Readers::Refuse)).unwrap_err();
        assert_eq!(refused.to_string(), "table 'app.t' is read by the view 'app.v': drop that first, or use CASCADE");
        let drop_view = |cascade| CatalogChange::DropView { namespace: "app".into(), name: "v".into(), cascade };
        let refused = catalog.apply(&drop_view(false)).unwrap_err();
        assert_eq!(refused.to_string(), "view 'app.v' is read by the view 'app.w': drop that first, or use CASCADE");
        let mut without = catalog.clone();
        assert_eq!(without.apply(&drop_view(true)).unwrap().len(), 2);
        assert_eq!(names(&without), ["x"]);
        catalog.apply(&drop_table(Readers::Drop)).unwrap();
        assert_eq!((names(&catalog), catalog.tables().count()), (vec!["x"], 0));
    }

    #[test]
    fn a_namespace_takes_the_views_of_others_along() {
        let mut catalog = app();
        let other = NamespaceRecord { name: "other".into(), created_at_ns: 0, created_by: None, comment: None };
        catalog.apply(&CatalogChange::CreateNamespace(other)).unwrap();
        catalog.apply(&table(1, "t")).unwrap();
        let elsewhere = ViewRecord { namespace: "other".into(), ..view("v", &["t"]) };
        catalog.apply(&CatalogChange::CreateView { view: elsewhere, replace: false }).unwrap();
        catalog.apply(&create("w", &[])).unwrap();
        let drop = |name: &str, cascade| CatalogChange::DropNamespace { name: name.into(), cascade };
        assert!(matches!(catalog.apply(&drop("other", false)), Err(CatalogError::NotEmpty(_))));
        catalog.apply(&drop("app", true)).unwrap();
        assert_eq!((catalog.views().count(), catalog.tables().count()), (0, 0));
        catalog.apply(&drop("other", false)).unwrap();
    }

    #[test]
    fn no_view_reads_itself() {
        let mut catalog = with(&[create("v", &["t"]), create("w", &["v"]), create("x", &["w"])]);
        for (name, reads) in [("v", ["v"]), ("v", ["w"]), ("v", ["x"]), ("w", ["x"])] {
            let refused = catalog.apply(&replace(name, &reads)).unwrap_err();
            assert!(matches!(refused, CatalogError::ViewReadsItself(..)), "{name} over {reads:?}: {refused}");
        }
        catalog.apply(&replace("x", &["v"])).unwrap();
    }

    #[test]
    fn views_nest_so_deep_and_no_deeper() {
        let mut catalog = with(&[create("v1", &["t"])]);
        for level in 2..=VIEW_NESTING_MAX {
            catalog.apply(&create(&format!("v{level}"), &[&format!("v{}", level - 1)])).unwrap();
        }
        let last = format!("v{VIEW_NESTING_MAX}");
        assert!(matches!(catalog.apply(&create("more", &[&last])), Err(CatalogError::ViewsTooDeep(..))));
        // Nor by a longer way below those that there are.
        catalog.apply(&create("below", &["t"])).unwrap();
        assert!(matches!(catalog.apply(&replace("v1", &["below"])), Err(CatalogError::ViewsTooDeep(..))));
        assert_eq!(catalog.views().count(), VIEW_NESTING_MAX + 1);
    }

    #[test]
    fn a_view_keeps_its_comments_when_it_is_replaced() {
        let comment = |on| CatalogChange::Comment { on, text: Some("said".into()) };
        let of = ("app".to_owned(), "v".to_owned());
        let mut catalog = with(&[
            create("v", &["t"]),
            comment(CommentOn::View(of.0.clone(), of.1.clone())),
            comment(CommentOn::ViewColumn(of.0, of.1, 17)),
        ]);
        let mut other = view("v", &["t"]);
        other.columns.remove(0);
        other.columns[0].id = 16;
        catalog.apply(&CatalogChange::CreateView { view: other, replace: true }).unwrap();
        let view = catalog.view("app", "v").unwrap();
        assert_eq!(view.comment.as_deref(), Some("said"));
        assert_eq!(view.column_comments, BTreeMap::from([(16, "said".to_owned())]));
    }
}
