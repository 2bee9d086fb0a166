//! What the fuzz targets do, so that every run of the tests does some of it.

#[path = "../../../../fuzz/bodies/assembler.rs"]
pub mod assembler;
#[path = "../../../../fuzz/bodies/decoder.rs"]
pub mod decoder;
#[path = "../../../../fuzz/bodies/encode.rs"]
pub mod encode;
