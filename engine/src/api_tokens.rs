//! API tokens: made, shown once, dropped; and who comes by one.
//!
//! ```text
//! serac_ {id: 16 hex digits} _ {secret: 64 hex digits}
//! ```
//! The id finds the record; the whole text's BLAKE3 is compared with that of the record. The secret is 256 random bits: what is
//! that hard to guess needs no slow hash.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, IntervalUnit, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use seracdb_storage::catalog::{Catalog, CatalogChange, Premise, TokenRecord};

use crate::ddl::forgive;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::execute::Rows as ResultRows;
use crate::identity::Role;
use crate::rights::denied;
use crate::row_builder::{Rows, TEXT, TIME, schema};
use crate::session::Session;
use crate::sql::statement::{CreateToken, Expiry};
use crate::standing::Standing;
use crate::tables::Tables;
use crate::users::unknown_user;

/// What tells them from other bearer tokens.
const PREFIX: &str = "serac_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Tokens of one user.
const OF_USER_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 128;

/// Why a token was not taken: for logs, and not for who came by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedToken {
    /// Whose it is or was, if it is one.
    pub user: Option<String>,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Engine {
    /// Whether a bearer token is an API token, by its form.
    pub fn is_api_token(token: &str) -> bool {
        id_of(token).is_some()
    }

    /// The login of who comes by this token.
    pub fn by_api_token(&self, token: &str) -> std::result::Result<Standing, RefusedToken> {
        let snapshot = self.store.snapshot();
        find(snapshot.catalog(), token, self.now_ns())
    }
}

/// The login that a token stands for, by this catalog and time.
fn find(catalog: &Catalog, token: &str, now_ns: i64) -> std::result::Result<Standing, RefusedToken> {
    let hash = blake3::hash(token.as_bytes());
    let known = id_of(token).and_then(|id| catalog.token(id));
    // Compared in constant time.
    let known = known.filter(|known| blake3::Hash::from_hex(&known.hash).is_ok_and(|stored| stored == hash));
    let known = known.ok_or(RefusedToken { user: None, why: "there is no such token" })?;
    let refused = |why| RefusedToken { user: Some(known.user.clone()), why };
    if known.expires_at_ns.is_some_and(|until| until <= now_ns) {
        return Err(refused("the token has expired"));
    }
    let user = catalog.user(&known.user);
    user.and_then(|user| Standing::by_token(user, known)).ok_or_else(|| refused("its user was dropped"))
}

fn id_of(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES && is_hex(id) && is_hex(secret)).then_some(id)
}

/// The columns of CREATE TOKEN.
pub(crate) fn created_schema() -> SchemaRef {
    schema(&[("token_id", TEXT, false), ("token", TEXT, false), ("user_id", TEXT, false), ("expires_at", TIME, true)])
}

/// CREATE TOKEN: one row, the only time that the token is shown.
pub(crate) async fn create(
    engine: &Engine,
    session: &Session,
    tables: &Tables,
    create: &CreateToken,
) -> Result<ResultRows> {
    let user = owner(tables, create)?;
    let catalog = tables.catalog();
    if catalog.tokens().filter(|token| token.user == user).count() >= OF_USER_MAX {
        return Err(EngineError::new(
            ErrorKind::ResourceExhausted,
            format!("user '{user}' has {OF_USER_MAX} tokens, the limit: drop those that are not used (system.tokens)"),
        ));
    }
    if create.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err(EngineError::invalid(format!("a token's name must have 1 to {NAME_BYTES_MAX} bytes")));
    }
    let now_ns = engine.now_ns();
    let expires_at_ns = create.expires.as_ref().map(|expiry| expires_at(expiry, now_ns)).transpose()?;
    let (id, secret) = (random_hex::<ID_BYTES>()?, random_hex::<SECRET_BYTES>()?);
    let token = format!("{PREFIX}{id}_{secret}");
    let record = TokenRecord {
        id: id.clone(),
        name: create.name.clone(),
        user: user.clone(),
        hash: blake3::hash(token.as_bytes()).to_hex().to_string(),
        last_four: secret[secret.len() - 4..].to_owned(),
        created_at_ns: now_ns,
        created_by: session.principal().name().to_owned(),
        expires_at_ns,
        role_max: ceiling(session, tables, &user).map(|role| role.to_string()),
    };
    let owned = same_role(catalog, &user);
    let changes = owned.into_iter().chain([CatalogChange::CreateToken(record)]).collect();
    engine.change_catalog(session, changes).await?;
    let mut rows = Rows::new(created_schema());
    rows.text(0, Some(&id));
    rows.text(1, Some(&token));
    rows.text(2, Some(&user));
    rows.time(3, expires_at_ns);
    let batch = rows.finish()?;
    Ok(Box::pin(RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch)]))))
}

