use crate::control::{LENGTH_OCTETS, decode_answer, decode_request, encode_answer, encode_request};

/// Parses the octets as a frame after its length, which anyone who may write to the socket can forge. A decoded frame
/// must encode to the same octets: no value has two encodings, and no octet is left over.
pub fn control(data: &[u8]) {
    if let Ok(request) = decode_request(data) {
        let frame = encode_request(&request).expect("it came out of a frame");
        assert_eq!(&frame[LENGTH_OCTETS..], data);
    }
    if let Ok(answer) = decode_answer(data) {
        assert_eq!(&encode_answer(&answer)[LENGTH_OCTETS..], data);
    }
}
