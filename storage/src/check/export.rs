//! The catalog that the object store has, for who goes on where this data directory is gone.

use super::finding::{About, Found, Invariant};
use super::opened::Opened;
use crate::catalog::Catalog;
use crate::catalog_export::compare;
use crate::error::{Result, StorageError};
use crate::paths::{self, MANIFEST_FILE};

const PLACE: &str = "object store";

pub(super) async fn check(opened: &Opened, catalog: &Catalog, found: &mut Found) -> Result<()> {
    // Without an owner nobody would know where to look.
    let Some(era) = opened.owner.as_ref().and_then(|owner| owner.owners.last()) else { return Ok(()) };
    let path = paths::catalog_file(era.from_epoch);
    let Some(exported) = opened.objects.get(&path).await? else {
        if catalog.has_users() {
            found.add(Invariant::CatalogExport, PLACE, format!("{path} is missing"));
        }
        return Ok(());
    };
    match compare(&path, &exported.bytes, catalog) {
        Ok(compared) => {
            let has_manifest =
                |prefix: &String| opened.listed_in(prefix).keys().any(|file| file.ends_with(MANIFEST_FILE));
            for prefix in compared.tables_missing.iter().filter(|prefix| has_manifest(prefix)) {
                found.add(Invariant::CatalogExport, PLACE, format!("{path} lacks the table of the folder {prefix}"));
            }
            if !compared.differing.is_empty() {
                let parts = compared.differing.join(", ");
                found.note(
                    About::Unfinished,
                    PLACE,
                    format!("{path} is not up to date: {parts}; the next start writes it"),
                );
            }
        }
        Err(newer @ StorageError::FormatVersion { .. }) => return Err(newer),
        Err(error) => found.add(Invariant::CatalogExport, PLACE, error.to_string()),
    }
    Ok(())
}
