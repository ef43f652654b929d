//! Reading row versions from the hot tier.
//!
//! Versions come in order of (`_id`, newest first), merged over a scope's generations: a later commit never writes to
//! an earlier generation, so that the order of keys is the order of versions.
//!
//! Reading goes in chunks. A [`HotCursor`] holds only where to go on, so that nothing borrows the snapshot between two
//! chunks.

use std::ops::RangeInclusive;

use arrow::array::ArrayRef;
use rocksdb::DBRawIterator;

use crate::error::{Result, StorageError};
use crate::evolution::RowReader;
use crate::keys::{Generation, RowKey, Scope, after_prefix, generation_prefix, id_bytes, row_prefix};
use crate::rocks::{Family, RocksSnapshot};
use crate::row_codec;
use crate::system_columns::{CommitTs, RowId};

/// Which versions of a row are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// The newest of each row; rows whose newest version is a tombstone are left out.
    Live,
    /// All, tombstones included.
    All,
}

/// Where a read of hot rows stands.
#[derive(Debug, Clone)]
pub struct HotCursor {
    scope: Scope,
    generations: Vec<Generation>,
    versions: Versions,
    /// Versions of commits before this are left out: they have expired.
    not_before: Option<CommitTs>,
    /// Newer versions than this are passed over.
    not_after: Option<CommitTs>,
    last_id: i64,
    /// `_id` and version part of the next key; `None` at the end.
    next: Option<Vec<u8>>,
}

impl HotCursor {
    /// Starts at the first row of these generations.
    pub fn new(scope: Scope, generations: Vec<Generation>, versions: Versions) -> Self {
        Self {
            scope,
            generations,
            versions,
            not_before: None,
            not_after: None,
            last_id: i64::MAX,
            next: Some(Vec::new()),
        }
    }

    /// Leaves out rows whose newest version is older than this.
    pub fn not_before(mut self, oldest: CommitTs) -> Self {
        self.not_before = Some(oldest);
        self
    }

    /// Reads rows as they were after the last commit up to this one.
    pub fn not_after(mut self, newest: CommitTs) -> Self {
        self.not_after = Some(newest);
        self
    }

    /// Reads only rows with these ids.
    pub fn within(mut self, ids: RangeInclusive<i64>) -> Self {
        self.last_id = *ids.end();
        self.next = (!ids.is_empty()).then(|| id_bytes(RowId::stored(*ids.start())).to_vec());
        self
    }

