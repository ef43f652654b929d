//! A scope as RocksDB has it: header, records and delete log, as far as they can be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::finding::{Faults, Found, Invariant};
use super::opened::{Highest, Opened};
use super::{Progress, files, listing, manifest, records, rows, unique, visible};
use crate::catalog::{Catalog, TableKind, TableRecord};
use crate::delete_log::{self, MaskedRow};
use crate::error::Result;
use crate::keys::{BatchNumber, Owner, Scope, batch_key, decode_delete_log_key, header_key};
use crate::records::{BatchRecord, ScopeHeader};
use crate::rocks::{Family, RocksSnapshot};
use crate::scope_place::ScopePlace;

/// A scope, and what belongs to it is held against.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) table: Arc<TableRecord>,
    pub(super) place: ScopePlace,
    pub(super) highest: Highest,
}

impl Place {
    /// What findings call it.
    pub(super) fn name(&self) -> String {
        let ScopePlace { namespace, table, .. } = &self.place;
        match &self.place.user {
            Some(user) => format!("{namespace}.{table} (user {user})"),
            None => format!("{namespace}.{table} (shared)"),
        }
    }
}

/// What RocksDB says of a scope's files.
#[derive(Debug, Default)]
pub(super) struct Batches {
    pub(super) header: ScopeHeader,
    pub(super) records: Vec<BatchRecord>,
    /// The delete log by file.
    pub(super) log: BTreeMap<BatchNumber, Vec<MaskedRow>>,
}

impl Batches {
    /// The positions that queries leave out of a file.
    pub(super) fn mask(&self, file: BatchNumber) -> RoaringBitmap {
        self.log.get(&file).into_iter().flatten().map(|row| row.position).collect()
    }

    pub(super) fn record(&self, number: BatchNumber) -> Option<&BatchRecord> {
        self.records.iter().find(|record| record.batch_number == number)
    }
}

/// Checks a scope that RocksDB has keys of. Gives the folder whose files it has looked at.
pub(super) async fn check(
    opened: &Opened,
    catalog: &Catalog,
    scope: Scope,
    progress: &Progress,
    found: &mut Found,
) -> Result<Option<String>> {
    let Some(table) = catalog.table_by_id(scope.table) else {
        // A dropped table's rows and records go with its files.
        if !catalog.dropped().any(|dropped| dropped.id == scope.table) {
            let what = format!("there are rows or records of table {}, which the catalog does not have", scope.table.0);
            found.add(Invariant::Tables, "RocksDB", what);
        }
        return Ok(None);
    };
    let place = match place_of(catalog, table, scope, opened.highest) {
        Ok(place) => place,
        Err(what) => {
            found.add(Invariant::Owners, &format!("{}.{}", table.namespace, table.name), what);
            return Ok(None);
        }
    };
    let (name, mut faults) = (place.name(), Faults::default());
    let batches = read_batches(&opened.rocks, scope, place.highest, &mut faults)?;
    let is_sound = faults.0.is_empty();
    found.add_all(&name, faults);
    found.add_all(&name, records::check_header(&batches.header, place.highest));
    let hot = rows::check(&opened.rocks, &place, &batches.header, progress)?;
    found.add_all(&name, hot.faults);
    let folder = place.place.prefix.clone();
    if batches.header.recovering {
        found.note(
            super::About::Unfinished,
            &name,
            "its records are lost, and are recovered from its files when it is used",
        );
        return Ok(Some(folder));
    }
    found.add_all(&name, records::check_records(&batches.header, &batches.records, &place, place.highest));
    manifest::check(opened, &place, &batches, found).await?;
    listing::check(opened, &place, &batches, found);
    let hasher = unique::Hasher::of(&place);
    let files = files::check(opened, &place, &batches, &hasher, progress).await?;
    found.add_all(&name, files.faults);
    // Where something cannot be read, nothing follows from what is missing.
    if let (Some(mut files), Some(hot), true) = (files.all, hot.newest, is_sound) {
        if batches.header.keys_lost {
            found.note(
                super::About::Unfinished,
                &name,
                "its unique keys are lost, and are made again when it is written to",
            );
        } else {
            let with_hashes = |(number, versions): (&BatchNumber, &Arc<_>)| {
                (*number, (Arc::clone(versions), files.hashes.remove(number).unwrap_or_default()))
            };
            let of_files = files.versions.iter().map(with_hashes).collect();
            found.add_all(&name, unique::check(&opened.rocks, &place, &batches, &of_files, &hasher)?);
        }
        found.add_all(&name, visible::check_log(&batches, &files.versions));
        found.add_all(&name, visible::check(&batches, files, hot).await?);
    }
    Ok(Some(folder))
}

fn place_of(catalog: &Catalog, table: &Arc<TableRecord>, scope: Scope, highest: Highest) -> Result<Place, String> {
    let is_shared = table.kind == TableKind::Shared;
    match (is_shared, scope.owner == Owner::SHARED) {
        (true, false) => return Err(format!("rows of user {} are in a shared table", scope.owner.0)),
        (false, true) => return Err("rows of nobody are in a table that keeps each user's apart".to_owned()),
        _ => {}
    }
    let place = ScopePlace::of_table(catalog, table, scope).map_err(|error| error.to_string())?;
    Ok(Place { table: Arc::clone(table), place, highest })
}

fn read_batches(rocks: &RocksSnapshot, scope: Scope, highest: Highest, faults: &mut Faults) -> Result<Batches> {
    let mut batches = Batches::default();
    let prefix = scope.encode();
    rocks.scan(Family::Batches, &prefix, &prefix, |key, json| {
        if key == header_key(scope) {
            match serde_json::from_slice(json) {
                Ok(header) => batches.header = header,
                Err(error) => faults.add(Invariant::Readable, format!("the header: {error}")),
            }
            return Ok(());
        }
        match serde_json::from_slice::<BatchRecord>(json) {
            Ok(record) => {
                faults.expect(key == batch_key(scope, record.batch_number), Invariant::Records, || {
                    format!("the record of batch {} is in the place of another", record.batch_number)
                });
                batches.records.push(record);
            }
            Err(error) => faults.add(Invariant::Readable, format!("a batch record: {error}")),
        }
        Ok(())
    })?;
    rocks.scan(Family::DeleteLog, &prefix, &prefix, |key, entry| {
        let Some((at, file)) = decode_delete_log_key(key) else {
            faults.add(Invariant::Readable, "a key of the delete log has another length");
            return Ok(());
        };
        faults.expect(at <= highest.updated, Invariant::Timestamps, || {
            format!("the delete log of batch {file} has an entry of a later time than the last commit")
        });
        match delete_log::decode(entry) {
            Ok(rows) => {
                faults.expect(rows.iter().all(|row| row.superseded_by <= at), Invariant::DeleteLog, || {
                    format!("an entry of batch {file} is about a later commit than the one that wrote it")
                });
                batches.log.entry(file).or_default().extend(rows);
            }
            Err(error) => faults.add(Invariant::Readable, format!("of batch {file}: {error}")),
        }
        Ok(())
    })?;
    Ok(batches)
}
