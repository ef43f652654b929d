//! Where files lie below the object store's root.
//!
//! ```text
//! {namespace}/{table}[~{table_id}]/shared/batch-0001.parquet, batch-0001.bloom
//!                                  user_{name}/manifest.json
//! _seracdb/owner.json, catalog-e1.json
//! ```
//!
//! Invariants: a name is one path segment and cannot leave its prefix; two names never share a segment, also on file
//! systems that ignore letter case.

use crate::keys::{BatchNumber, TableId};
use crate::system_columns::CommitTs;

/// The folder of what belongs to no table. No namespace gets it.
pub const OWN_FOLDER: &str = "_seracdb";
/// Who owns the object store; see [`crate::ownership`].
pub const OWNER_FILE: &str = "_seracdb/owner.json";
/// Files that are being uploaded in parts.
pub const UPLOADS_FOLDER: &str = "_seracdb/uploads";

/// The longest segment that is not shortened. With `user_` in front or `~` and a number behind it stays below the 255
/// bytes that file systems allow.
const SEGMENT_MAX: usize = 120;
/// How much of a longer one stays.
const SHORTENED: usize = 80;

/// A name as one path segment: `a`–`z`, digits, `-` and `_` stay, every other byte of its UTF-8 becomes `=XX`. A long one
/// ends in `==` and 128 bits of the BLAKE3 hash of the name.
pub fn segment(name: &str) -> String {
    let encoded = encode(name);
    if encoded == OWN_FOLDER {
        return format!("=5F{}", &OWN_FOLDER[1..]);
    }
    if encoded.len() <= SEGMENT_MAX {
        return encoded;
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}=={}", &encoded[..SHORTENED], &hash[..32])
}

fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(byte as char),
            _ => out.push_str(&format!("={byte:02X}")),
        }
    }
    out
}

/// The prefix of a table that is the first of its name.
pub fn table_prefix(namespace: &str, table: &str) -> String {
    format!("{}/{}", segment(namespace), segment(table))
}

/// The prefix of a table when `prefix` was used before.
pub fn prefix_again(prefix: &str, id: TableId) -> String {
    format!("{prefix}~{}", id.0)
}

/// The folder of a scope: the shared one, or that of the user of this name.
pub fn scope_prefix(table_prefix: &str, user: Option<&str>) -> String {
    match user {
        None => format!("{table_prefix}/{SHARED_FOLDER}"),
        Some(user) => format!("{table_prefix}/{}", user_folder(user)),
    }
}

/// The folder of the shared scope within its table's.
pub const SHARED_FOLDER: &str = "shared";

/// The folder of a user's scope within its table's.
pub fn user_folder(user: &str) -> String {
    format!("user_{}", segment(user))
}

/// The tables and users of the owner from this epoch on; see `catalog_export.rs`.
pub fn catalog_file(from_epoch: u64) -> String {
    format!("{OWN_FOLDER}/catalog-e{from_epoch}.json")
}

/// A batch file's name within its scope's folder. `epoch`: after a take-over, see
/// [`crate::objects::Objects::name_epoch`], so that it is no name that the owner before may still give out.
pub fn batch_file(number: BatchNumber, epoch: Option<u64>) -> String {
    format!("{}.parquet", batch_stem(number, epoch))
}

fn batch_stem(number: BatchNumber, epoch: Option<u64>) -> String {
    match epoch {
        None => format!("batch-{:04}", number.0),
        Some(epoch) => format!("batch-{:04}-e{epoch}", number.0),
    }
}

/// The name of a batch's delete vector that considers every commit up to `as_of`; `epoch` of who writes it, as in
/// [`batch_file`].
pub fn vector_file(number: BatchNumber, as_of: CommitTs, epoch: Option<u64>) -> String {
    format!("{}.deletes-{}", batch_stem(number, epoch), as_of.get())
}

/// The name of a batch file's Bloom filters within its scope's folder; `epoch` as in [`batch_file`].
pub fn bloom_file(number: BatchNumber, epoch: Option<u64>) -> String {
    format!("{}.bloom", batch_stem(number, epoch))
}

/// The proof that a bulk file was committed; see `bulk/proof.rs`.
pub fn proof_of(batch_file: &str) -> String {
    format!("{}.committed", stem_of(batch_file))
}

