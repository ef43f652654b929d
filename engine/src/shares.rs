//! Places that all users share: sessions, prepared statements, tickets, transactions.
//!
//! Invariants: no user takes all of them from the others, and no users together take the last ones from the admins, who may
//! have to end what the others do. Admins have no share: they may take all.

use std::collections::HashMap;

use crate::identity::{Principal, Role};

/// One user may have one part in so many.
const SHARE: usize = 4;
/// One part in so many is for admins only.
const RESERVE: usize = 16;

/// Who takes a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The user's number.
    pub user: u64,
    /// Whether the user has the role admin or system.
    pub is_admin: bool,
}

impl From<&Principal> for Holder {
    fn from(principal: &Principal) -> Self {
        Self { user: principal.number(), is_admin: principal.role() >= Role::Admin }
    }
}

/// Why somebody gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// The user has so many, which is one user's share.
    Own(usize),
    /// All are taken that there are for such a user.
    All,
}

impl NoPlace {
    /// Says so. `remedy`: what else helps than to raise the `setting` that says how many there are.
    pub fn text(self, things: &str, remedy: &str, setting: &str) -> String {
        match self {
            Self::Own(share) => format!(
                "too many {things} of this user: {share} are the share of one user, a quarter of {setting}: {remedy}, or raise \
                 {setting}"
            ),
            Self::All => format!("too many {things}: {remedy}, or raise {setting}"),
        }
    }
}

/// How many places are taken, and by whom.
#[derive(Debug, Default)]
pub struct Shares {
    taken: usize,
    of_users: HashMap<u64, usize>,
}

impl Shares {
    /// Refuses who may not have another one of `max` places.
    pub fn require_place(&self, holder: Holder, max: usize) -> Result<(), NoPlace> {
        let (share, reserve) = match holder.is_admin {
            true => (max, 0),
            false => ((max / SHARE).max(1), (max / RESERVE).max(1).min(max.saturating_sub(1))),
        };
        if self.taken >= max - reserve {
            Err(NoPlace::All)
        } else if !holder.is_admin && self.of_users.get(&holder.user).is_some_and(|own| *own >= share) {
            Err(NoPlace::Own(share))
        } else {
            Ok(())
        }
    }

    /// A user takes a place.
    pub fn take(&mut self, user: u64) {
        self.taken += 1;
        *self.of_users.entry(user).or_default() += 1;
    }

    /// A user gives back a place that it has taken.
    pub fn give_back(&mut self, user: u64) {
        let Some(own) = self.of_users.get_mut(&user) else { return };
        self.taken -= 1;
        *own -= 1;
        if *own == 0 {
            self.of_users.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Holder = Holder { user: 1, is_admin: true };

    fn user(user: u64) -> Holder {
        Holder { user, is_admin: false }
    }

    fn taken(shares: &mut Shares, holder: Holder, max: usize) -> (usize, NoPlace) {
        for count in 0.. {
            match shares.require_place(holder, max) {
                Ok(()) => shares.take(holder.user),
                Err(why) => return (count, why),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_user_has_its_share_and_admins_have_the_last_places() {
        let mut shares = Shares::default();
        for number in 2..5 {
            assert_eq!(taken(&mut shares, user(number), 32), (8, NoPlace::Own(8)));
        }
        assert_eq!(taken(&mut shares, user(5), 32), (6, NoPlace::All));
        assert_eq!(taken(&mut shares, ROOT, 32), (2, NoPlace::All));
        shares.give_back(2);
        assert_eq!(taken(&mut shares, user(2), 32), (0, NoPlace::All), "the last ones are for admins");
        assert_eq!(taken(&mut shares, ROOT, 32), (1, NoPlace::All));
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let mut shares = Shares::default();
        assert_eq!(taken(&mut shares, ROOT, 10), (10, NoPlace::All));
        (0..10).for_each(|_| shares.give_back(1));
        shares.give_back(1);
        assert_eq!((shares.taken, shares.of_users.len()), (0, 0), "nothing is left of who has nothing");
        assert_eq!(taken(&mut shares, user(2), 10), (2, NoPlace::Own(2)));
    }

    #[test]
    fn of_few_places_everybody_may_have_one() {
        for (max, of_one) in [(1, 1), (2, 1), (3, 1), (8, 2)] {
            assert_eq!(taken(&mut Shares::default(), user(2), max).0, of_one, "{max}");
            assert_eq!(taken(&mut Shares::default(), ROOT, max).0, max);
        }
    }

    #[test]
    fn it_is_said_whose_limit_it_is() {
        let text = |why: NoPlace| why.text("open transactions", "end some", "transaction.open_max");
        assert_eq!(text(NoPlace::All), "too many open transactions: end some, or raise transaction.open_max");
        assert!(text(NoPlace::Own(7)).contains("of this user: 7 are the share of one user"));
    }
}
