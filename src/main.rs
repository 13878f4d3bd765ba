//! The binary. Everything is in the library, so that tests, benches and fuzz targets reach it.
use std::process::ExitCode;

/// Threads that deliver and commit allocate all the time; this takes a fifth off the processor time of a delivery over
/// 32 connections, compared with the allocator of glibc (`cargo bench --bench servers -- --only lmtp-32 --against`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pop3svc::main()
}