/// The path of a batch file, or of what lies beside it, without what follows the number: folders have no dots.
pub fn stem_of(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

/// The number in the name of a batch file, of its Bloom filters or of its delete vector; `None` when it is no such name.
pub fn number_of_batch_name(name: &str) -> Option<BatchNumber> {
    epoch_of_batch_name(name)?;
    let digits = name.strip_prefix("batch-")?.split(['-', '.']).next()?;
    digits.parse().ok().map(BatchNumber)
}

/// The epoch in the name of a batch file, of its Bloom filters or of its delete vector; `None` when it is no such name.
pub fn epoch_of_batch_name(name: &str) -> Option<Option<u64>> {
    let (stem, kind) = name.strip_prefix("batch-")?.split_once('.')?;
    let is_known = matches!(kind, "parquet" | "bloom" | "committed") || kind.starts_with("deletes-");
    let (number, epoch) = match stem.split_once("-e") {
        Some((number, epoch)) => (number, Some(epoch.parse().ok()?)),
        None => (stem, None),
    };
    (is_known && number.parse::<u64>().is_ok()).then_some(epoch)
}

/// Whether this is the name of a file that is being written and gets its own name when it is whole.
pub fn is_temporary(name: &str) -> bool {
    let unnamed = name.strip_suffix(".tmp").and_then(|name| name.rsplit_once('.'));
    unnamed.is_some_and(|(_, id)| uuid::Uuid::try_parse(id).is_ok())
}

/// The manifest's name within its scope's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_plainly() {
        assert_eq!(table_prefix("app", "flights"), "app/flights");
        assert_eq!(prefix_again("app/flights", TableId(12)), "app/flights~12");
        assert_eq!(scope_prefix("app/t", None), "app/t/shared");
        assert_eq!(scope_prefix("app/t", Some("Zoë")), "app/t/user_=5Ao=C3=AB");
        assert_eq!(batch_file(BatchNumber(7), None), "batch-0007.parquet");
        assert_eq!(batch_file(BatchNumber(12345), None), "batch-12345.parquet");
        assert_eq!(batch_file(BatchNumber(7), Some(2)), "batch-0007-e2.parquet");
        assert_eq!(bloom_file(BatchNumber(7), None), "batch-0007.bloom");
        assert_eq!(bloom_file(BatchNumber(7), Some(2)), "batch-0007-e2.bloom");
        assert_eq!(epoch_of_batch_name(&bloom_file(BatchNumber(7), Some(2))), Some(Some(2)));
        assert_eq!(proof_of("a=2Eb/t/shared/batch-0007-e2.parquet"), "a=2Eb/t/shared/batch-0007-e2.committed");
        assert_eq!(epoch_of_batch_name("batch-0007-e2.committed"), Some(Some(2)));
        assert_eq!(epoch_of_batch_name(&vector_file(BatchNumber(7), CommitTs::stored(-3), None)), Some(None));
        assert_eq!(number_of_batch_name("batch-0012-e3.bloom"), Some(BatchNumber(12)));
        assert_eq!(["manifest.json", "batch-x.parquet", "batch-1-ex.parquet"].map(epoch_of_batch_name), [None; 3]);
        assert!(is_temporary("manifest.0b0c9b5e-3f0e-4b7e-8a53-0d9f54f0a7c1.tmp"));
        assert!(!["manifest.json", "a.tmp", "batch-0001.parquet.tmp"].into_iter().any(is_temporary));
        assert_eq!(segment("_seracdb"), "=5Fseracdb");
        assert_eq!(segment("../x"), "=2E=2E=2Fx");
        let long = segment(&"Ä".repeat(60));
        assert_eq!((long.len(), &long[..12]), (114, "=C3=84=C3=84"));
        assert_ne!(long, segment(&"Ä".repeat(61)));
    }

    proptest! {
        #[test]
        fn names_neither_escape_nor_collide(a in ".*", b in ".*") {
            let (left, right) = (segment(&a), segment(&b));
            prop_assert!(!left.contains(['/', '.', '~', '\\']));
            prop_assert_eq!(left.eq_ignore_ascii_case(&right), a == b);
        }
    }
}
