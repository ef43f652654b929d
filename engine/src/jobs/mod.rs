//! Jobs: what the server does beside statements, by itself or because an admin asks for it.
//!
//! [`spec`] says what there is and what parameters it takes, [`queue`] which runs when, [`work`] does it, and [`runner`] keeps
//! the three together and the records of all in the storage.

mod queue;
mod runner;
mod spec;
mod work;

pub(crate) use runner::Jobs;
pub use runner::JobsConfig;
pub(crate) use spec::JobSpec;
