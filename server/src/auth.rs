//! Who is calling: credentials of a request, logins, sessions.
//!
//! Accepted: `authorization: Basic …` on any call, and `authorization: Bearer …` with the token that a Handshake gave. A call
//! with a token is of the token's session; one with user and password is of the session of its cookie, if it has one that
//! it was handed before ([`crate::cookies`]), and has a session of its own else. Nobody is anonymous, and nothing in a
//! request body says who the caller is.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arrow_flight::BasicAuth;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use parking_lot::Mutex;
use prost::Message;
use secrecy::{ExposeSecret, SecretString};
use seracdb_engine::{Engine, EngineError, ErrorKind, Principal, Session, Transaction};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::config::AuthSection;
use crate::cookies::Cookies;
use crate::expiring::Full;
use crate::flight::status;
use crate::queries::Queries;
use crate::sessions::{Found, Sessions, TokenKey};

/// Go sends base64 without padding, everybody else with it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Passwords that are checked at the same time. A check takes tens of megabytes and a core on purpose: without a limit,
/// guessing would take all of them.
const CHECKS_MAX: usize = 4;

/// Checked passwords that are remembered at most.
const VERIFIED_MAX: usize = 10_000;

const SEND_CREDENTIALS: &str = "no credentials: log in with user and password (Handshake, or an 'authorization: Basic' \
                                header on the call), or send the 'authorization: Bearer' token of a login";

/// What a request says about who sends it.
enum Credentials {
    Basic { user: String, password: SecretString },
    Bearer(String),
}

/// An authenticated call.
#[derive(Clone)]
pub(crate) struct Call {
    /// Its session: shared with the other calls of its token or cookie, else of its own.
    pub(crate) session: Arc<Session>,
    /// The key of a session that goes on after the call.
    pub(crate) token: Option<TokenKey>,
    /// The key of the session that the client may have from its next call on.
    pub(crate) handed: Option<TokenKey>,
}

impl Call {
    pub(crate) fn principal(&self) -> &Principal {
        self.session.principal()
    }
}

pub(crate) struct Auth {
    engine: Arc<Engine>,
    queries: Queries,
    sessions: Sessions<Session>,
    cookies: Cookies,
    /// What was begun by the calls that were handed a cookie, by that cookie's session.
    begun: Mutex<HashMap<TokenKey, Weak<Transaction>>>,
    /// Right passwords of the last seconds, by keyed hash; wrong ones never get here.
    verified: Mutex<HashMap<[u8; 32], (Principal, Instant)>>,
    verified_for: Duration,
    checks: Semaphore,
    secret: [u8; 32],
}

impl Auth {
    /// `secret`: random, new in every process.
    pub(crate) fn new(engine: Arc<Engine>, queries: Queries, config: &AuthSection, secret: [u8; 32]) -> Self {
        let idle = Duration::from_secs(config.session_idle_seconds);
        Self {
            engine,
            queries,
            sessions: Sessions::new(secret, idle, config.sessions_max),
            cookies: Cookies::new(&secret, Instant::now(), idle),
            begun: Mutex::default(),
            verified: Mutex::default(),
            verified_for: Duration::from_secs(config.password_cache_seconds),
            checks: Semaphore::new(CHECKS_MAX),
            secret,
        }
    }

    /// Authenticates one call; gives the cookie to hand out too, if there is one.
    pub(crate) async fn call(&self, metadata: &MetadataMap) -> Result<(Call, Option<String>), Status> {
        match credentials(metadata)? {
            None => Err(Status::unauthenticated(SEND_CREDENTIALS)),
            Some(Credentials::Bearer(token)) => Ok((self.by_token(&token)?, None)),
            Some(Credentials::Basic { user, password }) => {
                let principal = self.verify(user, password).await?;
                let now = Instant::now();
                if let Some(call) = self.by_cookie(metadata, &principal, now)? {
                    return Ok((call, None));
                }
                let (key, cookie) = self.cookies.make(random()?, principal.number(), now);
                let session = Arc::new(Session::of_one_call(principal));
                Ok((Call { session, token: None, handed: Some(key) }, Some(cookie)))
            }
        }
    }