    /// The next at most `rows_max` versions; `None` at the end.
    pub(crate) fn next_chunk(&mut self, snapshot: &RocksSnapshot, rows_max: usize) -> Result<Option<HotChunk>> {
        let Some(from) = self.next.take() else { return Ok(None) };
        let mut merge = Merge::seek(snapshot, self.scope, &self.generations, &from);
        let mut chunk = HotChunk::default();
        while let Some((source, key)) = merge.peek()? {
            if key.id.get() > self.last_id {
                break;
            }
            if chunk.len() == rows_max || chunk.is_full() {
                self.next = Some(key.encode()[KEY_TAIL..].to_vec());
                break;
            }
            if self.not_after.is_some_and(|newest| key.updated > newest) {
                merge.advance(source);
                continue;
            }
            match self.versions {
                Versions::All => {
                    chunk.push(&key, merge.value(source))?;
                    merge.advance(source);
                }
                Versions::Live => {
                    if self.not_before.is_none_or(|oldest| key.updated >= oldest) {
                        chunk.push_live(&key, merge.value(source))?;
                    }
                    if key.id.get() == self.last_id {
                        // Its other versions need not be passed over.
                        break;
                    }
                    merge.advance_past(key.id);
                }
            }
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

/// Bytes after which a chunk is full, however few its rows: large values must not add up to more than an array holds.
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// Where `_id` and version start in a row key.
const KEY_TAIL: usize = 16;

/// Row versions as they were read, undecoded.
#[derive(Debug, Default)]
pub struct HotChunk {
    /// `_id` of each.
    pub ids: Vec<i64>,
    /// `_updated` of each.
    pub updated: Vec<i64>,
    /// Whether each is a tombstone.
    pub deleted: Vec<bool>,
    /// The generation each was found in.
    pub generations: Vec<u32>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl HotChunk {
    /// Number of versions.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Bytes that it takes in memory, about.
    pub fn size_bytes(&self) -> usize {
        // Of a row: id, version, generation, tombstone, end.
        const ROW_BYTES: usize = 8 + 8 + 4 + 1 + 8;
        self.bytes.len() + self.len() * ROW_BYTES
    }

    /// Whether it holds as many bytes as a chunk may.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES_MAX
    }

    /// Adds a row that is not committed: its `updated` and `generations` mean nothing.
    pub fn push_uncommitted(&mut self, id: i64, value: &[u8]) {
        self.ids.push(id);
        self.updated.push(0);
        self.deleted.push(false);
        self.generations.push(0);
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    /// The columns of the reader's table at these places.
    pub fn decode(&self, reader: &RowReader, projection: &[usize]) -> Result<Vec<ArrayRef>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let values: Vec<&[u8]> = starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end]).collect();
        reader.decode(&values, projection)
    }

    /// The versions that `keep` marks.
    pub fn filter(&self, keep: &[bool]) -> Self {
        let mut kept = Self::default();
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        for (i, (start, &end)) in starts.zip(&self.ends).enumerate().filter(|(i, _)| keep[*i]) {
            kept.ids.push(self.ids[i]);
            kept.updated.push(self.updated[i]);
            kept.deleted.push(self.deleted[i]);
            kept.generations.push(self.generations[i]);
            kept.bytes.extend_from_slice(&self.bytes[start..end]);
            kept.ends.push(kept.bytes.len());
        }
        kept
    }

    fn push(&mut self, key: &RowKey, value: &[u8]) -> Result<()> {
        self.push_with(row_codec::peek(value)?.tombstone, key, value);
        Ok(())
    }

    fn push_live(&mut self, key: &RowKey, value: &[u8]) -> Result<()> {
        if !row_codec::peek(value)?.tombstone {
            self.push_with(false, key, value);
        }
        Ok(())
    }

    fn push_with(&mut self, tombstone: bool, key: &RowKey, value: &[u8]) {
        self.ids.push(key.id.get());
        self.updated.push(key.updated.get());
        self.deleted.push(tombstone);
        self.generations.push(key.generation.0);
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }
}

/// Merges the generations of a scope by `_id` and version.
struct Merge<'a> {
    scope: Scope,
    sources: Vec<(Generation, DBRawIterator<'a>)>,
}

impl<'a> Merge<'a> {
    fn seek(snapshot: &'a RocksSnapshot, scope: Scope, generations: &[Generation], from: &[u8]) -> Self {
        let sources = generations
            .iter()
            .map(|&generation| {
                let mut start = generation_prefix(scope, generation).to_vec();
                let mut iterator = snapshot.iterate(Family::Rows, after_prefix(&start));
                start.extend_from_slice(from);
                iterator.seek(&start);
                (generation, iterator)
            })
            .collect();
        Self { scope, sources }
    }

    /// The next version, and the source that stands on it.
    fn peek(&self) -> Result<Option<(usize, RowKey)>> {
        let mut least: Option<(usize, &[u8])> = None;
        for (i, (_, iterator)) in self.sources.iter().enumerate() {
            match iterator.key() {
                Some(key) if key.len() > KEY_TAIL => {
                    if least.is_none_or(|(_, other)| key[KEY_TAIL..] < other[KEY_TAIL..]) {
                        least = Some((i, key));
                    }
                }
                Some(_) => return Err(StorageError::Damaged("a row key is too short".into())),
                None => iterator.status()?,
            }
        }
        least
            .map(|(i, key)| {
                let key = RowKey::decode(key).ok_or_else(|| StorageError::Damaged("a row key is damaged".into()))?;
                Ok((i, key))
            })
            .transpose()
    }

    fn value(&self, source: usize) -> &[u8] {
        self.sources[source].1.value().unwrap_or_default()
    }

    fn advance(&mut self, source: usize) {
        self.sources[source].1.next();
    }

    /// Goes past every version of `id`, in all generations.
    fn advance_past(&mut self, id: RowId) {
        // Most rows have few versions: some steps are cheaper than a seek.
        const STEPS_BEFORE_SEEK: usize = 8;
        let bytes = id_bytes(id);
        let is_of_row = |key: &[u8]| key.get(KEY_TAIL..KEY_TAIL + bytes.len()) == Some(&bytes);
        for (generation, iterator) in &mut self.sources {
            let mut steps = 0;
            while iterator.key().is_some_and(is_of_row) {
                if steps < STEPS_BEFORE_SEEK {
                    iterator.next();
                } else if let Some(end) = after_prefix(&row_prefix(self.scope, *generation, id)) {
                    iterator.seek(end);
                } else {
                    break;
                }
                steps += 1;
            }
        }
    }
}
