//! Who is calling: credentials of a request, logins, sessions.
//!
//! Accepted: `authorization: Basic …` on any call, and `authorization: Bearer …` with the token that a Handshake gave, an API
//! token, or a JWT. A call with a token is of the token's session; one with user and password is of the session of its
//! cookie, if it has one that it was handed before ([`crate::cookies`]), and has a session of its own else. Nobody is
//! anonymous, and nothing in a request body says who the caller is.
//!
//! A session ends with what it was opened with ([`crate::grants`]). Every refused login passes [`refusals`].

mod passwords;
mod refusals;
mod room;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use seracdb_engine::{Engine, EngineError, ErrorKind, NoPlace, Principal, Session, Standing, Transaction};
use tonic::Status;
use tonic::metadata::MetadataMap;

use self::passwords::{Login, Passwords};
use self::refusals::Refusals;
pub(crate) use self::room::{Crowded, Place};
use crate::config::AuthSection;
use crate::cookies::Cookies;
use crate::credentials::{Credentials, Malformed, credentials, from_payload};
use crate::flight::status;
use crate::grants::{Grant, Grants};
use crate::jwt::{Jwt, KeyId, is_jwt};
use crate::metrics::ServerMetrics;
use crate::queries::Queries;
use crate::refusal::{Refusal, Refused};
use crate::sessions::{Found, Sessions, TokenKey};

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

pub(crate) struct Auth {
    engine: Arc<Engine>,
    refusals: Arc<Refusals>,
    passwords: Arc<Passwords>,
    sessions: Sessions<Session>,
    /// What sessions were opened with. Locked before the sessions.
    opened_with: Mutex<HashMap<TokenKey, Arc<Grant>>>,
    grants: Grants,
    jwt: Option<Arc<Jwt>>,
    cookies: Cookies,
    /// What was begun by the calls that were handed a cookie, by that cookie's session.
    begun: Mutex<HashMap<TokenKey, Weak<Transaction>>>,
}

impl Auth {
    /// `secret`: random, new in every process.
    pub(crate) fn new(
        engine: Arc<Engine>,
        queries: Queries,
        config: &AuthSection,
        jwt: Option<Arc<Jwt>>,
        secret: [u8; 32],
        metrics: ServerMetrics,
    ) -> Self {
        let idle = Duration::from_secs(config.session_idle_seconds);
        let refusals = Arc::new(Refusals::new(engine.clone(), queries.clone(), metrics));
        Self {
            grants: Grants::new(engine.clone(), jwt.clone()),
            passwords: Passwords::new(engine.clone(), queries, Arc::clone(&refusals), config, secret),
            engine,
            refusals,
            sessions: Sessions::new(secret, idle, config.sessions_max),
            opened_with: Mutex::default(),
            jwt,
            cookies: Cookies::new(&secret, Instant::now(), idle),
            begun: Mutex::default(),
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
            Err(refused) => Err(self.refusals.noted(refused, peer).await),
        }
    }

    async fn authenticated(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
    ) -> Result<(Call, Option<String>), Refused> {
        match self.credentials(metadata, peer)? {
            None => Err(self.refusals.refused(None, peer, Refusal::NoCredentials)),
            Some(Credentials::Bearer(token)) => Ok((self.by_bearer(&token, peer)?, None)),
            Some(Credentials::Basic { user, password }) => {
                let standing = self.passwords.check(Login { user, password, peer }, None).await?;
                let now = Instant::now();
                if let Some(call) = self.by_cookie(metadata, &standing, peer, now)? {
                    return Ok((call, None));
                }
                let (key, cookie) = self.cookies.make(random()?, standing.principal().number(), now);
                let session = Session::of_one_call(standing.principal().clone());
                let session = Arc::new(session_at(peer, session));
                let grant = self.grants.open(standing.of_session(&session), None);
                Ok((Call { session, token: None, handed: Some(key), grant }, Some(cookie)))
            }
        }
    }

    fn credentials(&self, metadata: &MetadataMap, peer: Option<SocketAddr>) -> Result<Option<Credentials>, Refused> {
        credentials(metadata).map_err(|Malformed| self.refusals.refused(None, peer, Refusal::Malformed))
    }

