//! Bodies and heads that mean harm in, refusals at the limits out, in bounded memory.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(body).unwrap();
    packer.finish().unwrap()
}
