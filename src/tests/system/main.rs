//! Tests that drive the program from outside, as its users do.

#[path = "../any_certificate.rs"]
mod any_certificate;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../transcript.rs"]
mod transcript;

mod active_directory;
mod backup;
mod bare_root;
mod client;
mod control;
mod copies;
mod crash;
mod damage;
mod deliver;
mod dialogue;
mod full_disk;
mod health;
mod import;
mod live;
mod lmtp;
mod maildrop;
mod mailroot;
mod pop3;
mod postmaster;
mod privileges;
mod receiving;
mod restore;
mod service;
mod session_ends;
mod shutdown;
mod slow_link;
mod sockets;
mod start;
mod strangers;
mod surrogate;
mod terminal;
mod tls;
mod winpop;
