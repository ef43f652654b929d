//! API tokens: whose they are, and until when.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, CatalogRecord, CatalogWrite};

/// An API token. Only who was given it knows what it says: here is its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// What it is called by: a part of the token that is no secret.
    pub id: String,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the user who comes by it.
    pub user: String,
    /// BLAKE3 of the token, in hex. In no result and no log.
    pub hash: String,
    /// The token's last four characters, for who has several.
    pub last_four: String,
    /// Nanoseconds since the Unix epoch.
    pub created_at_ns: i64,
    /// Name of the user who made it.
    pub created_by: String,
    /// From when on it is worth nothing; `None` = never.
    #[serde(default)]
    pub expires_at_ns: Option<i64>,
    /// A role, as the engine names it: a login by the token has no higher one, whatever its user becomes. `None` = it has its
    /// user's, or is from before there was this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_max: Option<String>,
}

impl std::fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRecord").field("id", &self.id).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Catalog {
    /// A token by its id.
    pub fn token(&self, id: &str) -> Option<&Arc<TokenRecord>> {
        self.tokens.get(id)
    }

    /// All tokens by id.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<TokenRecord>> {
        self.tokens.values()
    }

    pub(super) fn create_token(&mut self, record: &TokenRecord) -> Result<Vec<CatalogWrite>, CatalogError> {
        if self.tokens.contains_key(&record.id) {
            return Err(CatalogError::TokenExists(record.id.clone()));
        }
        if self.live_user(&record.user).is_none() {
            return Err(CatalogError::NoUser(record.user.clone()));
        }
        Ok(vec![self.put(CatalogRecord::Token(record.clone()))])
    }

    pub(super) fn drop_token(&mut self, id: &str) -> Result<Vec<CatalogWrite>, CatalogError> {
        match self.tokens.remove(id) {
            Some(_) => Ok(vec![CatalogWrite::RemoveToken(id.to_owned())]),
            None => Err(CatalogError::NoToken(id.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::create_user;
    use super::super::{CatalogChange, UserBecomes, UserChange};
    use super::*;

    fn token(id: &str) -> TokenRecord {
        TokenRecord {
            id: id.into(),
            name: None,
            user: "ann".into(),
            hash: "secret".into(),
            last_four: "wxyz".into(),
            created_at_ns: 1,
            created_by: "root".into(),
            expires_at_ns: Some(2),
            role_max: Some("user".into()),
        }
    }

    fn with(names: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        names.iter().for_each(|name| drop(catalog.apply(&create_user(name, "user")).unwrap()));
        catalog
    }

    #[test]
    fn a_token_is_there_until_it_is_dropped() {
        let mut catalog = with(&["ann"]);
        let writes = catalog.apply(&CatalogChange::CreateToken(token("a"))).unwrap();
        let [CatalogWrite::Put(record)] = &writes[..] else { panic!("{writes:?}") };
        assert!(matches!(&**record, CatalogRecord::Token(record) if record.id == "a"));
        assert_eq!(**catalog.token("a").unwrap(), token("a"));
        assert!(matches!(catalog.apply(&CatalogChange::CreateToken(token("a"))), Err(CatalogError::TokenExists(_))));
        let drop = CatalogChange::DropToken("a".into());
        assert!(matches!(&catalog.apply(&drop).unwrap()[..], [CatalogWrite::RemoveToken(id)] if id == "a"));
        assert!(matches!(catalog.apply(&drop), Err(CatalogError::NoToken(_))));
        assert_eq!(catalog.tokens().count(), 0);
    }

    #[test]
    fn who_is_not_there_gets_no_token() {
        let create = CatalogChange::CreateToken(token("a"));
        assert_eq!(Catalog::default().apply(&create).unwrap_err(), CatalogError::NoUser("ann".into()));
        let mut catalog = with(&["root", "ann"]);
        let to = UserBecomes::Dropped { at_ns: 7 };
        catalog
            .apply(&CatalogChange::ChangeUser(UserChange { name: "ann".into(), role_was: "user".into(), to }))
            .unwrap();
        assert_eq!(catalog.apply(&create).unwrap_err(), CatalogError::NoUser("ann".into()));
    }

    #[test]
    fn no_log_shows_the_hash_and_the_record_is_as_it_was() {
        assert!(!format!("{:?}", token("a")).contains("secret"));
        let json = serde_json::to_string(&token("a")).unwrap();
        assert_eq!(serde_json::from_str::<TokenRecord>(&json).unwrap(), token("a"));
    }
}
