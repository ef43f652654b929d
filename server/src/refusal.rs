//! Why logins are refused: what the log and the audit log have of it, and what is said to who was refused.

use std::time::Duration;

use tonic::Status;

use crate::auth::Crowded;
use crate::grants::ended;

/// Why a login was refused. The log may know, who sent it need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoCredentials,
    Malformed,
    /// Or an unknown user.
    WrongPassword,
    /// After wrong passwords, for so long.
    LockedOut(Duration),
    /// There are too many that wait for a login already.
    Crowded(Crowded),
    /// A token that no session has, or not any more.
    NoSession,
    /// What the session was opened with has ended.
    SessionEnded,
    ApiToken(&'static str),
    Jwt(&'static str),
}

impl Refusal {
    /// Its name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoCredentials => "no credentials",
            Self::Malformed => "malformed credentials",
            Self::WrongPassword => "wrong user name or password",
            Self::LockedOut(_) => "locked out after wrong passwords",
            Self::Crowded(_) => "too many logins at the same time",
            Self::NoSession => "unknown session",
            Self::SessionEnded => "what the session was opened with has ended",
            Self::ApiToken(_) => "API token",
            Self::Jwt(_) => "JWT",
        }
    }

    /// Its name among figures.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::Malformed => "malformed",
            Self::WrongPassword => "wrong_password",
            Self::LockedOut(_) => "locked_out",
            Self::Crowded(_) => "crowded",
            Self::NoSession => "no_session",
            Self::SessionEnded => "session_ended",
            Self::ApiToken(_) => "api_token",
            Self::Jwt(_) => "jwt",
        }
    }

    /// What is not said to who was refused.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::ApiToken(why) | Self::Jwt(why) => why,
            Self::Crowded(crowded) => crowded.setting(),
            _ => "",
        }
    }

    /// What is said to who was refused. It tells nothing of whether there is such a user, token or key.
    pub(crate) fn status(self) -> Status {
        let text = match self {
            Self::NoCredentials => {
                "no credentials: log in with user and password (Handshake, or an 'authorization: Basic' header on the call), \
                 or send the 'authorization: Bearer' token of a login"
            }
            Self::Malformed => "the authorization header is malformed: send 'Basic …' or 'Bearer …'",
            Self::WrongPassword => "wrong user name or password",
            Self::LockedOut(wait) => {
                return Status::unauthenticated(format!(
                    "too many wrong passwords for this user from here: wait {} s",
                    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
                ));
            }
            Self::Crowded(crowded) => return Status::resource_exhausted(crowded.to_string()),
            Self::NoSession => "the token is unknown or its session ended: log in again",
            Self::SessionEnded => return ended(),
            Self::ApiToken(_) | Self::Jwt(_) => {
                "the token is not accepted: it is unknown, expired, or not for this server"
            }
        };
        Status::unauthenticated(text)
    }

    /// Whether the audit log has it. Not what comes without saying who it is, and not what is refused without a look: that
    /// is as often as somebody likes, after what the log has of it already.
    fn is_audited(self) -> bool {
        matches!(self, Self::WrongPassword | Self::ApiToken(_) | Self::Jwt(_))
    }

    /// Whether a status says that the session of a call has ended.
    pub(crate) fn is_of_ended_session(status: &Status) -> bool {
        status.message() == Self::SessionEnded.status().message()
    }
}

/// A login that was refused, or that something else has kept from being one.
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// Who it was said to be, and why not, for the audit log.
    pub(crate) entry: Option<(String, String)>,
}

impl Refused {
    pub(crate) fn new(user: Option<&str>, why: Refusal) -> Self {
        let reason = match why.detail() {
            "" => why.name().to_owned(),
            detail => format!("{}: {detail}", why.name()),
        };
        let entry = why.is_audited().then(|| (user.unwrap_or_default().to_owned(), reason));
        Self { status: why.status(), entry }
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { status, entry: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_nothing_of_what_there_is() {
        let texts =
            |refusals: &[Refusal]| refusals.iter().map(|why| why.status().message().to_owned()).collect::<Vec<_>>();
        let tokens = texts(&[Refusal::ApiToken("expired"), Refusal::ApiToken("unknown"), Refusal::Jwt("wrong key")]);
        assert!(tokens.iter().all(|text| *text == tokens[0]));
        assert_eq!(texts(&[Refusal::LockedOut(Duration::from_millis(1500))])[0].split(": ").nth(1), Some("wait 2 s"));
    }
}
