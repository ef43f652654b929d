//! Settings of credentials and sessions.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::jwt;

/// `[auth]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSection {
    /// Seconds without a call after which a session ends.
    #[schemars(range(min = 1))]
    pub session_idle_seconds: u64,
    /// Sessions at the same time. Further logins are refused. One user may have a quarter of them.
    #[schemars(range(min = 1))]
    pub sessions_max: usize,
    /// Seconds for which a checked password is remembered; 0 for not at all. One that is changed is forgotten at once.
    pub password_cache_seconds: u64,
    /// Wrong passwords of a user in a row, from one address, after which further ones have to wait; 0 for never.
    pub lockout_attempts: u32,
    /// Seconds of the first wait. Each further wrong password doubles it.
    #[schemars(range(min = 1))]
    pub lockout_seconds: u64,
    /// Seconds of the longest wait.
    #[schemars(range(min = 1))]
    pub lockout_seconds_max: u64,
    /// Users and addresses whose wrong passwords are counted: the last ones.
    #[schemars(range(min = 1))]
    pub lockout_entries_max: usize,
    /// Calls at the same time that wait for their login. Further ones are refused at once, with RESOURCE_EXHAUSTED.
    #[schemars(range(min = 1))]
    pub logins_max: usize,
    /// The same, of one address, or one /64 of IPv6. Behind a proxy all of them come from one.
    #[schemars(range(min = 1))]
    pub logins_address_max: usize,
    /// File of the public keys (JWKS) that JWTs are signed with; without it no JWT is taken. Read again when it
    /// changes.
    #[schemars(example = &"/etc/seracdb/jwks.json")]
    pub jwks_file: Option<PathBuf>,
    /// What the claim `iss` of a JWT has to be. Needed beside `jwks_file`.
    #[schemars(example = &"https://id.example.org/")]
    pub jwt_issuer: Option<String>,
    /// What the claim `aud` of a JWT has to be or to hold. Needed beside `jwks_file`.
    #[schemars(example = &"seracdb")]
    pub jwt_audience: Option<String>,
    /// Algorithms that a JWT may be signed with: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA.
    pub jwt_algorithms: Vec<String>,
    /// The claim with the user's name. The user has to be there: a JWT makes none.
    pub jwt_user_claim: String,
    /// The claim with a role, which can only lower that of the user. A JWT without it is refused.
    #[schemars(example = &"role")]
    pub jwt_role_claim: Option<String>,
}

impl AuthSection {
    pub(super) fn problems(&self) -> Vec<Problem> {
        const ALGORITHMS: &str = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
        let unknown = self.jwt_algorithms.iter().filter(|name| jwt::algorithm(name).is_none());
        let problem = |name: &String| Problem::value("auth.jwt_algorithms", name.as_str(), ALGORITHMS);
        let mut found: Vec<_> = unknown.map(problem).collect();
        if self.lockout_seconds > self.lockout_seconds_max {
            let expected = format!("at most auth.lockout_seconds_max, which is {}", self.lockout_seconds_max);
            found.push(Problem::value("auth.lockout_seconds", self.lockout_seconds, &expected));
        }
        if self.jwks_file.is_none() {
            return found;
        }
        let is_set = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
        let needed = [
            ("auth.jwt_issuer", is_set(&self.jwt_issuer)),
            ("auth.jwt_audience", is_set(&self.jwt_audience)),
            ("auth.jwt_algorithms", !self.jwt_algorithms.is_empty()),
            ("auth.jwt_user_claim", !self.jwt_user_claim.is_empty()),
        ];
        let lacking = needed.into_iter().filter(|(_, is_set)| !is_set).map(|(name, _)| name);
        found.extend(
            lacking.map(|name| Problem::lacking("auth.jwks_file", name, "a JWT is safe with all of them only")),
        );
        found
    }
}

impl Default for AuthSection {
    fn default() -> Self {
        Self {
            session_idle_seconds: 3600,
            sessions_max: 10_000,
            password_cache_seconds: 15,
            lockout_attempts: 10,
            lockout_seconds: 1,
            lockout_seconds_max: 900,
            lockout_entries_max: 100_000,
            logins_max: 1000,
            logins_address_max: 250,
            jwks_file: None,
            jwt_issuer: None,
            jwt_audience: None,
            jwt_algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            jwt_user_claim: "sub".into(),
            jwt_role_claim: None,
        }
    }
}
