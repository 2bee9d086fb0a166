//! Bytes in, a panic out where the decoder contradicts itself.

use posduif_ingester::decode::decode;

use super::encode::encode;

/// Decodes; a message that was understood must come back the same from its own encoding.
pub fn run(bytes: &[u8]) {
    if let Ok(message) = decode(bytes) {
        let again = encode(&message);
        assert_eq!(decode(&again).as_ref(), Ok(&message), "written again as {again:02x?}");
    }
}
