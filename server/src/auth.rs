//! Who is calling: credentials of a request, logins, sessions.
//!
//! Accepted: `authorization: Basic …` on any call, and `authorization: Bearer …` with the token that a Handshake gave, an API
//! token, or a JWT. A call with a token is of the token's session; one with user and password is of the session of its
//! cookie, if it has one that it was handed before ([`crate::cookies`]), and has a session of its own else. Nobody is
//! anonymous, and nothing in a request body says who the caller is.
//!
//! A session ends with what it was opened with ([`crate::grants`]). Every refused login passes [`Auth::refused`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use seracdb_engine::{Engine, EngineError, ErrorKind, NoPlace, Principal, Session, Standing, Transaction};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::config::AuthSection;
use crate::cookies::Cookies;
use crate::credentials::{Credentials, Malformed, credentials, from_payload};
use crate::flight::status;
use crate::grants::{Grant, Grants};
use crate::jwt::{Jwt, KeyId, is_jwt};
use crate::lockout::{Lockout, Source};
use crate::queries::Queries;
use crate::refusal::{Refusal, Refused};
use crate::sessions::{Found, Sessions, TokenKey};

/// Passwords that are checked at the same time. A check takes tens of megabytes and a core on purpose: without a limit,
/// guessing would take all of them.
const CHECKS_MAX: usize = 4;

/// Bytes of a user's name in the log.
const NAME_BYTES_SHOWN: usize = 128;

/// Checked passwords that are remembered at most.
const VERIFIED_MAX: usize = 10_000;

/// An authenticated call.
#[derive(Clone)]
pub(crate) struct Call {
    /// Its session: shared with the other calls of its token or cookie, else of its own.
    pub(crate) session: Arc<Session>,
    /// The key of a session that goes on after the call.
    pub(crate) token: Option<TokenKey>,
    /// The key of the session that the client may have from its next call on.
    pub(crate) handed: Option<TokenKey>,
    /// What it rests on.
    pub(crate) grant: Arc<Grant>,
}

impl Call {
    pub(crate) fn principal(&self) -> &Principal {
        self.session.principal()
    }
}

/// Logins by the keyed hash of user and password, and until when they are remembered.
type Verified = HashMap<[u8; 32], (Arc<Grant>, Instant)>;

pub(crate) struct Auth {
    engine: Arc<Engine>,
    queries: Queries,
    sessions: Sessions<Session>,
    /// What sessions were opened with. Locked before the sessions.
    opened_with: Mutex<HashMap<TokenKey, Arc<Grant>>>,
    grants: Grants,
    jwt: Option<Arc<Jwt>>,
    cookies: Cookies,
    /// What was begun by the calls that were handed a cookie, by that cookie's session.
    begun: Mutex<HashMap<TokenKey, Weak<Transaction>>>,
    /// Right passwords of the last seconds, by keyed hash; wrong ones never get here.
    verified: Mutex<Verified>,
    verified_for: Duration,
    checks: Semaphore,
    lockout: Lockout,
    secret: [u8; 32],
}

impl Auth {
    /// `secret`: random, new in every process.
    pub(crate) fn new(
        engine: Arc<Engine>,
        queries: Queries,
        config: &AuthSection,
        jwt: Option<Arc<Jwt>>,
        secret: [u8; 32],
    ) -> Self {
        let idle = Duration::from_secs(config.session_idle_seconds);
        Self {
            grants: Grants::new(engine.clone(), jwt.clone()),
            engine,
            queries,
            sessions: Sessions::new(secret, idle, config.sessions_max),
            opened_with: Mutex::default(),
            jwt,
            cookies: Cookies::new(&secret, Instant::now(), idle),
            begun: Mutex::default(),
            verified: Mutex::default(),
            verified_for: Duration::from_secs(config.password_cache_seconds),
            checks: Semaphore::new(CHECKS_MAX),
            lockout: Lockout::new(config),
            secret,
        }
    }

