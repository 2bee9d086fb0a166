//! A text in, the name of a user out, or why it cannot be one.

/// The longest name, in characters.
pub const LONGEST: usize = 200;

/// The name is empty, too long or holds what no screen shows.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a username has 1 to {LONGEST} characters and no control characters")]
pub struct InvalidUsername;

/// Takes white space from both ends.
pub fn parse(text: &str) -> Result<String, InvalidUsername> {
    let name = text.trim();
    match (1..=LONGEST).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        true => Ok(name.to_owned()),
        false => Err(InvalidUsername),
    }
}
