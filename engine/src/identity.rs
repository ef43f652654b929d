//! Who is asking: a user's name, number and role.

use std::fmt;
use std::str::FromStr;

use crate::error::EngineError;

/// What a user may do, from least to most. Each role may do all that the lower ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads and writes rows: its own in user tables, and in shared ones what it was granted.
    User,
    /// A program that works for users: may also create tables, and drop its own.
    Service,
    /// Also manages users, and has every right on tables, views and namespaces.
    Admin,
    /// The role of `root`.
    System,
}

impl Role {
    /// All roles, from least to most.
    pub const ALL: [Self; 4] = [Self::User, Self::Service, Self::Admin, Self::System];
}

impl FromStr for Role {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self, EngineError> {
        match name.to_ascii_lowercase().as_str() {
            "user" => Ok(Self::User),
            "service" => Ok(Self::Service),
            "admin" => Ok(Self::Admin),
            "system" => Ok(Self::System),
            other => Err(EngineError::invalid(format!("unknown role '{other}': use user, service, admin or system"))),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
            Self::System => "system",
        })
    }
}

/// An authenticated user. Only [`crate::Engine::authenticate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    name: String,
    number: u64,
    role: Role,
    role_max: Option<Role>,
}

impl Principal {
    pub(crate) fn new(name: String, number: u64, role: Role) -> Self {
        Self { name, number, role, role_max: None }
    }

    /// The same who has logged in with what gives no higher role, whatever the user becomes.
    pub(crate) fn with_role_max(self, role_max: Option<Role>) -> Self {
        Self { role_max, ..self }
    }

    /// The highest role that the login may ever have; `None` = the user's.
    pub(crate) fn role_max(&self) -> Option<Role> {
        self.role_max
    }

    /// The user's name, which is also its id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's number, which keys its rows. Never reused.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The user's role.
    pub fn role(&self) -> Role {
        self.role
    }
}
