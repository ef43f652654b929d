//! What the client of an S3 object store is told besides its URL: credentials, region, address.
//!
//! They have the names that all programs for S3 read from the environment. Whoever opens a store hands them down: nothing here
//! looks at the environment.

use std::collections::BTreeMap;
use std::fmt;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

/// What such names begin with.
const PREFIX: &str = "AWS_";

/// Credentials, region and address, by the names of their variables. `Debug` hides the values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Access(BTreeMap<String, String>);

impl S3Access {
    /// Those of these variables that the client knows.
    pub fn from_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let known = variables.into_iter().filter(|(name, _)| key(name).is_some());
        Self(known.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Names and values; `None` for a value that is nobody's business.
    pub fn shown(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let is_secret = |name: &str| ["SECRET", "TOKEN", "KEY"].iter().any(|part| name.contains(part));
        self.0.iter().map(move |(name, value)| (name.as_str(), (!is_secret(name)).then_some(value.as_str())))
    }

    /// Tells them to a client that is being made.
    pub(crate) fn tell(&self, client: AmazonS3Builder) -> AmazonS3Builder {
        let known = self.0.iter().filter_map(|(name, value)| Some((key(name)?, value)));
        known.fold(client, |client, (key, value)| client.with_config(key, value))
    }
}

impl fmt::Debug for S3Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn key(name: &str) -> Option<AmazonS3ConfigKey> {
    name.strip_prefix(PREFIX)?;
    name.to_ascii_lowercase().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_told_what_it_knows_and_nobody_else_the_secrets() {
        let access = S3Access::from_variables([
            ("AWS_REGION", "eu-central-1"),
            ("AWS_SECRET_ACCESS_KEY", "geheim"),
            ("AWS_SESSION_TOKEN", "geheim"),
            ("AWS_PROFILE", "unknown to it"),
            ("aws_region", "another name"),
            ("PATH", "/bin"),
        ]);
        let shown: Vec<_> = access.shown().collect();
        let region = ("AWS_REGION", Some("eu-central-1"));
        assert_eq!(shown, [region, ("AWS_SECRET_ACCESS_KEY", None), ("AWS_SESSION_TOKEN", None)]);
        assert!(!format!("{access:?}").contains("geheim"));
        let client = access.tell(AmazonS3Builder::new());
        assert_eq!(client.get_config_value(&AmazonS3ConfigKey::SecretAccessKey).as_deref(), Some("geheim"));
        assert_eq!(client.get_config_value(&AmazonS3ConfigKey::Region).as_deref(), Some("eu-central-1"));
    }
}
