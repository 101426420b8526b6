//! What databases have in common: a login that is kept for the next check, and a role.

use crate::config::Role;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Database {
    Postgres,
    Mysql,
    Redis,
}

/// What a database said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) database: Database,
    /// `None` where it was not asked.
    pub(super) role: Option<Role>,
    /// What an operator may want to know besides.
    pub(super) remark: Option<&'static str>,
}

impl Answer {
    /// Whether that is what is wanted, in words.
    pub(super) fn judged(self, wanted: Role) -> Result<String, String> {
        let name = match self.database {
            Database::Postgres => "PostgreSQL",
            Database::Mysql => "MySQL",
            Database::Redis => "Redis",
        };
        let remark = self.remark.map(|remark| format!(", {remark}")).unwrap_or_default();
        match (wanted, self.role) {
            (Role::Any, None) => Ok(format!("{name} answers{remark}")),
            (Role::Any | Role::Primary, Some(Role::Primary)) => Ok(format!("{name}, primary{remark}")),
            (Role::Any | Role::Replica, Some(Role::Replica)) => Ok(format!("{name}, replica{remark}")),
            (Role::Primary, _) => Err("it is a replica, and the primary is wanted".to_owned()),
            (Role::Replica, _) => Err("it is the primary, and a replica is wanted".to_owned()),
            (Role::Any, Some(Role::Any)) => Ok(format!("{name}{remark}")),
        }
    }
}
