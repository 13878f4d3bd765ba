use crate::ldap::message::{RESPONSE_OCTETS_MAX, Response, decode, frame_octets};

/// Takes the octets for what an LDAP server sends: cuts them into messages and decodes each.
pub fn ldap(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(octets)) = frame_octets(rest) {
        assert!((2..=RESPONSE_OCTETS_MAX).contains(&octets));
        // A known length does not change when more octets arrive.
        assert_eq!(frame_octets(&rest[..rest.len().min(6)]), Ok(Some(octets)));
        let Some((message, behind)) = rest.split_at_checked(octets) else { return };
        if let Ok((_, Response::Entry(entry))) = decode(message) {
            let held: usize = entry.attributes.iter().flat_map(|(_, values)| values).map(Vec::len).sum();
            assert!(held <= octets, "nothing is made up");
        }
        rest = behind;
    }
}