    /// Refuses a login. All refusals pass here, with who it was said to be, where from, and why.
    fn refused(&self, user: Option<&str>, peer: Option<SocketAddr>, why: Refusal) -> Refused {
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        // No user has a longer name, and whoever tries does not fill the log.
        let user = user.map(|user| &user[..user.floor_char_boundary(NAME_BYTES_SHOWN)]);
        tracing::info!(user, peer, why = why.name(), detail = why.detail(), "a login was refused");
        Refused::new(user, why)
    }

    /// What is said to who was refused, once the audit log has it.
    async fn noted(&self, refused: Refused, peer: Option<SocketAddr>) -> Status {
        let Some((user, why)) = refused.entry else { return refused.status };
        let peer = peer.map(address);
        match self.engine.audit_refused_login(&user, peer.as_deref(), &why).await {
            Ok(()) => refused.status,
            Err(error) => status::from_engine(error),
        }
    }

    /// Authenticates one call; gives the cookie to hand out too, if there is one.
    pub(crate) async fn call(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
    ) -> Result<(Call, Option<String>), Status> {
        match self.authenticated(metadata, peer).await {
            Ok(call) => Ok(call),
            Err(refused) => Err(self.noted(refused, peer).await),
        }
    }

    async fn authenticated(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
    ) -> Result<(Call, Option<String>), Refused> {
        match self.credentials(metadata, peer)? {
            None => Err(self.refused(None, peer, Refusal::NoCredentials)),
            Some(Credentials::Bearer(token)) => Ok((self.by_bearer(&token, peer)?, None)),
            Some(Credentials::Basic { user, password }) => {
                let grant = self.verify(user, password, peer).await?;
                let now = Instant::now();
                if let Some(call) = self.by_cookie(metadata, &grant, peer, now)? {
                    return Ok((call, None));
                }
                let (key, cookie) = self.cookies.make(random()?, grant.principal().number(), now);
                let session = Session::of_one_call(grant.principal().clone());
                let session = Arc::new(session_at(peer, session));
                Ok((Call { session, token: None, handed: Some(key), grant }, Some(cookie)))
            }
        }
    }

    fn credentials(&self, metadata: &MetadataMap, peer: Option<SocketAddr>) -> Result<Option<Credentials>, Refused> {
        credentials(metadata).map_err(|Malformed| self.refused(None, peer, Refusal::Malformed))
    }

    /// A call of the session of its cookie, which is opened when the cookie is new.
    fn by_cookie(
        &self,
        metadata: &MetadataMap,
        grant: &Arc<Grant>,
        peer: Option<SocketAddr>,
        now: Instant,
    ) -> Result<Option<Call>, Status> {
        let principal = grant.principal();
        for cookie in self.cookies.of_call(metadata, principal.number(), now) {
            let open = || {
                let session = session_at(peer, Session::new(principal.clone()));
                let begun = self.begun.lock().get(&cookie.key).and_then(Weak::upgrade);
                begun.into_iter().for_each(|begun| session.keep(begun));
                session
            };
            let mut opened_with = self.opened_with.lock();
            let found = match cookie.opens {
                true => self.sessions.find_or_open(cookie.key, open, principal.into(), now).map_err(too_many)?,
                false => self.sessions.find_key(&cookie.key, now),
            };
            let Some(session) = found else { continue };
            let known = opened_with.entry(cookie.key).or_insert_with(|| Arc::clone(grant));
            if session.principal() == principal && self.grants.stands(known) {
                let grant = Arc::clone(known);
                return Ok(Some(Call { session, token: Some(cookie.key), handed: None, grant }));
            }
            // A user whose role or password is another now begins anew.
            opened_with.remove(&cookie.key);
            self.sessions.remove(&cookie.key);
        }
        Ok(None)
    }

    /// Remembers a transaction that a call without a session has begun: it is the session's, if the client sends the cookie
    /// back that the call hands out.
    pub(crate) fn begun(&self, call: &Call, transaction: &Arc<Transaction>) {
        if let Some(key) = call.handed {
            self.begun.lock().insert(key, Arc::downgrade(transaction));
        }
    }

    /// Handshake: gives the token of a new session, or the same token when one came. `payload`: the body of the
    /// handshake, where some clients put user and password.
    pub(crate) async fn login(
        &self,
        metadata: &MetadataMap,
        payload: &[u8],
        peer: Option<SocketAddr>,
    ) -> Result<String, Status> {
        match self.logged_in(metadata, payload, peer).await {
            Ok(token) => Ok(token),
            Err(refused) => Err(self.noted(refused, peer).await),
        }
    }

