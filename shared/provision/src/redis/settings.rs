//! Options in, the text of `redis.conf` out.

use std::path::Path;

use super::RedisOptions;

/// The whole configuration file, written anew at each start.
pub(super) fn configuration(options: &RedisOptions, port: u16, data: &Path) -> String {
    let (port, data) = (port.to_string(), data.display().to_string());
    let mut settings = vec![
        ("bind", "127.0.0.1"),
        ("protected-mode", "yes"),
        ("port", &port),
        ("dir", &data),
        ("daemonize", "no"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        // The append-only file is the copy on disk; snapshots beside it would only cost.
        ("save", ""),
        // The log must refuse writes when memory is short, never drop entries.
        ("maxmemory-policy", "noeviction"),
    ];
    settings.extend(options.password.as_deref().map(|password| ("requirepass", password)));
    settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut text = "# Written by Posduif at each start.\n".to_owned();
    for (name, value) in settings {
        text += &line(name, value);
    }
    text
}

/// One setting.
pub(super) fn line(name: &str, value: &str) -> String {
    format!("{name} \"{}\"\n", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_quoted_and_extra_settings_come_last() {
        let mut options = RedisOptions::new("/x");
        options.password = Some(r#"a"b\c"#.to_owned());
        options.settings.push(("maxmemory".to_owned(), "64mb".to_owned()));
        let text = configuration(&options, 6380, Path::new("/x/data"));
        assert!(text.ends_with("requirepass \"a\\\"b\\\\c\"\nmaxmemory \"64mb\"\n"), "{text}");
    }
}
