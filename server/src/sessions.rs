//! Sessions of logged-in clients: one bearer token, one session; one cookie, one session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;

use seracdb_engine::{Holder, NoPlace};

use crate::expiring::Expiring;

/// Closed sessions that are remembered, so that their token gets "closed" and not "wrong token".
const CLOSED_MAX: usize = 1024;

/// A token's or cookie's keyed hash. Looking up hashes leaves nothing to learn from how long a comparison takes.
pub(crate) type TokenKey = [u8; 32];

/// The live sessions by token. `S`: what a session holds.
pub(crate) struct Sessions<S> {
    secret: [u8; 32],
    state: Mutex<State<S>>,
}

struct State<S> {
    live: Expiring<TokenKey, S>,
    closed: VecDeque<TokenKey>,
    /// Those that have lost what they rested on.
    revoked: VecDeque<TokenKey>,
}

/// What a token stands for.
pub(crate) enum Found<S> {
    Live(TokenKey, Arc<S>),
    Closed,
    Revoked,
    Unknown,
}

impl<S> Sessions<S> {
    pub(crate) fn new(secret: [u8; 32], idle: Duration, max: usize) -> Self {
        let state = State { live: Expiring::new(idle, max), closed: VecDeque::new(), revoked: VecDeque::new() };
        Self { secret, state: Mutex::new(state) }
    }

    /// Opens a session; gives its key and its token. `random` becomes the token.
    pub(crate) fn open(
        &self,
        session: S,
        holder: Holder,
        random: [u8; 32],
        now: Instant,
    ) -> Result<(TokenKey, String), NoPlace> {
        let token = BASE64_URL_SAFE_NO_PAD.encode(random);
        let key = self.key(&token);
        self.state.lock().live.insert(key, Arc::new(session), holder, now)?;
        Ok((key, token))
    }

    /// Opens the session of a key, in the place of one that there was.
    pub(crate) fn open_anew(&self, key: TokenKey, session: S, holder: Holder, now: Instant) -> Result<Arc<S>, NoPlace> {
        let session = Arc::new(session);
        let mut state = self.state.lock();
        state.live.remove(&key);
        state.live.insert(key, Arc::clone(&session), holder, now)?;
        Ok(session)
    }

    pub(crate) fn find(&self, token: &str, now: Instant) -> Found<S> {
        let key = self.key(token);
        let mut state = self.state.lock();
        match state.live.get(&key, now) {
            Some(session) => Found::Live(key, session),
            None if state.closed.contains(&key) => Found::Closed,
            None if state.revoked.contains(&key) => Found::Revoked,
            None => Found::Unknown,
        }
    }

    /// The live session of a key.
    pub(crate) fn find_key(&self, key: &TokenKey, now: Instant) -> Option<Arc<S>> {
        self.state.lock().live.get(key, now)
    }

    /// The same, opened now when it never was; `None` when it was closed.
    pub(crate) fn find_or_open(
        &self,
        key: TokenKey,
        open: impl FnOnce() -> S,
        holder: Holder,
        now: Instant,
    ) -> Result<Option<Arc<S>>, NoPlace> {
        let mut state = self.state.lock();
        if let Some(session) = state.live.get(&key, now) {
            return Ok(Some(session));
        }
        if state.closed.contains(&key) {
            return Ok(None);
        }
        let session = Arc::new(open());
        state.live.insert(key, Arc::clone(&session), holder, now)?;
        Ok(Some(session))
    }

    pub(crate) fn close(&self, key: TokenKey) {
        let mut state = self.state.lock();
        if state.live.remove(&key).is_some() {
            remember(&mut state.closed, key);
        }
    }

    /// Ends a session that has lost what it rested on. Its token says so for a while; its cookie may open another.
    pub(crate) fn revoke(&self, key: &TokenKey) {
        let mut state = self.state.lock();
        if state.live.remove(key).is_some() {
            remember(&mut state.revoked, *key);
        }
    }

    /// Ends a session that is to be as if it had never been.
    pub(crate) fn remove(&self, key: &TokenKey) {
        self.state.lock().live.remove(key);
    }

