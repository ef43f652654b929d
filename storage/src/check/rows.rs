//! The hot rows of a scope: they can be read, and are where and as old as they may be.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Faults, Invariant, Progress};
use super::scope::Place;
use crate::error::Result;
use crate::hot::{HotCursor, Versions as HotVersions};
use crate::keys::{Generation, RowKey};
use crate::records::ScopeHeader;
use crate::recovery::resolve::Versions;
use crate::rocks::{Family, RocksSnapshot};
use crate::row_codec::{RowLayout, decode_rows, peek};
use crate::system_columns::tick_of;

/// Rows that are decoded at once.
const DECODED_AT_ONCE: usize = 1024;
/// Rows that are read at once.
pub(super) const CHUNK_ROWS: usize = 8192;

/// What was found of the hot rows.
pub(super) struct Hot {
    /// The newest version of each row, by id; `None` when rows cannot be read.
    pub(super) newest: Option<Versions>,
    pub(super) faults: Faults,
}

pub(super) fn check(rocks: &RocksSnapshot, place: &Place, header: &ScopeHeader, progress: &Progress) -> Result<Hot> {
    let visible = header.visible_generations();
    let mut rows = Rows::new(place, header, &visible);
    let prefix = place.place.scope.encode();
    rocks.scan(Family::Rows, &prefix, &prefix, |key, value| {
        rows.add(key, value);
        Progress::add(&progress.hot_rows, 1);
        Ok(())
    })?;
    let (faults, is_readable) = rows.end();
    let newest = if is_readable { Some(newest(rocks, place, visible)?) } else { None };
    Ok(Hot { newest, faults })
}

/// The newest version of each row in these generations, tombstones included.
fn newest(rocks: &RocksSnapshot, place: &Place, generations: Vec<Generation>) -> Result<Versions> {
    let mut newest = Versions::default();
    let mut cursor = HotCursor::new(place.place.scope, generations, HotVersions::All);
    while let Some(chunk) = cursor.next_chunk(rocks, CHUNK_ROWS)? {
        for ((id, updated), deleted) in chunk.ids.iter().zip(&chunk.updated).zip(&chunk.deleted) {
            // The first of a row is its newest.
            if newest.ids.last() != Some(id) {
                newest.ids.push(*id);
                newest.updated.push(*updated);
                newest.deleted.push(*deleted);
            }
        }
    }
    Ok(newest)
}

/// The hot rows, as they come.
struct Rows<'a> {
    place: &'a Place,
    header: &'a ScopeHeader,
    visible: &'a [Generation],
    layouts: BTreeMap<u32, Option<RowLayout>>,
    /// Values to be decoded, by schema version.
    waiting: BTreeMap<u32, Vec<Vec<u8>>>,
    wrong: BTreeSet<(Invariant, String)>,
    is_readable: bool,
}

impl<'a> Rows<'a> {
    fn new(place: &'a Place, header: &'a ScopeHeader, visible: &'a [Generation]) -> Self {
        let layout = |schema: &crate::schema::TableSchema| {
            (schema.version, RowLayout::new(schema.version, &schema.user_fields().into()).ok())
        };
        let layouts = place.table.schemas.iter().map(layout).collect();
        let (waiting, wrong) = Default::default();
        Self { place, header, visible, layouts, waiting, wrong, is_readable: true }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        let Some(key) = RowKey::decode(key) else {
            return self.unreadable("the key of a row has another length".to_owned());
        };
        self.check_key(&key);
        let head = match peek(value) {
            Ok(head) => head,
            Err(error) => return self.unreadable(format!("row {}: {error}", key.id)),
        };
        if !self.layouts.contains_key(&head.schema_version) {
            let version = head.schema_version;
            return self
                .unreadable(format!("row {} has columns of version {version}, which the table never had", key.id));
        }
        if head.tombstone {
            return;
        }
        let waiting = self.waiting.entry(head.schema_version).or_default();
        waiting.push(value.to_vec());
        if waiting.len() == DECODED_AT_ONCE {
            let values = std::mem::take(waiting);
            self.decode(head.schema_version, &values);
        }
    }

    fn check_key(&mut self, key: &RowKey) {
        let (highest, flushed_to) = (self.place.highest, self.header.flushed_to);
        let is_visible = self.visible.contains(&key.generation);
        let mut expect = |holds: bool, invariant: Invariant, what: &str| {
            if !holds {
                self.wrong.insert((invariant, what.to_owned()));
            }
        };
        let is_known = is_visible || self.header.draining.contains(&key.generation);
        expect(is_known, Invariant::Records, "there are hot rows of a generation that the header does not know");
        expect(
            key.updated <= highest.updated,
            Invariant::Timestamps,
            "a hot row is of a later time than the last commit",
        );
        let is_newer = !is_visible || key.updated > flushed_to;
        expect(is_newer, Invariant::Timestamps, "a hot row is not newer than what is flushed");
        let is_given_out = tick_of(key.id) <= highest.id_tick;
        expect(is_given_out, Invariant::Ids, "a hot row has an id above the highest one that was given out");
    }

    fn decode(&mut self, version: u32, values: &[Vec<u8>]) {
        let Some(Some(layout)) = self.layouts.get(&version) else {
            return self.unreadable(format!("version {version} of the table's columns cannot be stored"));
        };
        let all: Vec<usize> = (0..layout.column_count()).collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        match decode_rows(layout, &values, &all) {
            Ok(columns) => {
                let schema = self.place.table.schema_of(version);
                let fields = schema.into_iter().flat_map(|schema| &schema.columns);
                for (field, values) in fields.zip(&columns).filter(|(field, _)| !field.nullable) {
                    if values.null_count() > 0 {
                        let what = format!("column '{}' of a hot row is NULL where it may not be", field.name);
                        self.wrong.insert((Invariant::Rows, what));
                    }
                }
            }
            Err(error) => self.unreadable(format!("hot rows: {error}")),
        }
    }

    fn unreadable(&mut self, what: String) {
        self.is_readable = false;
        self.wrong.insert((Invariant::Readable, what));
    }

    fn end(mut self) -> (Faults, bool) {
        for (version, values) in std::mem::take(&mut self.waiting) {
            self.decode(version, &values);
        }
        (Faults(self.wrong.into_iter().collect()), self.is_readable)
    }
}
