//! The shipped list of users and their passwords in, the text of Redis' ACL file out.

use sha2::{Digest, Sha256};

use crate::version::Version;

/// The first Redis, and Valkey, that has WAITAOF.
const WAITAOF: Version = Version::new(7, 2);

/// Who may log in to a server, and what each of them may do.
#[derive(Debug, Clone)]
pub struct RedisUsers {
    /// Lines of an ACL file and comments; `#<name>` stands for the password of the user with that name.
    pub rules: String,
    pub passwords: Vec<(String, Password)>,
    /// The one of them who asks the server whether it is ready; it needs the right to PING.
    pub observer: String,
}

/// A password that does not show.
#[derive(Clone)]
pub struct Password(String);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Password {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl RedisUsers {
    /// The text for a server of this version: hashes instead of passwords, no comments, no command that it does not know.
    pub(super) fn acl_file(&self, version: Version) -> String {
        let mut text = String::new();
        for line in self.rules.lines().filter(|line| line.starts_with("user ")) {
            let known = |rule: &&str| version >= WAITAOF || *rule != "+waitaof";
            text += &line.split(' ').filter(known).collect::<Vec<_>>().join(" ");
            text.push('\n');
        }
        for (name, password) in &self.passwords {
            text = text.replace(&format!("#<{name}>"), &format!("#{}", sha256(password.expose())));
        }
        text
    }

    pub(super) fn password(&self, user: &str) -> Option<&str> {
        let found = self.passwords.iter().find(|(name, _)| name == user);
        found.map(|(_, password)| password.expose())
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_file_holds_hashes_and_only_commands_that_the_server_has() {
        let users = RedisUsers {
            rules: "# why\nuser default off\n\nuser a on #<a> +ping +waitaof\n".to_owned(),
            passwords: vec![("a".to_owned(), "abc".to_owned().into())],
            observer: "a".to_owned(),
        };
        // The example of FIPS 180-2.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected = format!("user default off\nuser a on #{hash} +ping");
        assert_eq!(users.acl_file(Version::new(7, 0)), format!("{expected}\n"));
        assert_eq!(users.acl_file(Version::new(8, 1)), format!("{expected} +waitaof\n"));
        assert!(!format!("{users:?}").contains("abc"));
    }

    #[test]
    fn the_shipped_users_are_all_there_and_none_reaches_beyond_posduif() {
        let lines: Vec<&str> =
            crate::shipped::USERS_ACL.lines().filter(|line| line.starts_with("user ")).collect();
        let (default, named) = lines.split_first().unwrap();
        assert_eq!(*default, "user default off ~* &* +@all");
        assert_eq!(named.len(), 3);
        for line in named {
            let name = line.split(' ').nth(1).unwrap();
            assert!(
                line.starts_with(&format!("user {name} on #<{name}> ~posduif:* &posduif:* +auth ")),
                "{line}"
            );
            assert!(
                !line.contains('@')
                    && ["nopass", "allkeys", "allcommands"].iter().all(|wide| !line.contains(wide)),
                "{line}"
            );
        }
    }
}
