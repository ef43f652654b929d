//! What a login rests on, and whether that is still so.
//!
//! A login is of a user as the catalog had it then. It ends when the user is dropped or has another role, and, with what it was
//! made with: a password that is another now, a token that was dropped or has expired. A session that gives its own user
//! another password goes on with that one. To ask is a look into memory.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use seracdb_storage::catalog::{Catalog, TokenRecord, UserRecord};

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::{Principal, Role};
use crate::session::Session;

/// Passwords of its own that a session remembers to have set: the last ones, of which some may not be committed yet.
const OWN_PASSWORDS_MAX: usize = 16;

/// A login, with what it rests on.
#[derive(Debug, Clone)]
pub struct Standing {
    user: Arc<UserRecord>,
    principal: Principal,
    proof: Proof,
    until_ns: Option<i64>,
}

/// What a user has come with.
#[derive(Debug, Clone)]
enum Proof {
    Password(Arc<OwnPasswords>),
    Token(Arc<TokenRecord>),
    /// What somebody else vouches for.
    Elsewhere,
}

/// The passwords that a session has given its own user, by their hashes, of which there are no two alike. They are here before
/// they are the user's, so that no look at the login comes between.
#[derive(Debug, Default)]
pub(crate) struct OwnPasswords(Mutex<VecDeque<String>>);

impl OwnPasswords {
    pub(crate) fn add(&self, hash: &str) {
        let mut known = self.0.lock();
        known.truncate(OWN_PASSWORDS_MAX - 1);
        known.push_front(hash.to_owned());
    }

    fn has(&self, hash: &str) -> bool {
        self.0.lock().iter().any(|known| known == hash)
    }
}

impl Standing {
    /// The same login, as that of a session: it outlives the changes of its password that this session makes itself.
    pub fn of_session(self, session: &Session) -> Self {
        let proof = match self.proof {
            Proof::Password(_) => Proof::Password(Arc::clone(session.own_passwords())),
            other => other,
        };
        Self { proof, ..self }
    }

    /// Who has logged in.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// A login by an API token: of the role that its user has by now, but of none above that of who made the token.
    pub(crate) fn by_token(user: &Arc<UserRecord>, token: &Arc<TokenRecord>) -> Option<Self> {
        let role_max = token.role_max.as_deref().map(str::parse::<Role>).transpose().ok()?;
        Self::of(user, role_max, Proof::Token(Arc::clone(token)), token.expires_at_ns)
    }

    fn of(user: &Arc<UserRecord>, role_max: Option<Role>, proof: Proof, until_ns: Option<i64>) -> Option<Self> {
        if user.deleted_at_ns.is_some() {
            return None;
        }
        let stored: Role = user.role.parse().ok()?;
        let role = role_max.map_or(stored, |max| stored.min(max));
        let principal = Principal::new(user.name.clone(), user.number, role).with_role_max(role_max);
        Some(Self { user: Arc::clone(user), principal, proof, until_ns })
    }

    /// Whether it is as it was, by this catalog and time.
    fn holds(&self, catalog: &Catalog, now_ns: i64) -> bool {
        let as_it_was = |user: &Arc<UserRecord>| {
            Arc::ptr_eq(user, &self.user)
                || user.deleted_at_ns.is_none()
                    && user.number == self.user.number
                    && user.role == self.user.role
                    && self.has_password(&user.password_hash)
        };
        let is_there = match &self.proof {
            Proof::Token(token) => catalog.token(&token.id).is_some_and(|known| known.hash == token.hash),
            Proof::Password(_) | Proof::Elsewhere => true,
        };
        is_there
            && self.until_ns.is_none_or(|until| now_ns < until)
            && catalog.user(&self.user.name).is_some_and(as_it_was)
    }

    /// Whether it stands as long as this is its user's password.
    fn has_password(&self, hash: &str) -> bool {
        match &self.proof {
            Proof::Password(own) => hash == self.user.password_hash || own.has(hash),
            Proof::Token(_) | Proof::Elsewhere => true,
        }
    }
}

impl Engine {
    /// Checks a password; see [`Engine::authenticate`].
    pub async fn by_password(&self, name: &str, password: &str) -> Result<Standing> {
        let before = self.store.snapshot().catalog().user(name).cloned();
        self.authenticate(name, password).await?;
        let standing = before.and_then(|user| Standing::of(&user, None, Proof::Password(Arc::default()), None));
        // A password that was changed while it was checked may be the one that was right.
        standing.filter(|standing| self.stands(standing)).ok_or_else(|| {
            EngineError::new(ErrorKind::Unauthenticated, "the user was changed during the login: log in again")
        })
    }

    /// A user for whom somebody else vouches, until a time: with no more than this role, if one is said. `None` when there is
    /// no such user.
    pub fn vouched(&self, name: &str, role_max: Option<Role>, until_ns: i64) -> Option<Standing> {
        let snapshot = self.store.snapshot();
        Standing::of(snapshot.catalog().user(name)?, role_max, Proof::Elsewhere, Some(until_ns))
    }

