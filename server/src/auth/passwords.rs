//! Checks of passwords: few at a time, none for who has to wait after wrong ones, and not again within seconds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use seracdb_engine::{Engine, ErrorKind, Standing};
use tonic::Status;

use super::refusals::Refusals;
use super::room::{Place, Room};
use crate::config::AuthSection;
use crate::flight::status;
use crate::lockout::{Lockout, Source};
use crate::queries::Queries;
use crate::refusal::{Refusal, Refused};

/// Checked passwords that are remembered at most.
const VERIFIED_MAX: usize = 10_000;

/// Who somebody says to be.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: SecretString,
    pub(super) peer: Option<SocketAddr>,
}

pub(super) struct Passwords {
    engine: Arc<Engine>,
    queries: Queries,
    refusals: Arc<Refusals>,
    lockout: Lockout,
    room: Arc<Room>,
    /// Right passwords of the last seconds, by keyed hash, and until when; wrong ones never get here.
    verified: Mutex<HashMap<[u8; 32], (Standing, Instant)>>,
    verified_for: Duration,
    secret: [u8; 32],
}

impl Passwords {
    pub(super) fn new(
        engine: Arc<Engine>,
        queries: Queries,
        refusals: Arc<Refusals>,
        config: &AuthSection,
        secret: [u8; 32],
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            queries,
            refusals,
            lockout: Lockout::new(config),
            room: Room::new(config),
            verified: Mutex::default(),
            verified_for: Duration::from_secs(config.password_cache_seconds),
            secret,
        })
    }

    /// A place for a call that may take its time until it says who it is.
    pub(super) fn place(&self, user: Option<&str>, peer: Option<SocketAddr>) -> Result<Place, Refused> {
        let place = self.room.enter(Source::of(peer));
        place.map_err(|crowded| self.refusals.refused(user, peer, Refusal::Crowded(crowded)))
    }

    /// Checks a password. `place`: of the call, when it has one already.
    pub(super) async fn check(self: &Arc<Self>, login: Login, place: Option<Place>) -> Result<Standing, Refused> {
        let key = self.key(&login);
        if let Some(standing) = self.remembered(&key) {
            return Ok(standing);
        }
        self.admit(&login)?;
        let place = match place {
            Some(place) => place,
            None => self.place(Some(&login.user), login.peer)?,
        };
        let turn = place.turn().await.map_err(|_| Status::unavailable("the server is stopping"))?;
        // Another call of the same client may have come first while this one waited.
        if let Some(standing) = self.remembered(&key) {
            return Ok(standing);
        }
        self.admit(&login)?;
        let all = Arc::clone(self);
        // To its end: whoever is gone by then has guessed all the same, and what it computes with is in use.
        let checked = self.queries.finish(async move {
            let _turn = turn;
            all.checked(login, key).await
        });
        checked.await.unwrap_or_else(|error| Err(status::from_engine(error).into()))
    }

    /// Whether a password of this user is checked now.
    fn admit(&self, Login { user, peer, .. }: &Login) -> Result<(), Refused> {
        let admitted = self.lockout.admit(user, Source::of(*peer), Instant::now());
        admitted.map_err(|wait| self.refusals.refused(Some(user), *peer, Refusal::LockedOut(wait)))
    }

    async fn checked(&self, Login { user, password, peer }: Login, key: [u8; 32]) -> Result<Standing, Refused> {
        let source = Source::of(peer);
        match self.engine.by_password(&user, password.expose_secret()).await {
            Ok(standing) => {
                self.lockout.succeeded(&user, source);
                self.remember(key, &standing);
                Ok(standing)
            }
            Err(error) if error.kind == ErrorKind::Unauthenticated => {
                if self.lockout.failed(&user, source, Instant::now()) {
                    self.refusals.locked_out();
                }
                let refused = self.refusals.refused(Some(&user), peer, Refusal::WrongPassword);
                Err(self.refusals.noted(refused, peer).await.into())
            }
            Err(error) => Err(status::from_engine(error).into()),
        }
    }

    /// Forgets what is not remembered any more.
    pub(super) fn sweep(&self, now: Instant) {
        self.verified.lock().retain(|_, (_, until)| *until > now);
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Standing> {
        let mut verified = self.verified.lock();
        let (standing, until) = verified.get(key)?;
        if *until > Instant::now() && self.engine.stands(standing) {
            return Some(standing.clone());
        }
        verified.remove(key);
        None
    }

    fn remember(&self, key: [u8; 32], standing: &Standing) {
        if self.verified_for.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, (_, until)| *until > now);
        }
        if verified.len() < VERIFIED_MAX {
            verified.insert(key, (standing.clone(), now + self.verified_for));
        }
    }

    fn key(&self, Login { user, password, .. }: &Login) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        // Of a password that is the user's no more nothing is remembered.
        let expected = self.engine.password_hash(user).unwrap_or_default();
        hasher.update(&(expected.len() as u64).to_le_bytes()).update(expected.as_bytes());
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update(&(user.len() as u64).to_le_bytes()).update(user.as_bytes());
        hasher.update(password.expose_secret().as_bytes());
        *hasher.finalize().as_bytes()
    }
}
