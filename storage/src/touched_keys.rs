//! The unique keys that a commit has touched, for those that come after it.
//!
//! Keys are remembered as hashes: two keys of one hash are taken for the same, so that a commit may be refused in vain, and
//! never let through. The hashes are of this process alone.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use crate::keys::Scope;
use crate::unique::KeyWrite;

/// Keys of a commit above which all of a scope counts as touched.
const KEYS_MAX: usize = 1 << 20;

/// Makes [`TouchedKeys`] that can be compared.
#[derive(Debug, Default)]
pub(crate) struct Touching(RandomState);

/// The keys that a commit has touched.
#[derive(Debug, Default)]
pub(crate) struct TouchedKeys {
    /// Scopes with keys among the hashes.
    scopes: Vec<Scope>,
    /// Scopes of which too many were touched.
    whole: Vec<Scope>,
    hashes: HashSet<u64, BuildHasherDefault<AsItIs>>,
}

impl Touching {
    pub(crate) fn of(&self, writes: &[KeyWrite]) -> TouchedKeys {
        let mut touched = TouchedKeys::default();
        for write in writes.iter().filter(|write| !write.changes.is_empty() || write.completes) {
            if write.completes || write.changes.len() > KEYS_MAX {
                touched.whole.push(write.scope);
                continue;
            }
            touched.scopes.push(write.scope);
            let hash = |key: &[u8]| self.0.hash_one((write.scope, key));
            touched.hashes.extend(write.changes.iter().map(|(key, _)| hash(key)));
        }
        touched
    }
}

impl TouchedKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.whole.is_empty()
    }

    /// A scope of which both have touched a key.
    pub(crate) fn meets(&self, other: &Self) -> Option<Scope> {
        let is_whole = |touched: &Self, scope: &Scope| touched.whole.contains(scope);
        let any = |touched: &Self, scope: &Scope| touched.scopes.contains(scope) || is_whole(touched, scope);
        let ours = other.scopes.iter().chain(&other.whole);
        let mut shared = ours.filter(|scope| any(self, scope)).copied();
        let first = shared.next()?;
        if let Some(scope) = std::iter::once(first).chain(shared).find(|s| is_whole(self, s) || is_whole(other, s)) {
            return Some(scope);
        }
        let (few, many) = if self.hashes.len() < other.hashes.len() { (self, other) } else { (other, self) };
        few.hashes.iter().any(|hash| many.hashes.contains(hash)).then_some(first)
    }
}

/// Of a hash, itself.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_codec::KeyBytes;
    use crate::keys::{Owner, TableId};

    fn write(owner: u64, keys: std::ops::Range<u32>, completes: bool) -> KeyWrite {
        let key = |n: u32| (KeyBytes::copy_from_slice(&n.to_be_bytes()), None);
        let scope = Scope { table: TableId(1), owner: Owner(owner) };
        KeyWrite { scope, changes: keys.map(key).collect(), completes }
    }

    #[test]
    fn commits_meet_in_a_key_of_the_same_scope() {
        let touching = Touching::default();
        let meet = |a: &[KeyWrite], b: &[KeyWrite]| {
            let (a, b) = (touching.of(a), touching.of(b));
            assert_eq!(a.meets(&b), b.meets(&a));
            a.meets(&b).map(|scope| scope.owner.0)
        };
        assert_eq!(meet(&[write(1, 0..5, false)], &[write(1, 5..9, false)]), None);
        assert_eq!(meet(&[write(1, 0..6, false)], &[write(1, 5..9, false)]), Some(1));
        assert_eq!(meet(&[write(1, 0..6, false)], &[write(2, 0..6, false)]), None);
        assert_eq!(meet(&[write(1, 0..6, false)], &[write(1, 9..9, true)]), Some(1));
        assert_eq!(meet(&[write(1, 0..6, false)], &[write(2, 9..9, true)]), None);
        let many = KEYS_MAX as u32 + 1;
        assert_eq!(meet(&[write(3, 0..many, false)], &[write(3, many..many + 1, false)]), Some(3));
        assert!(touching.of(&[write(1, 0..0, false)]).is_empty());
    }
}
