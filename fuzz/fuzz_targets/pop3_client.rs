#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pop3svc::fuzz::pop3_client(data));
