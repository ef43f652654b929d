//! What the audit log says of changes of the catalog: each by its name, and each table and view that goes along with what is
//! dropped. Temporary tables are nobody else's business.

use seracdb_storage::audit::AuditEntry;
use seracdb_storage::catalog::{
    Catalog, CatalogChange, CatalogWrite, CommentOn, GrantOn, GrantTo, Privilege, Readers, UserBecomes,
};
use seracdb_storage::keys::TableId;

use crate::audit::{Ending, ended, entry};
use crate::session::Session;
use crate::temporary::is_temporary;

/// What a change of a table is called.
pub(crate) const ALTER_TABLE: &str = "ALTER TABLE";

/// What a change is called, and what it is about.
type Described = (&'static str, String);

/// The entries of a commit of changes of the catalog. `catalog`: what the changes change.
pub(crate) fn of_changes(session: &Session, catalog: &Catalog, changes: &[CatalogChange]) -> Vec<AuditEntry> {
    let mut described: Vec<Described> = Vec::new();
    for change in changes {
        let Some(own) = describe(catalog, change) else { continue };
        let along = going_along(catalog, change, &own);
        described.push(own);
        for one in along {
            // What several changes take along goes once.
            if !described.contains(&one) {
                described.push(one);
            }
        }
    }
    // One ALTER TABLE may be several changes.
    described.dedup_by(|next, last| next.0 == ALTER_TABLE && next == last);
    let entries = described.into_iter().map(|(action, target)| entry(session, action, Some(target)));
    entries.map(|entry| ended(&entry, Ending::Committed, None)).collect()
}

/// Adds to the entries of a transaction what goes along with what it drops only since it has staged that. `newest`: what its
/// changes are made on.
pub(crate) fn add_what_came_since(newest: &Catalog, changes: &[CatalogChange], entries: &mut Vec<AuditEntry>) {
    if !changes.iter().any(cascades) {
        return;
    }
    let mut catalog = newest.clone();
    for change in changes {
        let is = |entry: &AuditEntry, (action, target): &Described| {
            entry.action == *action && entry.target.as_deref() == Some(target.as_str())
        };
        if let Some(own) = describe(&catalog, change)
            && let Some(place) = entries.iter().rposition(|entry| is(entry, &own))
        {
            let of = entries[place].clone();
            for along in going_along(&catalog, change, &own) {
                if !entries.iter().any(|entry| is(entry, &along)) {
                    let (action, target) = along;
                    let entry = AuditEntry { action: action.to_owned(), target: Some(target), ..of.clone() };
                    entries.insert(place + 1, entry);
                }
            }
        }
        // The commit will be refused: there will be no entries.
        if catalog.apply(change).is_err() {
            return;
        }
    }
}

/// Whether more than what a change names may go.
fn cascades(change: &CatalogChange) -> bool {
    match change {
        CatalogChange::DropNamespace { cascade, .. } | CatalogChange::DropView { cascade, .. } => *cascade,
        CatalogChange::DropTable { views, .. } => *views == Readers::Drop,
        _ => false,
    }
}

/// The tables and views that go along with what a change itself names.
fn going_along(catalog: &Catalog, change: &CatalogChange, own: &Described) -> Vec<Described> {
    if !cascades(change) {
        return vec![];
    }
    // What is refused takes nothing along.
    let writes = catalog.clone().apply(change).unwrap_or_default();
    let gone = writes.into_iter().filter_map(|write| match write {
        CatalogWrite::RemoveTable(id) => Some(("DROP TABLE", of_table(catalog, id))),
        CatalogWrite::RemoveView(namespace, name) => Some(("DROP VIEW", format!("{namespace}.{name}"))),
        _ => None,
    });
    gone.filter(|gone| gone != own).collect()
}

/// `None` for what is of no interest to others.
fn describe(catalog: &Catalog, change: &CatalogChange) -> Option<Described> {
    use CatalogChange as Change;
    let of = |namespace: &str, name: &str| format!("{namespace}.{name}");
    let within = |id: TableId| catalog.table_by_id(id).map(|table| table.namespace.as_str());
    let (namespace, action, target) = match change {
        Change::CreateNamespace(record) | Change::EnsureNamespace(record) => {
            (Some(record.name.as_str()), "CREATE NAMESPACE", record.name.clone())
        }
        Change::DropNamespace { name, .. } => (Some(name.as_str()), "DROP NAMESPACE", name.clone()),
        Change::CreateTable(table) => {
            (Some(table.namespace.as_str()), "CREATE TABLE", of(&table.namespace, &table.name))
        }
        Change::DropTable { namespace, name, .. } => (Some(namespace.as_str()), "DROP TABLE", of(namespace, name)),
        Change::CreateView { view, .. } => {
            (Some(view.namespace.as_str()), "CREATE VIEW", of(&view.namespace, &view.name))
        }
        Change::DropView { namespace, name, .. } => (Some(namespace.as_str()), "DROP VIEW", of(namespace, name)),
        Change::Comment { on, .. } => {
            let namespace = match on {
                CommentOn::Table(id) | CommentOn::Column(id, _) => within(*id),
                CommentOn::Namespace(name) => Some(name.as_str()),
                CommentOn::View(namespace, _) | CommentOn::ViewColumn(namespace, ..) => Some(namespace.as_str()),
            };
            (namespace, "COMMENT", commented(catalog, on))
        }
        Change::AlterTable { table, .. } => (within(*table), ALTER_TABLE, of_table(catalog, *table)),
        Change::CreateIndex { table, index } => {
            (within(*table), "CREATE INDEX", format!("{} ON {}", index.name, of_table(catalog, *table)))
        }
        Change::DropIndex { table, name } => {
            (within(*table), "DROP INDEX", format!("{name} ON {}", of_table(catalog, *table)))
        }
        Change::CreateUser(user) => (None, "CREATE USER", format!("{} ROLE {}", user.name, user.role)),
        Change::ChangeUser(change) => match &change.to {
            UserBecomes::Password(_) => (None, "ALTER USER", format!("{} SET PASSWORD", change.name)),
            UserBecomes::Role(role) => (None, "ALTER USER", format!("{} SET ROLE {role}", change.name)),
            UserBecomes::Dropped { .. } => (None, "DROP USER", change.name.clone()),
        },
        Change::Grant { on, to, privileges, .. } => {
            (None, "GRANT", format!("{} ON {} TO {}", listed(privileges), granted(catalog, on), grantee(to)))
        }
        Change::Revoke { on, to, privileges } => {
            (None, "REVOKE", format!("{} ON {} FROM {}", listed(privileges), granted(catalog, on), grantee(to)))
        }
        Change::CreateToken(token) => (None, "CREATE TOKEN", format!("{} of {}", token.id, token.user)),
        Change::DropToken(id) => (None, "DROP TOKEN", id.clone()),
        // The storage's own, and what changes nothing.
        Change::ReserveTable { .. } | Change::ForgetDropped(_) | Change::Require(_) => return None,
    };
    namespace.is_none_or(|namespace| !is_temporary(namespace)).then_some((action, target))
}

fn of_table(catalog: &Catalog, id: TableId) -> String {
    match catalog.table_by_id(id) {
        Some(table) => format!("{}.{}", table.namespace, table.name),
        None => format!("table {}", id.0),
    }
}

fn listed(privileges: &[Privilege]) -> String {
    privileges.iter().map(|privilege| format!("{privilege:?}").to_uppercase()).collect::<Vec<_>>().join(", ")
}

fn granted(catalog: &Catalog, on: &GrantOn) -> String {
    match on {
        GrantOn::Table(id) => of_table(catalog, *id),
        GrantOn::View(namespace, name) => format!("{namespace}.{name}"),
        GrantOn::Namespace(name) => format!("NAMESPACE {name}"),
    }
}

fn grantee(to: &GrantTo) -> String {
    match to {
        GrantTo::User(name) => name.clone(),
        GrantTo::Role(role) => format!("ROLE {role}"),
    }
}

fn commented(catalog: &Catalog, on: &CommentOn) -> String {
    match on {
        CommentOn::Namespace(name) => name.clone(),
        CommentOn::Table(id) => of_table(catalog, *id),
        CommentOn::Column(id, column) => format!("column {column} of {}", of_table(catalog, *id)),
        CommentOn::View(namespace, name) => format!("{namespace}.{name}"),
        CommentOn::ViewColumn(namespace, name, column) => format!("column {column} of {namespace}.{name}"),
    }
}
