//! The sessions of clients that go on after a call, for who wants to see them.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::engine::Engine;
use crate::identity::Principal;
use crate::session::{Session, Shared};

/// Sessions below which those that are gone are not looked for.
const LOOK_FROM: usize = 64;

/// All sessions that somebody holds.
#[derive(Debug, Default)]
pub(crate) struct SessionList(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: Vec<Listed>,
    /// How many there were left when those that are gone were last taken out.
    left: usize,
}

/// A session, as it was opened.
#[derive(Debug, Clone)]
struct Listed {
    session: Weak<Shared>,
    principal: Principal,
    login: &'static str,
    peer: Option<Arc<str>>,
    opened_ns: i64,
}

/// A session that is there.
#[derive(Debug)]
pub(crate) struct LiveSession {
    pub(crate) session: Arc<Shared>,
    pub(crate) principal: Principal,
    /// What it was opened with.
    pub(crate) login: &'static str,
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) opened_ns: i64,
}

impl SessionList {
    fn add(&self, listed: Listed) {
        let mut state = self.0.lock();
        if state.entries.len() >= LOOK_FROM.max(2 * state.left) {
            state.entries.retain(|listed| listed.session.strong_count() > 0);
            state.left = state.entries.len();
        }
        state.entries.push(listed);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().entries.iter().filter(|listed| listed.session.strong_count() > 0).count()
    }

    /// Those that there are, the oldest first.
    pub(crate) fn list(&self) -> Vec<LiveSession> {
        let entries = self.0.lock().entries.clone();
        let live = entries.into_iter().filter_map(|listed| {
            let Listed { session, principal, login, peer, opened_ns } = listed;
            Some(LiveSession { session: session.upgrade()?, principal, login, peer, opened_ns })
        });
        live.collect()
    }
}

impl Engine {
    /// Shows a session in `system.sessions`, as long as somebody holds it. `login`: what it was opened with.
    pub fn opened(&self, session: Session, login: &'static str) -> Session {
        self.sessions.add(Listed {
            session: Arc::downgrade(session.shared()),
            principal: session.principal().clone(),
            login,
            peer: session.peer().map(Arc::from),
            opened_ns: self.now_ns(),
        });
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    #[test]
    fn who_is_gone_is_not_listed_and_takes_no_room() {
        let list = SessionList::default();
        let open = |name: &str| {
            let session = Session::new(Principal::new(name.to_owned(), 1, Role::User));
            let (principal, peer) = (session.principal().clone(), None);
            list.add(Listed {
                session: Arc::downgrade(session.shared()),
                principal,
                login: "password",
                peer,
                opened_ns: 7,
            });
            session
        };
        let first = open("first");
        (0..1000).for_each(|_| drop(open("gone")));
        let last = open("last").clone();
        let names: Vec<_> = list.list().iter().map(|live| live.principal.name().to_owned()).collect();
        assert_eq!((names, list.len()), (vec!["first".to_owned(), "last".to_owned()], 2));
        assert!(list.0.lock().entries.len() <= LOOK_FROM);
        drop((first, last));
        assert_eq!(list.len(), 0);
    }
}
