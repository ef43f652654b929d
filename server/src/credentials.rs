//! What a request says about who sends it.

use arrow_flight::BasicAuth;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::Message;
use secrecy::SecretString;
use tonic::metadata::MetadataMap;

/// Go sends base64 without padding, everybody else with it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Who it says it is, with what proves it.
pub(crate) enum Credentials {
    Basic { user: String, password: SecretString },
    Bearer(String),
}

/// An authorization header that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a call's headers say; `None` = nothing.
pub(crate) fn credentials(metadata: &MetadataMap) -> Result<Option<Credentials>, Malformed> {
    let Some(header) = metadata.get("authorization") else {
        // Where Arrow's C++ and Python clients put the token after a handshake with a payload.
        let token = metadata.get_bin("auth-token-bin").and_then(|value| value.to_bytes().ok());
        return Ok(token.map(|token| Credentials::Bearer(String::from_utf8_lossy(&token).into_owned())));
    };
    let header = header.to_str().map_err(|_| Malformed)?.trim();
    let (scheme, value) = header.split_once(' ').ok_or(Malformed)?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Credentials::Bearer(value.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Malformed);
    }
    let decoded = BASE64.decode(value).map_err(|_| Malformed)?;
    let decoded = String::from_utf8(decoded).map_err(|_| Malformed)?;
    let (user, password) = decoded.split_once(':').ok_or(Malformed)?;
    Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.into() }))
}

/// What the body of a handshake says, where some clients put user and password.
pub(crate) fn from_payload(payload: &[u8]) -> Option<(String, SecretString)> {
    let auth = BasicAuth::decode(payload).ok()?;
    (!auth.username.is_empty()).then(|| (auth.username, auth.password.into()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use tonic::metadata::MetadataValue;

    use super::*;

    fn header(value: &str) -> Result<Option<Credentials>, Malformed> {
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
            assert!(header(value).is_err(), "{value} was accepted");
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
