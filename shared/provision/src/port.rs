//! A wish in, a loopback port that nobody listens on out.

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
};

use crate::error::{ProvisionError, io};

/// Below what Linux gives to connections on their way out (ip_local_port_range, from 32768 on), so that none of them takes
/// the port before it is used.
const QUIET: std::ops::Range<u64> = 10_240..32_768;

/// A few tries find a free one, unless thousands are taken.
const TRIES: u8 = 32;

/// A port of 127.0.0.1 that is free now. Another program may take it before it is used, so be ready to ask again.
///
/// # Errors
/// The machine has no free port.
pub fn free_port() -> Result<u16, ProvisionError> {
    for attempt in 0..TRIES {
        // Keyed anew by the system's randomness each time: programs that start together do not choose alike.
        let chosen = QUIET.start + RandomState::new().hash_one(attempt) % (QUIET.end - QUIET.start);
        if let Ok(port) = u16::try_from(chosen)
            && ensure_free(port).is_ok()
        {
            return Ok(port);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(io("looking for a free port"))
}

/// Refuses a port that somebody listens on.
pub(crate) fn ensure_free(port: u16) -> Result<(), ProvisionError> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(ProvisionError::PortTaken { port })
        }
        Err(error) => Err(io(format!("listening on port {port}"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_with_what_to_do() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = ensure_free(port).unwrap_err().to_string();
        assert!(error.contains("already in use") && error.contains("choose another port"), "{error}");
        drop(listener);
        ensure_free(port).unwrap();
    }
}
