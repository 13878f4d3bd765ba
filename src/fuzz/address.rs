use crate::address::{Address, DOMAIN_OCTETS_MAX, Domain, LOCAL_OCTETS_MAX, LocalPart};

/// Parses the octets as a domain, an address and a login name. An accepted value is bounded, and parsing its text again
/// gives the same value.
pub fn address(data: &[u8]) {
    let typed = String::from_utf8_lossy(data);
    if let Ok(domain) = typed.parse::<Domain>() {
        hold_domain(&domain);
    }
    for address in [typed.parse::<Address>(), Address::from_login(&typed)].into_iter().flatten() {
        hold_domain(&address.domain);
        hold_local(&address.local);
        hold_local(&address.without_detail().local);
        assert_eq!(address.to_string().parse(), Ok(address.clone()));
        assert_eq!(Address::from_login(&address.to_string()), Ok(address));
    }
}

fn hold_domain(domain: &Domain) {
    assert!((1..=DOMAIN_OCTETS_MAX).contains(&domain.as_str().len()));
    assert_eq!(domain.as_str().parse().as_ref(), Ok(domain));
}

fn hold_local(local: &LocalPart) {
    assert!((1..=LOCAL_OCTETS_MAX).contains(&local.as_str().len()));
    assert_eq!(local.as_str().parse().as_ref(), Ok(local));
}
