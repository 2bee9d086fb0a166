//! Options in, the text of `postgresql.conf` out.

use std::fmt::Write;

use super::PostgresOptions;

/// The whole configuration file. It is written anew at each start; `ALTER SYSTEM` has a file of its own.
pub(super) fn configuration(options: &PostgresOptions, port: u16) -> String {
    let port = port.to_string();
    let mut settings = vec![
        ("listen_addresses", "127.0.0.1"),
        ("port", &port),
        // Paths of sockets are short on every system, paths of private directories are not.
        ("unix_socket_directories", ""),
        ("wal_level", "logical"),
        ("max_wal_senders", "64"),
        ("max_replication_slots", "64"),
        ("max_connections", "200"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("password_encryption", "scram-sha-256"),
    ];
    if !options.durable {
        settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
    }
    settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut text = "# Written by Posduif at each start; use ALTER SYSTEM for changes that stay.\n".to_owned();
    for (name, value) in settings {
        // A name that comes twice counts with its last value. Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_settings_come_last_and_are_quoted() {
        let mut options = PostgresOptions::new("/x", "p");
        options.settings.push(("cluster_name".to_owned(), r"Jane's \ cluster".to_owned()));
        let text = configuration(&options, 5433);
        assert!(text.ends_with("cluster_name = 'Jane''s \\\\ cluster'\n"), "{text}");
        assert!(text.contains("port = '5433'\n") && !text.contains("fsync"), "{text}");
    }
}
