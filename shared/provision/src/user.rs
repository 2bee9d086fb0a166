//! Who runs the servers: the caller, or an unprivileged user when the caller is root (PostgreSQL refuses root).

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::{ProvisionError, io};

/// The user to drop to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUser {
    name: String,
    uid: u32,
    gid: u32,
}

impl ServerUser {
    /// `None` for an ordinary caller, who runs the servers itself; for root `postgres` where it exists, else
    /// `nobody`.
    ///
    /// # Errors
    /// The caller is root and the machine has neither user.
    pub fn needed() -> Result<Option<Self>, ProvisionError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(io("reading /etc/passwd"))?;
        match find(&accounts, "postgres").or_else(|| find(&accounts, "nobody")) {
            Some(user) => Ok(Some(user)),
            None => Err(ProvisionError::Directory {
                path: "/etc/passwd".into(),
                problem:
                    "it has neither a user postgres nor a user nobody, and servers must not run as root: \
                          add one or call as an ordinary user"
                        .to_owned(),
            }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the command run as this user, without root's supplementary groups.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives the path to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), ProvisionError> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(io(format!(
            "giving {} to user {}",
            path.display(),
            self.name
        )))
    }
}

fn find(accounts: &str, name: &str) -> Option<ServerUser> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then(|| ServerUser { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str =
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\ntoor:x:0:0::/:/bin/sh\n";

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let nobody = find(ACCOUNTS, "nobody").unwrap();
        assert_eq!((nobody.uid, nobody.gid), (65534, 65533));
        assert_eq!(find(ACCOUNTS, "body"), None);
    }

    #[test]
    fn another_name_of_root_is_not_an_unprivileged_user() {
        assert_eq!(find(ACCOUNTS, "toor"), None);
    }
}