    /// Whether what a login rests on is still so.
    pub fn stands(&self, standing: &Standing) -> bool {
        standing.holds(self.store.snapshot().catalog(), self.now_ns())
    }
}

#[cfg(test)]
mod tests {
    use seracdb_storage::catalog::CatalogRecord;

    use super::*;

    fn user() -> UserRecord {
        UserRecord {
            number: 7,
            name: "ann".into(),
            role: "admin".into(),
            password_hash: "hash".into(),
            created_at_ns: 0,
            deleted_at_ns: None,
        }
    }

    fn token() -> TokenRecord {
        TokenRecord {
            id: "t".into(),
            name: None,
            user: "ann".into(),
            hash: "h".into(),
            last_four: "abcd".into(),
            created_at_ns: 0,
            created_by: "ann".into(),
            expires_at_ns: Some(100),
            role_max: None,
        }
    }

    fn catalog(user: UserRecord, token: Option<TokenRecord>) -> Catalog {
        let records = [CatalogRecord::User(user)].into_iter();
        Catalog::from_records(records.chain(token.map(CatalogRecord::Token)))
    }

    fn by_password(user: &Arc<UserRecord>) -> Standing {
        Standing::of(user, None, Proof::Password(Arc::default()), None).unwrap()
    }

    #[test]
    fn a_session_goes_on_with_the_passwords_that_it_has_set_itself() {
        let user_then = Arc::new(user());
        let with = |hash: &str| catalog(UserRecord { password_hash: hash.into(), ..user() }, None);
        let session = Session::new(Principal::new("ann".into(), 7, Role::Admin));
        let (own, other) = (by_password(&user_then).of_session(&session), by_password(&user_then));
        session.own_passwords().add("own");
        assert!(own.holds(&with("hash"), 0), "it may not be committed yet");
        assert!(own.holds(&with("own"), 0) && !other.holds(&with("own"), 0));
        assert!(!own.holds(&with("of somebody else"), 0));
        let lowered = UserRecord { password_hash: "own".into(), role: "user".into(), ..user() };
        assert!(!own.holds(&catalog(lowered, None), 0));
        for n in 0..OWN_PASSWORDS_MAX {
            session.own_passwords().add(&n.to_string());
        }
        assert!(own.holds(&with("0"), 0) && !own.holds(&with("own"), 0), "the last ones are remembered");
    }

    #[test]
    fn it_ends_with_what_it_rests_on() {
        let user_then = Arc::new(user());
        let password = by_password(&user_then);
        let by_token = Standing::by_token(&user_then, &Arc::new(token())).unwrap();
        let vouched = Standing::of(&user_then, Some(Role::User), Proof::Elsewhere, Some(100)).unwrap();
        let (another_password, another_role, dropped) = (
            UserRecord { password_hash: "other".into(), ..user() },
            UserRecord { role: "user".into(), ..user() },
            UserRecord { deleted_at_ns: Some(1), ..user() },
        );
        // By password, by token, vouched for.
        for (catalog, now, expected) in [
            (catalog(user(), Some(token())), 99, [true, true, true]),
            (catalog(user(), Some(token())), 100, [true, false, false]),
            (catalog(user(), None), 99, [true, false, true]),
            (catalog(user(), Some(TokenRecord { hash: "i".into(), ..token() })), 99, [true, false, true]),
            (catalog(another_password, Some(token())), 99, [false, true, true]),
            (catalog(another_role, Some(token())), 99, [false; 3]),
            (catalog(dropped, Some(token())), 99, [false; 3]),
            (Catalog::default(), 99, [false; 3]),
        ] {
            let found = [&password, &by_token, &vouched].map(|standing| standing.holds(&catalog, now));
            assert_eq!(found, expected, "{catalog:?} at {now}");
        }
    }

    #[test]
    fn a_token_gives_no_more_than_its_maker_had() {
        let role = |role: &str, role_max: Option<&str>| {
            let user = UserRecord { role: role.into(), ..user() };
            let token = TokenRecord { role_max: role_max.map(str::to_owned), ..token() };
            Standing::by_token(&Arc::new(user), &Arc::new(token)).map(|standing| standing.principal().role())
        };
        for (stored, role_max, expected) in [
            ("system", None, Some(Role::System)),
            ("system", Some("admin"), Some(Role::Admin)),
            ("user", Some("admin"), Some(Role::User)),
            ("admin", Some("user"), Some(Role::User)),
            // Of a build that knows more roles, maybe.
            ("admin", Some("emperor"), None),
        ] {
            assert_eq!(role(stored, role_max), expected, "{stored}, at most {role_max:?}");
        }
    }

    #[test]
    fn a_role_that_is_said_only_lowers() {
        let role = |max| Standing::of(&Arc::new(user()), max, Proof::Elsewhere, None).unwrap().principal().role();
        assert_eq!(role(None), Role::Admin);
        assert_eq!(role(Some(Role::User)), Role::User);
        assert_eq!(role(Some(Role::System)), Role::Admin);
        let dropped = UserRecord { deleted_at_ns: Some(1), ..user() };
        assert!(Standing::of(&Arc::new(dropped), None, Proof::Elsewhere, None).is_none());
    }
}
