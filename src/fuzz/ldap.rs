use crate::ldap::message::{RESPONSE_OCTETS_MAX, Response, decode, frame_octets};

/// The octets as what a server of LDAP sends: cut into messages, and each decoded.
pub fn ldap(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(octets)) = frame_octets(rest) {
        assert!((2..=RESPONSE_OCTETS_MAX).contains(&octets));
        // What is known of the length does not change when more comes.
        assert_eq!(frame_octets(&rest[..rest.len().min(6)]), Ok(Some(octets)));
        let Some((message, behind)) = rest.split_at_checked(octets) else { return };
        if let Ok((_, Response::Entry(entry))) = decode(message) {
            let held: usize = entry.attributes.iter().flat_map(|(_, values)| values).map(Vec::len).sum();
            assert!(held <= octets, "nothing is made up");
        }
        rest = behind;
    }
}
