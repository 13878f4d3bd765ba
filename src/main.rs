//! The binary. Everything is in the library, so that tests, benches and fuzz targets reach it.
use std::process::ExitCode;

fn main() -> ExitCode {
    pop3svc::main()
}
