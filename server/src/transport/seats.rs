//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    addresses: HashMap<IpAddr, usize>,
}

/// A connection's place among the others, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

/// Why there is no seat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many connections as there may be.
    All(usize),
    /// There are as many from this address.
    Address(usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(max) => write!(f, "there are {max} connections already (limits.connections_max)"),
            Self::Address(max) => {
                write!(f, "its address has {max} connections already (limits.connections_address_max)")
            }
        }
    }
}

impl Seats {
    pub(super) fn new(max: usize, address_max: usize) -> Self {
        Self { max, address_max, taken: Mutex::default() }
    }

    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let address = network(address);
        let mut taken = self.taken.lock();
        if taken.all >= self.max {
            return Err(Full::All(self.max));
        }
        let from_there = taken.addresses.entry(address).or_default();
        if *from_there >= self.address_max {
            return Err(Full::Address(self.address_max));
        }
        *from_there += 1;
        taken.all += 1;
        Ok(Seat { seats: Arc::clone(self), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(from_there) = taken.addresses.get_mut(&self.address) {
            *from_there = from_there.saturating_sub(1);
            if *from_there == 0 {
                taken.addresses.remove(&self.address);
            }
        }
    }
}

/// Who has one address of IPv6 has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// As many connections as were asked for, but at most half of the files that this process may open: the storage needs files
/// too, and ends when it gets none.
pub(super) fn within_files(wanted: usize) -> usize {
    let Some(files) = std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files) else {
        return wanted;
    };
    let possible = (files / 2).max(1);
    if possible < wanted {
        tracing::warn!(
            "limits.connections_max is {wanted}, and this process may open {files} files: it takes {possible} \
             connections; raise the limit of open files (ulimit -n, LimitNOFILE) or lower the setting"
        );
    }
    wanted.min(possible)
}

/// The soft limit of open files, as Linux writes it.
fn open_files(limits: &str) -> Option<usize> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn seats_are_few_in_all_and_for_each_address() {
        let seats = Arc::new(Seats::new(3, 2));
        let first = seats.take(address("10.0.0.1")).unwrap();
        let _second = seats.take(address("10.0.0.1")).unwrap();
        assert_eq!(seats.take(address("10.0.0.1")).unwrap_err(), Full::Address(2));
        let third = seats.take(address("10.0.0.2")).unwrap();
        assert_eq!(seats.take(address("10.0.0.3")).unwrap_err(), Full::All(3));
        drop(first);
        drop(seats.take(address("10.0.0.1")).unwrap());
        drop(third);
        assert_eq!(seats.taken.lock().addresses.len(), 1, "nothing is kept of who has left");
        assert_eq!(seats.taken.lock().all, 1);
    }

    #[test]
    fn an_address_is_one_in_all_its_forms() {
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
        assert_eq!(network(address("2001:db8::1:2:3:4")), network(address("2001:db8::ffff:0:0:1")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
    }

    #[test]
    fn the_limit_of_files_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             63432                63432                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(open_files(""), None);
    }
}