    /// Whether it has neither been closed nor swept.
    pub(crate) fn is_live(&self, key: &TokenKey) -> bool {
        self.state.lock().live.contains(key)
    }

    pub(crate) fn sweep(&self, now: Instant) {
        self.state.lock().live.sweep(now);
    }

    /// The key of a token's session.
    pub(crate) fn key(&self, token: &str) -> TokenKey {
        *blake3::keyed_hash(&self.secret, token.as_bytes()).as_bytes()
    }
}

fn remember(ended: &mut VecDeque<TokenKey>, key: TokenKey) {
    if ended.len() == CLOSED_MAX {
        ended.pop_front();
    }
    ended.push_back(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Holder = Holder { user: 1, is_admin: true };

    #[test]
    fn a_token_is_its_session_until_closed_or_idle() {
        let start = Instant::now();
        let sessions = Sessions::new([1; 32], Duration::from_secs(10), 2);
        let (_, token) = sessions.open("a", ROOT, [7; 32], start).unwrap();
        let Found::Live(key, session) = sessions.find(&token, start) else { panic!("not found") };
        assert_eq!(*session, "a");
        drop(session);
        sessions.close(key);
        assert!(matches!(sessions.find(&token, start), Found::Closed));
        assert!(matches!(sessions.find("something else", start), Found::Unknown));
        let (key, token) = sessions.open("r", ROOT, [9; 32], start).unwrap();
        sessions.revoke(&key);
        assert!(matches!(sessions.find(&token, start), Found::Revoked));
        assert!(sessions.find_or_open(key, || "again", ROOT, start).unwrap().is_some());
        sessions.remove(&key);

        let (_, token) = sessions.open("b", ROOT, [8; 32], start).unwrap();
        assert!(matches!(sessions.find(&token, start + Duration::from_secs(11)), Found::Unknown));
    }

    #[test]
    fn a_key_opens_one_session_and_none_after_it_was_closed() {
        let start = Instant::now();
        let sessions = Sessions::new([1; 32], Duration::from_secs(10), 1);
        assert!(sessions.find_key(&[7; 32], start).is_none());
        let opened = sessions.find_or_open([7; 32], || "a", ROOT, start).unwrap().unwrap();
        let found = sessions.find_or_open([7; 32], || "b", ROOT, start).unwrap().unwrap();
        assert!(Arc::ptr_eq(&opened, &found));
        assert!(sessions.find_or_open([8; 32], || "c", ROOT, start).is_err(), "there is room for one");
        sessions.close([7; 32]);
        assert!(sessions.find_or_open([7; 32], || "d", ROOT, start).unwrap().is_none());
        assert!(sessions.find_or_open([8; 32], || "e", ROOT, start).unwrap().is_some());
    }

    #[test]
    fn one_that_is_removed_was_never_there_and_one_that_is_opened_anew_is_another() {
        let start = Instant::now();
        let sessions = Sessions::new([1; 32], Duration::from_secs(10), 1);
        let (key, token) = sessions.open("a", ROOT, [7; 32], start).unwrap();
        let anew = sessions.open_anew(key, "b", ROOT, start).unwrap();
        let Found::Live(_, found) = sessions.find(&token, start) else { panic!("not found") };
        assert!(Arc::ptr_eq(&anew, &found));
        sessions.remove(&key);
        assert!(matches!(sessions.find(&token, start), Found::Unknown));
        sessions.open_anew(key, "c", ROOT, start).unwrap();
        sessions.close(key);
        assert!(sessions.open_anew(key, "d", ROOT, start).is_ok(), "a token may come again");
    }

    #[test]
    fn logins_beyond_the_limit_are_refused() {
        let start = Instant::now();
        let sessions = Sessions::new([1; 32], Duration::from_secs(10), 1);
        let (_, token) = sessions.open("a", ROOT, [7; 32], start).unwrap();
        assert!(sessions.open("b", ROOT, [8; 32], start).is_err());
        assert!(matches!(sessions.find(&token, start), Found::Live(..)));
    }
}
