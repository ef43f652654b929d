//! The cookie by which a client that sends user and password with each call can have a session.
//!
//! A call without one is handed one. Most clients never send it back, so nothing is kept for it: it proves by itself that it
//! was made here, for this user and not long ago, and its session is opened when it first comes back. It says which session a
//! call is of and never who is calling: the password is checked all the same. Whatever else a cookie says is ignored.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tonic::metadata::MetadataMap;

use crate::sessions::TokenKey;

const NAME: &str = "seracdb-session";
/// What keeps the secrets of cookies and of tokens apart.
const SECRET_CONTEXT: &str = "SeracDB 2026 session cookies";

const RANDOM_LEN: usize = 16;
const MADE_LEN: usize = 8;
const PROOF_LEN: usize = 32;
const COOKIE_LEN: usize = RANDOM_LEN + MADE_LEN + PROOF_LEN;

/// Makes cookies and knows them again.
pub(crate) struct Cookies {
    secret: [u8; 32],
    started: Instant,
    /// How long after it was made one may come back for the first time.
    opens_for: Duration,
}

/// A cookie of ours, and of the user that sends it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cookie {
    /// The key of its session.
    pub(crate) key: TokenKey,
    /// Whether it may still open its session. One whose session has ended may not.
    pub(crate) opens: bool,
}

impl Cookies {
    /// `opens_for`: as long as a session may be idle, so that a cookie is too old when its session has ended.
    pub(crate) fn new(secret: &[u8; 32], started: Instant, opens_for: Duration) -> Self {
        Self { secret: blake3::derive_key(SECRET_CONTEXT, secret), started, opens_for }
    }

    /// A new cookie for the user of this number: the key of its session, and the header that hands it out.
    pub(crate) fn make(&self, random: [u8; 32], user: u64, now: Instant) -> (TokenKey, String) {
        let mut cookie = random[..RANDOM_LEN].to_vec();
        cookie.extend(now.saturating_duration_since(self.started).as_secs().to_le_bytes());
        cookie.extend(self.proof(&cookie, user).as_bytes());
        let value = BASE64_URL_SAFE_NO_PAD.encode(&cookie);
        (self.key(&cookie), format!("{NAME}={value}; Path=/; HttpOnly; SameSite=Strict"))
    }

    /// The cookies of a call that were made for its user.
    pub(crate) fn of_call(&self, metadata: &MetadataMap, user: u64, now: Instant) -> Vec<Cookie> {
        let headers = metadata.get_all("cookie").into_iter().filter_map(|header| header.to_str().ok());
        let pairs = headers.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let values = pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value.trim_matches('"'));
        values.filter_map(|value| self.read(value, user, now)).collect()
    }

    fn read(&self, value: &str, user: u64, now: Instant) -> Option<Cookie> {
        let cookie: [u8; COOKIE_LEN] = BASE64_URL_SAFE_NO_PAD.decode(value).ok()?.try_into().ok()?;
        let (said, proof) = cookie.split_last_chunk::<PROOF_LEN>()?;
        // Compared in constant time.
        if self.proof(said, user) != *proof {
            return None;
        }
        let made = Duration::from_secs(u64::from_le_bytes(*said.last_chunk::<MADE_LEN>()?));
        let age = now.saturating_duration_since(self.started).saturating_sub(made);
        Some(Cookie { key: self.key(&cookie), opens: age <= self.opens_for })
    }

    fn proof(&self, said: &[u8], user: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(said).update(&user.to_le_bytes()).finalize()
    }

    /// No token has this key: they are hashed with another secret.
    fn key(&self, cookie: &[u8]) -> TokenKey {
        *blake3::keyed_hash(&self.secret, cookie).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn sent(cookie: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.append("cookie", cookie.parse().unwrap());
        metadata
    }

    fn value(header: &str) -> &str {
        header.split(';').next().unwrap()
    }

    #[test]
    fn a_cookie_is_its_users_and_opens_for_a_while() {
        let start = Instant::now();
        let cookies = Cookies::new(&[1; 32], start, IDLE);
        let (key, header) = cookies.make([7; 32], 5, start + IDLE);
        assert!(header.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{header}");
        let metadata = sent(value(&header));
        assert_eq!(cookies.of_call(&metadata, 5, start + 2 * IDLE), [Cookie { key, opens: true }]);
        let late = start + 2 * IDLE + Duration::from_secs(1);
        assert_eq!(cookies.of_call(&metadata, 5, late), [Cookie { key, opens: false }]);
        assert_eq!(cookies.of_call(&metadata, 6, start + IDLE), [], "another user's");
        assert_ne!(cookies.make([8; 32], 5, start + IDLE).0, key);
        let other = Cookies::new(&[2; 32], start, IDLE);
        assert_eq!(other.of_call(&metadata, 5, start + IDLE), [], "of a process before");
    }

    #[test]
    fn whatever_else_is_in_a_cookie_is_ignored() {
        let start = Instant::now();
        let cookies = Cookies::new(&[1; 32], start, IDLE);
        let header = cookies.make([7; 32], 5, start).1;
        let ours = value(&header);
        let (name, text) = ours.split_once('=').unwrap();
        for (sent_as, found) in [
            (format!("a=b; {ours};c"), 1),
            (format!("{name}=\"{text}\""), 1),
            (format!("{name}=x; {ours}"), 1),
            (format!("{name}=; {name}; ={text}; x{ours}; {name}={text}A; {name}={}", text.to_lowercase()), 0),
            (String::new(), 0),
        ] {
            assert_eq!(cookies.of_call(&sent(&sent_as), 5, start).len(), found, "{sent_as}");
        }
        let mut metadata = sent("a=b");
        metadata.append("cookie", ours.parse().unwrap());
        assert_eq!(cookies.of_call(&metadata, 5, start).len(), 1, "in a header of its own");
        // No byte of it can be another one.
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        for place in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[place] ^= 1;
            let forged = format!("{name}={}", BASE64_URL_SAFE_NO_PAD.encode(forged));
            assert_eq!(cookies.of_call(&sent(&forged), 5, start), [], "{place}");
        }
    }
}
