//! A story of replication messages in; the assembler ends it with an error or keeps what it promises.
#![no_main]

#[path = "../bodies/assembler.rs"]
mod assembler;
#[path = "../bodies/encode.rs"]
mod encode;

libfuzzer_sys::fuzz_target!(|tale: assembler::Tale| {
    assembler::run(&tale);
});
