//! Tests that drive the program from outside, as its users do.

#[path = "../clients/foreign.rs"]
mod foreign;
#[path = "../private_etc.rs"]
mod private_etc;
#[path = "../transcript.rs"]
mod transcript;
#[path = "../world_readable.rs"]
mod world_readable;

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
mod harness;
mod health;
mod import;
mod live;
mod lmtp;
mod maildrop;
mod pop3;
mod postmaster;
mod privileges;
mod receiving;
mod restore;
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
