use crate::control::{LENGTH_OCTETS, decode_answer, decode_request, encode_answer, encode_request};

/// The octets as what follows the length of a frame, which anybody who may write to the socket can forge. Whatever is
/// understood is made of the same octets, so there are no two ways to say a thing, and none was left over.
pub fn control(data: &[u8]) {
    if let Ok(request) = decode_request(data) {
        let frame = encode_request(&request).expect("it came out of a frame");
        assert_eq!(&frame[LENGTH_OCTETS..], data);
    }
    if let Ok(answer) = decode_answer(data) {
        assert_eq!(&encode_answer(&answer)[LENGTH_OCTETS..], data);
    }
}