    /// A call of the session of its cookie, which is opened when the cookie is new.
    fn by_cookie(
        &self,
        metadata: &MetadataMap,
        standing: &Standing,
        peer: Option<SocketAddr>,
        now: Instant,
    ) -> Result<Option<Call>, Status> {
        let principal = standing.principal();
        for cookie in self.cookies.of_call(metadata, principal.number(), now) {
            let open = || {
                let session = self.open(peer, principal, "password");
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
            let known = opened_with
                .entry(cookie.key)
                .or_insert_with(|| self.grants.open(standing.clone().of_session(&session), None));
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

    /// A place for a Handshake, whose message may take its time.
    pub(crate) async fn place(&self, peer: Option<SocketAddr>) -> Result<Place, Status> {
        match self.passwords.place(None, peer) {
            Ok(place) => Ok(place),
            Err(refused) => Err(self.refusals.noted(refused, peer).await),
        }
    }

    /// Handshake: gives the token of a new session, or the same token when one came. `payload`: the body of the
    /// handshake, where some clients put user and password.
    pub(crate) async fn login(
        &self,
        metadata: &MetadataMap,
        payload: &[u8],
        peer: Option<SocketAddr>,
        place: Place,
    ) -> Result<String, Status> {
        match self.logged_in(metadata, payload, peer, place).await {
            Ok(token) => Ok(token),
            Err(refused) => Err(self.refusals.noted(refused, peer).await),
        }
    }

    async fn logged_in(
        &self,
        metadata: &MetadataMap,
        payload: &[u8],
        peer: Option<SocketAddr>,
        place: Place,
    ) -> Result<String, Refused> {
        let (user, password) = match self.credentials(metadata, peer)? {
            Some(Credentials::Bearer(token)) => return self.by_bearer(&token, peer).map(|_| token),
            Some(Credentials::Basic { user, password }) => (user, password),
            None => from_payload(payload).ok_or_else(|| self.refusals.refused(None, peer, Refusal::NoCredentials))?,
        };
        let standing = self.passwords.check(Login { user, password, peer }, Some(place)).await?;
        let session = self.open(peer, standing.principal(), "password");
        let holder = session.principal().into();
        let grant = self.grants.open(standing.of_session(&session), None);
        let (mut opened_with, now) = (self.opened_with.lock(), Instant::now());
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
        self.passwords.sweep(now);
        self.refusals.sweep(now);
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

    /// A session that goes on after this call. `login`: what it is opened with.
    fn open(&self, peer: Option<SocketAddr>, principal: &Principal, login: &'static str) -> Session {
        self.engine.opened(session_at(peer, Session::new(principal.clone())), login)
    }

    /// A call that comes with a token of one of three kinds.
    fn by_bearer(&self, token: &str, peer: Option<SocketAddr>) -> Result<Call, Refused> {
        if Engine::is_api_token(token) {
            let standing = self.engine.by_api_token(token).map_err(|refused| {
                self.refusals.refused(refused.user.as_deref(), peer, Refusal::ApiToken(refused.why))
            })?;
            return Ok(self.by_standing(token, standing, None, peer)?);
        }
        if let Some(jwt) = self.jwt.as_ref().filter(|_| is_jwt(token)) {
            let refused = |user: Option<&str>, why| self.refusals.refused(user, peer, Refusal::Jwt(why));
            let vouched = jwt.vouched(token, self.engine.now_ns()).map_err(|why| refused(None, why))?;
            let standing = self.engine.vouched(&vouched.user, vouched.role_max, vouched.until_ns);
            let standing = standing.ok_or_else(|| refused(Some(&vouched.user), "there is no such user"))?;
            return Ok(self.by_standing(token, standing, Some(vouched.key), peer)?);
        }
        let (key, session) = match self.sessions.find(token, Instant::now()) {
            Found::Live(key, session) => (key, session),
            Found::Closed => return Err(Status::not_found("this session was closed: log in again").into()),
            Found::Revoked => return Err(self.refusals.refused(None, peer, Refusal::SessionEnded)),
            Found::Unknown => return Err(self.refusals.refused(None, peer, Refusal::NoSession)),
        };
        let mut opened_with = self.opened_with.lock();
        match opened_with.get(&key).filter(|grant| self.grants.stands(grant)).cloned() {
            Some(grant) => Ok(Call { session, token: Some(key), handed: None, grant }),
            None => {
                opened_with.remove(&key);
                self.sessions.revoke(&key);
                Err(self.refusals.refused(Some(session.principal().name()), peer, Refusal::SessionEnded))
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
        let session = self.open(peer, standing.principal(), if key.is_some() { "jwt" } else { "token" });
        let session = self.sessions.open_anew(id, session, standing.principal().into(), now).map_err(too_many)?;
        let grant = self.grants.open(standing, key);
        opened_with.insert(id, Arc::clone(&grant));
        Ok(Call { session, token: Some(id), handed: None, grant })
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
