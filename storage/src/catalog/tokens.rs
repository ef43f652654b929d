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
    use super::super::CatalogChange;
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
        }
    }

    #[test]
    fn a_token_is_there_until_it_is_dropped() {
        let mut catalog = Catalog::default();
        let writes = catalog.apply(&CatalogChange::CreateToken(token("a"))).unwrap();
        assert!(matches!(&writes[..], [CatalogWrite::Put(CatalogRecord::Token(record))] if record.id == "a"));
        assert_eq!(**catalog.token("a").unwrap(), token("a"));
        assert!(matches!(catalog.apply(&CatalogChange::CreateToken(token("a"))), Err(CatalogError::TokenExists(_))));
        let drop = CatalogChange::DropToken("a".into());
        assert!(matches!(&catalog.apply(&drop).unwrap()[..], [CatalogWrite::RemoveToken(id)] if id == "a"));
        assert!(matches!(catalog.apply(&drop), Err(CatalogError::NoToken(_))));
        assert_eq!(catalog.tokens().count(), 0);
    }

    #[test]
    fn no_log_shows_the_hash_and_the_record_is_as_it_was() {
        assert!(!format!("{:?}", token("a")).contains("secret"));
        let json = serde_json::to_string(&token("a")).unwrap();
        assert_eq!(serde_json::from_str::<TokenRecord>(&json).unwrap(), token("a"));
    }
}