/// Whose the token will be.
fn owner(tables: &Tables, create: &CreateToken) -> Result<String> {
    let own = &tables.principal;
    let stored = tables.catalog().user(own.name()).and_then(|user| user.role.parse::<Role>().ok());
    if stored != Some(own.role()) {
        return Err(denied(
            "this login has a lower role than its user: it makes no tokens, which would have the user's",
        ));
    }
    let Some(name) = create.user.as_ref().filter(|name| *name != own.name()) else {
        return Ok(own.name().to_owned());
    };
    if own.role() < Role::Admin {
        return Err(denied("CREATE TOKEN … FOR USER requires the role admin or a higher one"));
    }
    tables.catalog().live_user(name).ok_or_else(|| unknown_user(name))?;
    if highest_role(tables, name)? > Some(own.role()) {
        return Err(denied("a token for a user of a higher role than one's own cannot be made"));
    }
    Ok(name.clone())
}

/// What role a token never exceeds, whatever its user becomes: that of another who makes it, and what the maker's own login
/// never exceeds. So nobody comes to more by making tokens than they have.
fn ceiling(session: &Session, tables: &Tables, user: &str) -> Option<Role> {
    let maker = &tables.principal;
    let of_another = (user != maker.name()).then_some(maker.role());
    [of_another, session.principal().role_max()].into_iter().flatten().min()
}

/// The role of a user, dropped ones included: in a transaction the higher one of what it sees and what is so outside of it.
fn highest_role(tables: &Tables, name: &str) -> Result<Option<Role>> {
    let catalogs = [Some(tables.catalog()), tables.newest.as_ref()];
    let users = catalogs.into_iter().flatten().filter_map(|catalog| catalog.user(name));
    let roles = users.map(|user| user.role.parse()).collect::<Result<Vec<Role>>>()?;
    Ok(roles.into_iter().max())
}

/// That whose token it is has still the role that decided. A dropped user's is none that anybody comes by.
fn same_role(catalog: &Catalog, name: &str) -> Option<CatalogChange> {
    let user = catalog.live_user(name)?;
    Some(Premise::Role { user: user.name.clone(), role: user.role.clone() }.into())
}

/// DROP TOKEN: one's own, or as an admin that of a user of no higher role.
pub(crate) async fn drop_token(
    engine: &Engine,
    session: &Session,
    tables: &Tables,
    id: &str,
    if_exists: bool,
) -> Result<()> {
    let own = &tables.principal;
    // Whether others have a token of this id is not for everybody to know.
    let is_known = |token: &&Arc<TokenRecord>| token.user == own.name() || own.role() >= Role::Admin;
    let dropped = match tables.catalog().token(id).filter(is_known) {
        None => Err(EngineError::not_found(format!("token '{id}' does not exist: system.tokens has those that do"))),
        Some(token) => {
            if token.user != own.name() && highest_role(tables, &token.user)? > Some(own.role()) {
                return Err(denied("a token of a user of a higher role than one's own cannot be dropped"));
            }
            let owned = same_role(tables.catalog(), &token.user);
            let changes = owned.into_iter().chain([CatalogChange::DropToken(id.to_owned())]).collect();
            engine.change_catalog(session, changes).await
        }
    };
    forgive(dropped, ErrorKind::NotFound, if_exists)
}

/// `system.tokens`: one's own, to an admin all.
pub(crate) fn listed(tables: &Tables) -> Result<RecordBatch> {
    let own = &tables.principal;
    let mut rows = Rows::new(listed_schema());
    let is_shown = |token: &&Arc<TokenRecord>| token.user == own.name() || own.role() >= Role::Admin;
    for token in tables.catalog().tokens().filter(is_shown) {
        rows.text(0, Some(&token.id));
        rows.text(1, token.name.as_deref());
        rows.text(2, Some(&token.user));
        rows.time(3, Some(token.created_at_ns));
        rows.text(4, Some(&token.created_by));
        rows.time(5, token.expires_at_ns);
        rows.text(6, Some(&token.last_four));
    }
    rows.finish()
}

pub(crate) fn listed_schema() -> SchemaRef {
    schema(&[
        ("token_id", TEXT, false),
        ("name", TEXT, true),
        ("user_id", TEXT, false),
        ("created_at", TIME, false),
        ("created_by", TEXT, false),
        ("expires_at", TIME, true),
        ("last_four", TEXT, false),
    ])
}

