//! JWTs that somebody else has signed: whom they vouch for, and until when.
//!
//! A JWT makes no user: its user has to be there. What it says of a role can only take away. Nothing that a token says of
//! itself is believed before its signature is right: the algorithm has to be one of those that are set, and the key one of the
//! file's that is for this algorithm. Refused is refused: who sends a wrong one learns no reason.
//!
//! Calls never wait for the file: it is looked at beside them.

mod keys;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use parking_lot::Mutex;
use seracdb_engine::Role;
use serde_json::{Map, Value};

pub(crate) use self::keys::{KeyId, KeysError};
use self::keys::{Keys, Version};
use crate::config::AuthSection;

/// Time that a token may be early, as clocks differ: it only just was made. None may be late.
const EARLY_NS: i64 = 30_000_000_000;

/// How often the file is looked at: a key that is not in it any more is worth nothing within a second.
const LOOK: Duration = Duration::from_millis(500);

type Claims = Map<String, Value>;

/// Whom a JWT vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub(crate) user: String,
    /// The user has no more than this role.
    pub(crate) role_max: Option<Role>,
    pub(crate) until_ns: i64,
    /// The key that has signed it.
    pub(crate) key: KeyId,
}

/// What is wrong with a JWT: for logs, and not for who sent it.
pub(crate) type Fault = &'static str;

/// What JWTs have to be like, and the keys.
pub(crate) struct Jwt {
    rules: Rules,
    algorithms: Vec<Algorithm>,
    file: PathBuf,
    /// Of the file when it was last read, whether or not it could be used.
    seen: Mutex<Version>,
    keys: ArcSwap<Keys>,
}

/// What the claims have to say.
#[derive(Debug, Clone)]
struct Rules {
    issuer: String,
    audience: String,
    user_claim: String,
    role_claim: Option<String>,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("rules", &self.rules).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Jwt {
    /// By the settings, which are complete when there is a file; `None` when there is none.
    pub(crate) fn open(config: &AuthSection) -> Result<Option<Self>, KeysError> {
        let (Some(file), Some(issuer), Some(audience)) = (&config.jwks_file, &config.jwt_issuer, &config.jwt_audience)
        else {
            return Ok(None);
        };
        verify::install();
        let rules = Rules {
            issuer: issuer.clone(),
            audience: audience.clone(),
            user_claim: config.jwt_user_claim.clone(),
            role_claim: config.jwt_role_claim.clone(),
        };
        let algorithms = config.jwt_algorithms.iter().filter_map(|name| algorithm(name)).collect();
        let seen = Version::of(file);
        let keys = ArcSwap::from_pointee(Keys::read(file)?);
        Ok(Some(Self { rules, algorithms, file: file.clone(), seen: Mutex::new(seen), keys }))
    }

    /// Whom a token vouches for at this time.
    pub(crate) fn vouched(&self, token: &str, now_ns: i64) -> Result<Vouched, Fault> {
        let header = decode_header(token).map_err(|_| "it is no JWT")?;
        if !self.algorithms.contains(&header.alg) {
            return Err("its algorithm is not one of auth.jwt_algorithms");
        }
        if header.crit.is_some() {
            return Err("its header has what must be understood, and is not");
        }
        let keys = self.keys.load();
        let mut validation = Validation::new(header.alg);
        // The claims are looked at below: by the server's clock, and strictly.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let signed = keys.fitting(header.kid.as_deref(), header.alg).find_map(|key| {
            let claims = decode::<Claims>(token, &key.decoding, &validation).ok()?.claims;
            Some((claims, key.id))
        });
        let (claims, key) = signed.ok_or("no key of auth.jwks_file has signed it")?;
        self.rules.vouched(&claims, key, now_ns)
    }

    /// Whether the file had a key when it was last looked at.
    pub(crate) fn has(&self, key: &KeyId) -> bool {
        self.keys.load().has(key)
    }

    /// Takes over what the file becomes, for as long as it runs.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let jwt = Arc::clone(&self);
            // It may be on a disk that takes its time, or for ever.
            let _ = tokio::task::spawn_blocking(move || jwt.look()).await;
        }
    }

    fn look(&self) {
        // Before reading: what changes from here on is read the next time.
        let now = Version::of(&self.file);
        let mut seen = self.seen.lock();
        if *seen == now {
            return;
        }
        // Whatever it says is said once for each state of the file.
        *seen = now;
        match Keys::read(&self.file) {
            Ok(new) => self.keys.store(Arc::new(new)),
            Err(error) => tracing::error!(%error, "the keys of before stay in use"),
        }
    }
}

