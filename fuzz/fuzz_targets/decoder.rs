//! Any bytes in; the decoder answers, and what it understood survives being written and read again.
#![no_main]

#[path = "../bodies/decoder.rs"]
mod decoder;
#[path = "../bodies/encode.rs"]
mod encode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::run(bytes));
