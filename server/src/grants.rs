//! What calls and sessions rest on, and their end: within a second of what they rest on, also in the middle of a result.
//!
//! Every call asks whether its grant stands. What runs for long is ended by a look at all grants twice a second.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use seracdb_engine::{Engine, Standing};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::jwt::{Jwt, KeyId};

/// What a call has for its answer when its login ends: it may be what has ended it.
const GRACE: Duration = Duration::from_millis(100);

/// A login, shared by all that rests on it.
#[derive(Debug)]
pub(crate) struct Grant {
    standing: Standing,
    /// The key of a JWT.
    key: Option<KeyId>,
    ended: CancellationToken,
}

impl Grant {
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Fires when it has ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Does something as long as it stands. What is dropped then ends like that of a client that goes away.
    pub(crate) async fn hold<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = self.ended.cancelled() => {}
        }
        tokio::time::timeout(GRACE, work).await.unwrap_or_else(|_| Err(ended()))
    }
}

/// What is said where a login has ended.
pub(crate) fn ended() -> Status {
    Status::unauthenticated(
        "this login has ended: its token expired or was dropped, or its user was changed or dropped. Log in again",
    )
}

/// All grants that something rests on.
pub(crate) struct Grants {
    engine: Arc<Engine>,
    jwt: Option<Arc<Jwt>>,
    live: Mutex<Vec<Weak<Grant>>>,
}

impl Grants {
    pub(crate) fn new(engine: Arc<Engine>, jwt: Option<Arc<Jwt>>) -> Self {
        Self { engine, jwt, live: Mutex::default() }
    }

    pub(crate) fn open(&self, standing: Standing, key: Option<KeyId>) -> Arc<Grant> {
        let grant = Arc::new(Grant { standing, key, ended: CancellationToken::new() });
        self.live.lock().push(Arc::downgrade(&grant));
        grant
    }

    /// Whether it stands. One that does not ends here, and for good.
    pub(crate) fn stands(&self, grant: &Grant) -> bool {
        let is_key_there = || match (&grant.key, &self.jwt) {
            (Some(key), Some(jwt)) => jwt.has(key),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let stands = !grant.ended.is_cancelled() && self.engine.stands(&grant.standing) && is_key_there();
        if !stands {
            grant.ended.cancel();
        }
        stands
    }

    /// Ends those that do not stand any more, and forgets those that nothing rests on.
    pub(crate) fn sweep(&self) {
        let mut live = self.live.lock();
        live.retain(|grant| grant.upgrade().is_some_and(|grant| self.stands(&grant)));
        if live.len() < live.capacity() / 4 {
            live.shrink_to_fit();
        }
    }
}
