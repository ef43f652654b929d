//! Jobs: what the server does beside statements, by itself or because an admin asks for it.
//!
//! [`spec`] says what there is and what parameters it takes, [`queue`] which runs when, [`work`] does it, and [`runner`] keeps
//! the three together and the records of all in the storage. [`policy`] says what is asked for by nobody, and [`automatic`]
//! asks for it.

mod automatic;
mod policy;
mod queue;
mod runner;
mod spec;
mod work;

pub use runner::JobsConfig;
pub(crate) use runner::{Jobs, check_record};
pub(crate) use spec::JobSpec;
