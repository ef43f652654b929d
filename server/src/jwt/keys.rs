//! The file of public keys (JWKS): read, and read again when it has changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// What tells a key from others: the hash of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct KeyId([u8; 32]);

/// A file of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("setting 'auth.jwks_file': {}: {why}", file.display())]
pub struct KeysError {
    file: PathBuf,
    why: String,
}

/// Which state of the file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(Option<Stamp>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// Another one in the same place is another, whatever its age.
    file: [u64; 2],
    size: u64,
    modified: [i64; 2],
    /// Nobody sets this one, as they may set that.
    changed: [i64; 2],
}

impl Version {
    /// As it is now.
    pub(super) fn of(file: &Path) -> Self {
        Self(std::fs::metadata(file).ok().map(|known| Stamp {
            file: [known.dev(), known.ino()],
            size: known.size(),
            modified: [known.mtime(), known.mtime_nsec()],
            changed: [known.ctime(), known.ctime_nsec()],
        }))
    }
}

/// The keys of a file that are for signatures and that this build knows.
#[derive(Debug)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: KeyId,
    name: Option<String>,
    /// The algorithms that it is for.
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl Keys {
    /// Reads the file.
    pub(super) fn read(file: &Path) -> Result<Self, KeysError> {
        let failed = |why: String| KeysError { file: file.to_owned(), why };
        let text = std::fs::read(file).map_err(|error| failed(format!("cannot be read: {error}")))?;
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(text).map_err(|error| format!("is no JWKS: {error}"))?;
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::of).collect();
        match keys.is_empty() {
            true => Err("has no public key for signatures: RSA, P-256, P-384 or Ed25519".to_owned()),
            false => Ok(Self(keys)),
        }
    }

    /// The keys that a token of this header can be signed with.
    pub(super) fn fitting<'a>(&'a self, name: Option<&'a str>, algorithm: Algorithm) -> impl Iterator<Item = &'a Key> {
        let is_it = move |key: &&Key| name.is_none_or(|name| key.name.as_deref() == Some(name));
        self.0.iter().filter(move |key| key.algorithms.contains(&algorithm)).filter(is_it)
    }

    pub(super) fn has(&self, id: &KeyId) -> bool {
        self.0.iter().any(|key| key.id == *id)
    }
}

impl Key {
    /// `None` when it is for something else, secret, or of a kind that is not known.
    fn of(jwk: &Jwk) -> Option<Self> {
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_))) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => {
                use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
                vec![RS256, RS384, RS512, PS256, PS384, PS512]
            }
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => return None,
        };
        if let Some(only) = &jwk.common.key_algorithm {
            let only = only.to_string();
            algorithms.retain(|algorithm| format!("{algorithm:?}") == only);
        }
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        let json = serde_json::to_vec(jwk).ok()?;
        let id = KeyId(*blake3::hash(&json).as_bytes());
        (!algorithms.is_empty()).then_some(Self { id, name: jwk.common.key_id.clone(), algorithms, decoding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}"#;
    const EC: &str = r#"{"kty":"EC","kid":"b","crv":"P-256","x":"AQAB","y":"AQAB"}"#;

    fn keys(keys: &[&str]) -> Result<Keys, String> {
        Keys::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    fn count(keys: &Keys, name: Option<&str>, algorithm: Algorithm) -> usize {
        keys.fitting(name, algorithm).count()
    }

    #[test]
    fn a_key_is_for_its_own_algorithms() {
        let keys = keys(&[RSA, EC]).unwrap();
        assert_eq!(count(&keys, None, Algorithm::RS256), 1);
        assert_eq!(count(&keys, None, Algorithm::PS384), 1);
        assert_eq!(count(&keys, None, Algorithm::ES256), 1);
        assert_eq!(count(&keys, None, Algorithm::ES384), 0);
        assert_eq!(count(&keys, None, Algorithm::HS256), 0);
        assert_eq!(count(&keys, Some("a"), Algorithm::RS256), 1);
        assert_eq!(count(&keys, Some("b"), Algorithm::RS256), 0);
        assert_eq!(count(&keys, Some("c"), Algorithm::ES256), 0);
    }

    #[test]
    fn a_key_may_say_its_one_algorithm() {
        let one = keys(&[&RSA.replace("\"n\"", "\"alg\":\"PS256\",\"n\"")]).unwrap();
        assert_eq!(count(&one, None, Algorithm::PS256), 1);
        assert_eq!(count(&one, None, Algorithm::RS256), 0);
    }

    #[test]
    fn secret_keys_and_those_for_something_else_are_left_out() {
        let symmetric = r#"{"kty":"oct","kid":"s","k":"AQAB"}"#;
        let encryption = RSA.replace("\"n\"", "\"use\":\"enc\",\"n\"");
        assert!(keys(&[symmetric]).is_err());
        assert!(keys(&[&encryption]).is_err());
        let rest = keys(&[symmetric, &encryption, EC]).unwrap();
        assert_eq!(rest.0.len(), 1);
        assert_eq!(count(&rest, Some("s"), Algorithm::HS256), 0);
        assert!(Keys::parse(b"{").is_err());
    }
}
