//! Bytes of an event stream in, its events out, in bounded memory whatever comes.

use std::time::Duration;

/// The largest event. Hints are short; what is longer was not sent by this server.
const LARGEST_EVENT: usize = 64 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServerEvent {
    pub name: String,
    pub data: String,
}

/// An event or line of more than 64 KiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The parser of one stream, after the HTML standard's section on server-sent events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    begun: bool,
    event: ServerEvent,
    /// The id of the newest event, to go on from.
    pub last_event_id: Option<String>,
    /// How long the server wishes a client to wait before it connects again.
    pub retry: Option<Duration>,
}

impl Parser {
    /// Takes the next bytes, however they were cut, and adds the events that they complete.
    pub fn push(&mut self, bytes: &[u8], events: &mut impl Extend<ServerEvent>) -> Result<(), TooLong> {
        for &byte in bytes {
            let second_half = byte == b'\n' && std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if second_half => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    events.extend(self.end_of_line());
                }
                _ => {
                    self.after_return = false;
                    self.line.push(byte);
                    if self.line.len() + self.event.data.len() > LARGEST_EVENT {
                        return Err(TooLong);
                    }
                }
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> Option<ServerEvent> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.begun, true);
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if first => rest,
            _ => &line,
        };
        let line = String::from_utf8_lossy(line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event).map(ServerEvent::trimmed);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                self.event.data.push_str(value);
                self.event.data.push('\n');
            }
            "id" if !value.contains('\0') => self.last_event_id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            _ => {}
        }
        None
    }
}

impl ServerEvent {
    fn trimmed(mut self) -> Self {
        self.data.pop();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"\xEF\xBB\xBFretry: 1500\n\n: ping\n\nid: c1\nevent: connected\ndata: {\"a\":\ndata: 1}\n\n\
        id:c2\r\nevent:message\r\ndata:x\r\n\r\nevent: nothing\n\nunknown: y\rdata\r\rid: c3\n\ndata: cut";

    fn event(name: &str, data: &str) -> ServerEvent {
        ServerEvent { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let expected = [event("connected", "{\"a\":\n1}"), event("message", "x"), event("", "")];
        for cut in 0..STREAM.len() {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            let (one, other) = STREAM.split_at(cut);
            parser.push(one, &mut events).unwrap();
            parser.push(other, &mut events).unwrap();
            assert_eq!(events, expected, "cut at {cut}");
            assert_eq!(parser.last_event_id.as_deref(), Some("c3"));
            assert_eq!(parser.retry, Some(Duration::from_millis(1500)));
        }
    }

    #[test]
    fn a_stream_that_never_ends_a_line_or_an_event_is_given_up() {
        for (part, most) in [(&b"x"[..], LARGEST_EVENT + 1), (b"data: 0123456789\n", LARGEST_EVENT / 10)] {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            let given_up = (0..most).any(|_| parser.push(part, &mut events) == Err(TooLong));
            assert!(given_up && events.is_empty());
        }
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for _ in 0..LARGEST_EVENT {
            parser.push(b": ping\n\n", &mut events).unwrap();
        }
    }

    #[test]
    fn what_is_no_number_is_no_wish_to_wait() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        parser.push(b"retry: -1\nretry: 1s\nretry:\nid: a\0b\n\xff\xfe: x\n\n", &mut events).unwrap();
        assert_eq!((parser.retry, parser.last_event_id, events), (None, None, vec![]));
    }
}
