//! The manifest of a scope: there, whole, this scope's, and what the records say.

use super::finding::{About, Found, Invariant};
use super::opened::Opened;
use super::scope::{Batches, Place};
use crate::error::Result;
use crate::manifest::{Fault, Manifest};
use crate::records::ScopeHeader;

pub(super) async fn check(opened: &Opened, place: &Place, batches: &Batches, found: &mut Found) -> Result<()> {
    let (path, header) = (place.place.manifest_path(), &batches.header);
    let name = place.name();
    let read = match opened.listed.contains_key(&path) {
        true => opened.objects.get(&path).await?,
        false => None,
    };
    let Some(read) = read else {
        match (header.exported, header.version) {
            (0, 0) => {}
            (0, _) => found.note(About::Unfinished, &name, "its first manifest is still to be written"),
            _ => found.add(Invariant::Manifest, &name, Fault::Missing.to_string()),
        }
        return Ok(());
    };
    match Manifest::parse(&read.bytes).and_then(|manifest| held_against(&manifest, opened, place, batches)) {
        Ok(None) => {}
        Ok(Some(note)) => found.note(About::Unfinished, &name, note),
        Err(fault) => found.add(Invariant::Manifest, &name, format!("manifest.json: {fault}")),
    }
    Ok(())
}

/// What is still to be done, if it is as it should be.
fn held_against(
    manifest: &Manifest,
    opened: &Opened,
    place: &Place,
    batches: &Batches,
) -> Result<Option<String>, Fault> {
    let header = &batches.header;
    manifest.check_place(&place.place)?;
    if !opened.wrote(manifest.epoch) {
        return Err(Fault::Unreadable(format!(
            "it was written by another owner of the object store, in epoch {}",
            manifest.epoch
        )));
    }
    if is_on_its_way(manifest.version, header) {
        let (shown, version) = (manifest.version, header.version);
        return Ok(Some(format!(
            "its manifest shows version {shown} of the records, and {version} is still to be written"
        )));
    }
    manifest.check_records(header.version, &batches.records)?;
    match (manifest.max_batch, manifest.flushed_to) == (header.max_batch, header.flushed_to) {
        true => Ok(None),
        false => Err(Fault::Differs),
    }
}

/// Between the commit of records and that of their export, an earlier manifest is there.
fn is_on_its_way(shown: u64, header: &ScopeHeader) -> bool {
    header.exported <= shown && shown < header.version
}