    /// A call of the session of its cookie, which is opened when the cookie is new.
    fn by_cookie(&self, metadata: &MetadataMap, principal: &Principal, now: Instant) -> Result<Option<Call>, Status> {
        for cookie in self.cookies.of_call(metadata, principal.number(), now) {
            let open = || {
                let session = Session::new(principal.clone());
                let begun = self.begun.lock().get(&cookie.key).and_then(Weak::upgrade);
                begun.into_iter().for_each(|begun| session.keep(begun));
                session
            };
            let found = match cookie.opens {
                true => self.sessions.find_or_open(cookie.key, open, now).map_err(too_many)?,
                false => self.sessions.find_key(&cookie.key, now),
            };
            // A user whose role is another now begins anew.
            if let Some(session) = found.filter(|session| session.principal() == principal) {
                return Ok(Some(Call { session, token: Some(cookie.key), handed: None }));
            }
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
    pub(crate) async fn login(&self, metadata: &MetadataMap, payload: &[u8]) -> Result<String, Status> {
        let (user, password) = match credentials(metadata)? {
            Some(Credentials::Bearer(token)) => return self.by_token(&token).map(|_| token),
            Some(Credentials::Basic { user, password }) => (user, password),
            None => from_payload(payload).ok_or_else(|| Status::unauthenticated(SEND_CREDENTIALS))?,
        };
        let principal = self.verify(user, password).await?;
        self.sessions.open(Session::new(principal), random()?, Instant::now()).map_err(too_many)
    }

    pub(crate) fn close(&self, token: TokenKey) {
        self.sessions.close(token);
    }

    /// Whether this session has not ended.
    pub(crate) fn is_live(&self, token: &TokenKey) -> bool {
        self.sessions.is_live(token)
    }

    /// Forgets what has been idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.sessions.sweep(now);
        self.verified.lock().retain(|_, (_, until)| *until > now);
        let mut begun = self.begun.lock();
        begun.retain(|_, transaction| transaction.upgrade().is_some_and(|transaction| transaction.is_open()));
        begun.shrink_to_fit();
    }

    fn by_token(&self, token: &str) -> Result<Call, Status> {
        match self.sessions.find(token, Instant::now()) {
            Found::Live(key, session) => Ok(Call { session, token: Some(key), handed: None }),
            Found::Closed => Err(Status::not_found("this session was closed: log in again")),
            Found::Unknown => Err(Status::unauthenticated("the token is unknown or its session ended: log in again")),
        }
    }

    async fn verify(&self, user: String, password: SecretString) -> Result<Principal, Status> {
        let key = self.password_key(&user, password.expose_secret());
        if let Some(principal) = self.remembered(&key) {
            return Ok(principal);
        }
        let _turn = self.checks.acquire().await.map_err(|_| Status::unavailable("the server is stopping"))?;
        // Another call of the same client may have come first while this one waited.
        if let Some(principal) = self.remembered(&key) {
            return Ok(principal);
        }
        let engine = self.engine.clone();
        let checked = self.queries.run(async move { engine.authenticate(&user, password.expose_secret()).await });
        let principal = checked.await.map_err(status::from_engine)?;
        self.remember(key, &principal);
        Ok(principal)
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Principal> {
        let verified = self.verified.lock();
        let (principal, until) = verified.get(key)?;
        (*until > Instant::now()).then(|| principal.clone())
    }

    fn remember(&self, key: [u8; 32], principal: &Principal) {
        if self.verified_for.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, (_, until)| *until > now);
        }
        if verified.len() < VERIFIED_MAX {
            verified.insert(key, (principal.clone(), now + self.verified_for));
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

fn too_many(_: Full) -> Status {
    Status::resource_exhausted(
        "too many sessions: close some, or raise auth.sessions_max or lower auth.session_idle_seconds",
    )
}

/// 32 bytes nobody can guess.
pub(crate) fn random() -> Result<[u8; 32], Status> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        status::from_engine(EngineError::caused(ErrorKind::Unavailable, "no random numbers to be had", error))
    })?;
    Ok(bytes)
}

fn credentials(metadata: &MetadataMap) -> Result<Option<Credentials>, Status> {
    let Some(header) = metadata.get("authorization") else {
        // Where Arrow's C++ and Python clients put the token after a handshake with a payload.
        let token = metadata.get_bin("auth-token-bin").and_then(|value| value.to_bytes().ok());
        return Ok(token.map(|token| Credentials::Bearer(String::from_utf8_lossy(&token).into_owned())));
    };
    let malformed = || Status::unauthenticated("the authorization header is malformed: send 'Basic …' or 'Bearer …'");
    let header = header.to_str().map_err(|_| malformed())?.trim();
    let (scheme, value) = header.split_once(' ').ok_or_else(malformed)?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Credentials::Bearer(value.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = BASE64.decode(value).map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (user, password) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.into() }))
}

fn from_payload(payload: &[u8]) -> Option<(String, SecretString)> {
    let auth = BasicAuth::decode(payload).ok()?;
    (!auth.username.is_empty()).then(|| (auth.username, auth.password.into()))
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    fn header(value: &str) -> Result<Option<Credentials>, Status> {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().unwrap());
        credentials(&metadata)
    }

    #[test]
    fn basic_is_read_with_and_without_padding() {
        for value in ["Basic cm9vdDpwYQ==", "Basic cm9vdDpwYQ", "basic  cm9vdDpwYQ"] {
            let Ok(Some(Credentials::Basic { user, password })) = header(value) else { panic!("{value} not read") };
            assert_eq!((user.as_str(), password.expose_secret()), ("root", "pa"));
        }
    }

    #[test]
    fn a_password_may_hold_colons() {
        let value = format!("Basic {}", BASE64.encode("u:a:b"));
        let Ok(Some(Credentials::Basic { user, password })) = header(&value) else { panic!("not read") };
        assert_eq!((user.as_str(), password.expose_secret()), ("u", "a:b"));
    }

    #[test]
    fn bearer_comes_in_two_headers() {
        assert!(matches!(header("Bearer abc"), Ok(Some(Credentials::Bearer(token))) if token == "abc"));
        let mut metadata = MetadataMap::new();
        metadata.insert_bin("auth-token-bin", MetadataValue::from_bytes(b"abc"));
        assert!(matches!(credentials(&metadata), Ok(Some(Credentials::Bearer(token))) if token == "abc"));
    }

    #[test]
    fn anything_else_is_unauthenticated() {
        assert!(matches!(credentials(&MetadataMap::new()), Ok(None)));
        for value in ["Basic", "Basic !!!", "Basic cm9vdA==", "Digest abc", "root"] {
            let Err(status) = header(value) else { panic!("{value} was accepted") };
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
        }
    }

    #[test]
    fn a_handshake_payload_may_hold_user_and_password() {
        let auth = BasicAuth { username: "u".into(), password: "p".into() };
        assert_eq!(from_payload(&auth.encode_to_vec()).unwrap().0, "u");
        assert!(from_payload(b"").is_none());
        assert!(from_payload(&[0xff]).is_none());
    }
}
