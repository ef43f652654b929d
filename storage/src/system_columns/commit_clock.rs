//! Commit timestamps: `max(last + 1, now)`.

use super::CommitTs;

/// Gives each commit its timestamp. The committer owns the only one of a data directory.
#[derive(Debug)]
pub struct CommitClock {
    last: CommitTs,
}

impl CommitClock {
    /// Goes on after `last`, the highest timestamp that was made durable.
    pub fn after(last: CommitTs) -> Self {
        Self { last }
    }

    /// The timestamp of the next commit: strictly above every earlier one, wherever the clock stands.
    pub fn next(&mut self, now_ns: i64) -> CommitTs {
        self.last = self.peek(now_ns);
        self.last
    }

    /// What [`CommitClock::next`] would give.
    pub fn peek(&self, now_ns: i64) -> CommitTs {
        CommitTs(now_ns.max(self.last.0.saturating_add(1)))
    }

    /// Gives no timestamp up to this one any more.
    pub fn pass(&mut self, at: CommitTs) {
        self.last = self.last.max(at);
    }

    /// The highest timestamp given so far, or passed.
    pub fn last(&self) -> CommitTs {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_clock_and_never_steps_back() {
        let mut clock = CommitClock::after(CommitTs(100));
        let given: Vec<i64> = [50, 50, 200, 200, 10, 300].map(|now| clock.next(now).get()).to_vec();
        assert_eq!(given, [101, 102, 200, 201, 202, 300]);
        clock.pass(CommitTs(400));
        clock.pass(CommitTs(350));
        assert_eq!(clock.next(310).get(), 401);
    }
}