impl Rules {
    fn vouched(&self, claims: &Claims, key: KeyId, now_ns: i64) -> Result<Vouched, Fault> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("its issuer is another");
        }
        let is_for_us = match claims.get("aud") {
            Some(Value::String(audience)) => *audience == self.audience,
            Some(Value::Array(audiences)) => audiences.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => false,
        };
        if !is_for_us {
            return Err("it is for another audience");
        }
        let until_ns = claims.get("exp").and_then(time_ns).ok_or("it does not say when it expires")?;
        if until_ns <= now_ns {
            return Err("it has expired");
        }
        match claims.get("nbf").map(time_ns) {
            None => {}
            Some(Some(from)) if from <= now_ns.saturating_add(EARLY_NS) => {}
            Some(Some(_)) => return Err("it is not valid yet"),
            Some(None) => return Err("it does not say from when on it is valid"),
        }
        let user = claims.get(&self.user_claim).and_then(Value::as_str).filter(|user| !user.is_empty());
        let user = user.ok_or("it does not say whose it is")?.to_owned();
        let role_max = match &self.role_claim {
            None => None,
            Some(name) => {
                let role = claims.get(name).ok_or("it does not say a role (auth.jwt_role_claim)")?;
                let role = role.as_str().and_then(|role| role.parse().ok());
                Some(role.ok_or("its role is none")?)
            }
        };
        Ok(Vouched { user, role_max, until_ns, key })
    }
}

/// A NumericDate: seconds since the Unix epoch, whole or not.
fn time_ns(value: &Value) -> Option<i64> {
    match value.as_i64() {
        Some(seconds) => Some(seconds.saturating_mul(1_000_000_000)),
        None => value.as_f64().map(|seconds| (seconds * 1e9) as i64),
    }
}

/// A bearer token of three parts is a JWT, and none of ours.
pub(crate) fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3
}

/// An algorithm by its name, if it is one with a public key.
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    name.parse()
        .ok()
        .filter(|algorithm| matches!(algorithm, ES256 | ES384 | EdDSA | PS256 | PS384 | PS512 | RS256 | RS384 | RS512))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_000_000_000_000;

    fn rules() -> Rules {
        Rules {
            issuer: "https://id".into(),
            audience: "seracdb".into(),
            user_claim: "sub".into(),
            role_claim: Some("role".into()),
        }
    }

    fn vouched(change: impl FnOnce(&mut Claims)) -> Result<Vouched, Fault> {
        let claims = json!({ "iss": "https://id", "aud": "seracdb", "exp": 1001, "sub": "ann", "role": "system" });
        let Value::Object(mut claims) = claims else { panic!("an object") };
        change(&mut claims);
        rules().vouched(&claims, KeyId::default(), NOW)
    }

    fn with(name: &str, value: Value) -> Result<Vouched, Fault> {
        vouched(|claims| drop(claims.insert(name.into(), value)))
    }

    #[test]
    fn what_the_claims_say_counts() {
        let ann = vouched(|_| {}).unwrap();
        assert_eq!((ann.user.as_str(), ann.role_max, ann.until_ns), ("ann", Some(Role::System), 1_001_000_000_000));
        assert!(with("aud", json!(["other", "seracdb"])).is_ok());
        assert!(with("nbf", json!(1000)).is_ok());
        assert!(with("nbf", json!(1030)).is_ok());
        assert_eq!(with("exp", json!(1000.5)).unwrap().until_ns, 1_000_500_000_000);
        assert_eq!(with("role", json!("user")).unwrap().role_max, Some(Role::User));
        let claims = json!({ "iss": "https://id", "aud": "seracdb", "exp": 1001, "sub": "ann", "role": "user" });
        let without = Rules { role_claim: None, ..rules() };
        let Value::Object(claims) = claims else { panic!("an object") };
        assert_eq!(without.vouched(&claims, KeyId::default(), NOW).unwrap().role_max, None, "nobody asked for a role");
    }

    #[test]
    fn what_they_do_not_say_rightly_is_refused() {
        for name in ["iss", "aud", "exp", "sub", "role"] {
            assert!(vouched(|claims| drop(claims.remove(name))).is_err(), "without {name}");
        }
        for (name, value) in [
            ("iss", json!("https://id/")),
            ("iss", json!(["https://id"])),
            ("aud", json!("SeracDB")),
            ("aud", json!([])),
            ("aud", json!({ "seracdb": true })),
            ("exp", json!(1000)),
            ("exp", json!(-1)),
            ("exp", json!("1001")),
            ("exp", json!(null)),
            ("nbf", json!(1031)),
            ("nbf", json!("1")),
            ("nbf", json!(null)),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("role", json!("emperor")),
            ("role", json!(["admin"])),
            ("role", json!(null)),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} = {value}");
        }
    }

    #[test]
    fn only_algorithms_with_a_public_key_are_known() {
        assert!(["RS256", "PS512", "ES256", "ES384", "EdDSA"].iter().all(|name| algorithm(name).is_some()));
        assert!(["none", "HS256", "HS512", "", "rs256"].iter().all(|name| algorithm(name).is_none()));
    }
}