    async fn logged_in(
        &self,
        metadata: &MetadataMap,
        payload: &[u8],
        peer: Option<SocketAddr>,
    ) -> Result<String, Refused> {
        let (user, password) = match self.credentials(metadata, peer)? {
            Some(Credentials::Bearer(token)) => return self.by_bearer(&token, peer).map(|_| token),
            Some(Credentials::Basic { user, password }) => (user, password),
            None => from_payload(payload).ok_or_else(|| self.refused(None, peer, Refusal::NoCredentials))?,
        };
        let grant = self.verify(user, password, peer).await?;
        let session = session_at(peer, Session::new(grant.principal().clone()));
        let mut opened_with = self.opened_with.lock();
        let (holder, now) = (grant.principal().into(), Instant::now());
        let (key, token) = self.sessions.open(session, holder, random()?, now).map_err(too_many)?;
        opened_with.insert(key, grant);
        Ok(token)
    }

    pub(crate) fn close(&self, token: TokenKey) {
        self.opened_with.lock().remove(&token);
        self.sessions.close(token);
    }

    /// Whether this session has not ended.
    pub(crate) fn is_live(&self, token: &TokenKey) -> bool {
        self.sessions.is_live(token)
    }

    /// Forgets what has been idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.sessions.sweep(now);
        self.opened_with.lock().retain(|key, _| self.sessions.is_live(key));
        self.verified.lock().retain(|_, (_, until)| *until > now);
        let mut begun = self.begun.lock();
        begun.retain(|_, transaction| transaction.upgrade().is_some_and(|transaction| transaction.is_open()));
        begun.shrink_to_fit();
    }

    /// Ends what has lost what it rests on; gives the sessions that were among it.
    pub(crate) fn end_revoked(&self) -> Vec<TokenKey> {
        self.grants.sweep();
        let mut opened_with = self.opened_with.lock();
        let revoked: Vec<TokenKey> = opened_with.extract_if(|_, grant| grant.has_ended()).map(|(key, _)| key).collect();
        revoked.iter().for_each(|key| self.sessions.revoke(key));
        revoked
    }

    /// A call that comes with a token of one of three kinds.
    fn by_bearer(&self, token: &str, peer: Option<SocketAddr>) -> Result<Call, Refused> {
        if Engine::is_api_token(token) {
            let standing = self
                .engine
                .by_api_token(token)
                .map_err(|refused| self.refused(refused.user.as_deref(), peer, Refusal::ApiToken(refused.why)))?;
            return Ok(self.by_standing(token, standing, None, peer)?);
        }
        if let Some(jwt) = self.jwt.as_ref().filter(|_| is_jwt(token)) {
            let refused = |user: Option<&str>, why| self.refused(user, peer, Refusal::Jwt(why));
            let vouched = jwt.vouched(token, self.engine.now_ns()).map_err(|why| refused(None, why))?;
            let standing = self.engine.vouched(&vouched.user, vouched.role_max, vouched.until_ns);
            let standing = standing.ok_or_else(|| refused(Some(&vouched.user), "there is no such user"))?;
            return Ok(self.by_standing(token, standing, Some(vouched.key), peer)?);
        }
        let (key, session) = match self.sessions.find(token, Instant::now()) {
            Found::Live(key, session) => (key, session),
            Found::Closed => return Err(Status::not_found("this session was closed: log in again").into()),
            Found::Revoked => return Err(self.refused(None, peer, Refusal::SessionEnded)),
            Found::Unknown => return Err(self.refused(None, peer, Refusal::NoSession)),
        };
        let mut opened_with = self.opened_with.lock();
        match opened_with.get(&key).filter(|grant| self.grants.stands(grant)).cloned() {
            Some(grant) => Ok(Call { session, token: Some(key), handed: None, grant }),
            None => {
                opened_with.remove(&key);
                self.sessions.revoke(&key);
                Err(self.refused(Some(session.principal().name()), peer, Refusal::SessionEnded))
            }
        }
    }

    /// A call of the one session of a token that proves itself with each call. It is opened with the first, and again when it
    /// has ended.
    fn by_standing(
        &self,
        token: &str,
        standing: Standing,
        key: Option<KeyId>,
        peer: Option<SocketAddr>,
    ) -> Result<Call, Status> {
        let (now, id) = (Instant::now(), self.sessions.key(token));
        let mut opened_with = self.opened_with.lock();
        let known = opened_with.get(&id).filter(|grant| self.grants.stands(grant)).cloned();
        if let Some((grant, session)) = known.zip(self.sessions.find_key(&id, now))
            && session.principal() == standing.principal()
        {
            return Ok(Call { session, token: Some(id), handed: None, grant });
        }
        let session = session_at(peer, Session::new(standing.principal().clone()));
        let session = self.sessions.open_anew(id, session, standing.principal().into(), now).map_err(too_many)?;
        let grant = self.grants.open(standing, key);
        opened_with.insert(id, Arc::clone(&grant));
        Ok(Call { session, token: Some(id), handed: None, grant })
    }

    /// Checks a password.
    async fn verify(
        &self,
        user: String,
        password: SecretString,
        peer: Option<SocketAddr>,
    ) -> Result<Arc<Grant>, Refused> {
        let key = self.password_key(&user, password.expose_secret());
        if let Some(grant) = self.remembered(&key) {
            return Ok(grant);
        }
        let source = Source::of(peer);
        let admitted = || self.lockout.admit(&user, source, Instant::now()).map_err(Refusal::LockedOut);
        admitted().map_err(|why| self.refused(Some(&user), peer, why))?;
        let _turn = self.checks.acquire().await.map_err(|_| Status::unavailable("the server is stopping"))?;
        // Another call of the same client may have come first while this one waited.
        if let Some(grant) = self.remembered(&key) {
            return Ok(grant);
        }
        admitted().map_err(|why| self.refused(Some(&user), peer, why))?;
        let (engine, name) = (self.engine.clone(), user.clone());
        let checked = self.queries.run(async move { engine.by_password(&name, password.expose_secret()).await });
        match checked.await {
            Ok(standing) => {
                self.lockout.succeeded(&user, source);
                let grant = self.grants.open(standing, None);
                self.remember(key, &grant);
                Ok(grant)
            }
            Err(error) if error.kind == ErrorKind::Unauthenticated => {
                self.lockout.failed(&user, source, Instant::now());
                Err(self.refused(Some(&user), peer, Refusal::WrongPassword))
            }
            Err(error) => Err(status::from_engine(error).into()),
        }
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Arc<Grant>> {
        let mut verified = self.verified.lock();
        let (grant, until) = verified.get(key)?;
        if *until > Instant::now() && self.grants.stands(grant) {
            return Some(Arc::clone(grant));
        }
        verified.remove(key);
        None
    }

    fn remember(&self, key: [u8; 32], grant: &Arc<Grant>) {
        if self.verified_for.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, (_, until)| *until > now);
        }
        if verified.len() < VERIFIED_MAX {
            verified.insert(key, (Arc::clone(grant), now + self.verified_for));
        }
    }

    fn password_key(&self, user: &str, password: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        // Of a password that is the user's no more nothing is remembered.
        let expected = self.engine.password_hash(user).unwrap_or_default();
        hasher.update(&(expected.len() as u64).to_le_bytes()).update(expected.as_bytes());
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update(&(user.len() as u64).to_le_bytes()).update(user.as_bytes()).update(password.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// A session of a client at this address.
fn session_at(peer: Option<SocketAddr>, session: Session) -> Session {
    session.from_peer(peer.map(address).as_deref())
}

/// A client's address as the audit log has it.
fn address(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

fn too_many(why: NoPlace) -> Status {
    Status::resource_exhausted(why.text("sessions", "close some, lower auth.session_idle_seconds", "auth.sessions_max"))
}

/// 32 bytes nobody can guess.
pub(crate) fn random() -> Result<[u8; 32], Status> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        status::from_engine(EngineError::caused(ErrorKind::Unavailable, "no random numbers to be had", error))
    })?;
    Ok(bytes)
}
