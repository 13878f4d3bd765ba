//! A POP3 session takes any octets. Seeds: the client's side of testdata/pop3.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pop3svc::fuzz::pop3(data));