/// The time from which on a token is worth nothing.
fn expires_at(expiry: &Expiry, now_ns: i64) -> Result<i64> {
    let utc = || Some("+00:00".into());
    let at = match expiry {
        Expiry::At(text) => {
            let at = ScalarValue::from(text.as_str()).cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, utc()));
            at.map_err(|_| EngineError::invalid(format!("'{text}' is no time: write it like '2027-01-31T12:00:00Z'")))?
        }
        Expiry::In(text) => {
            let interval = DataType::Interval(IntervalUnit::MonthDayNano);
            let interval = ScalarValue::from(text.as_str()).cast_to(&interval);
            let at = interval.and_then(|interval| ScalarValue::TimestampNanosecond(Some(now_ns), utc()).add(interval));
            at.map_err(|_| EngineError::invalid(format!("'{text}' is no interval: write it like '30 days'")))?
        }
    };
    match at {
        ScalarValue::TimestampNanosecond(Some(at), _) if at > now_ns => Ok(at),
        _ => Err(EngineError::invalid("the token would have expired already: give a time in the future")),
    }
}

fn random_hex<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| EngineError::caused(ErrorKind::Unavailable, "no random numbers to be had", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use seracdb_storage::catalog::{CatalogRecord, UserRecord};

    use super::*;

    const ID: &str = "0123456789abcdef";

    fn token(last: char) -> String {
        format!("{PREFIX}{ID}_{}{last}", "0".repeat(63))
    }

    fn catalog(deleted_at_ns: Option<i64>) -> Catalog {
        Catalog::from_records([
            CatalogRecord::User(UserRecord {
                number: 1,
                name: "ann".into(),
                role: "user".into(),
                password_hash: String::new(),
                created_at_ns: 0,
                deleted_at_ns,
            }),
            CatalogRecord::Token(TokenRecord {
                id: ID.into(),
                name: None,
                user: "ann".into(),
                hash: blake3::hash(token('7').as_bytes()).to_hex().to_string(),
                last_four: "0007".into(),
                created_at_ns: 0,
                created_by: "ann".into(),
                expires_at_ns: Some(100),
                role_max: None,
            }),
        ])
    }

    #[test]
    fn a_token_is_its_users_until_it_expires() {
        assert_eq!(find(&catalog(None), &token('7'), 99).unwrap().principal().name(), "ann");
        let refused = |catalog: &Catalog, token: &str, now| find(catalog, token, now).unwrap_err();
        let unknown = RefusedToken { user: None, why: "there is no such token" };
        assert_eq!(refused(&catalog(None), &token('8'), 99), unknown);
        assert_eq!(refused(&catalog(None), &token('7').replace("cdef", "cdee"), 99), unknown);
        assert_eq!(refused(&Catalog::default(), &token('7'), 99), unknown);
        assert_eq!(refused(&catalog(None), &token('7'), 100).why, "the token has expired");
        assert_eq!(refused(&catalog(Some(1)), &token('7'), 99).user.as_deref(), Some("ann"));
    }

    #[test]
    fn tokens_are_known_by_their_form() {
        let random = format!("{PREFIX}{}_{}", random_hex::<ID_BYTES>().unwrap(), random_hex::<SECRET_BYTES>().unwrap());
        assert!(Engine::is_api_token(&random));
        assert!(Engine::is_api_token(&token('7')));
        for other in ["", PREFIX, "serac_0123456789abcdef_00", "a.b.c", &token('7')[1..], &token('G'), &token('é')] {
            assert!(!Engine::is_api_token(other), "{other}");
        }
    }

    #[test]
    fn times_of_expiry() {
        let now = 1_600_000_000_000_000_000;
        let day = 86_400_000_000_000;
        for (expiry, expected) in [
            (Expiry::In("30 days".into()), now + 30 * day),
            (Expiry::In("1 hour".into()), now + day / 24),
            (Expiry::At("2020-09-14T12:26:40Z".into()), now + day),
            (Expiry::At("2020-09-14 12:26:40".into()), now + day),
            (Expiry::At("2020-09-14T14:26:40+02:00".into()), now + day),
        ] {
            assert_eq!(expires_at(&expiry, now).unwrap(), expected, "{expiry:?}");
        }
        for wrong in ["soon", "", "2020-09-12", "1970-01-01", "9999-01-01"] {
            assert!(expires_at(&Expiry::At(wrong.into()), now).is_err(), "{wrong}");
        }
        for wrong in ["soon", "", "0 days", "-1 day", "99999999 years"] {
            assert!(expires_at(&Expiry::In(wrong.into()), now).is_err(), "{wrong}");
        }
    }
}
