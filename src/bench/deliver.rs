//! Deliveries at full speed into a store that already holds mail: CPU time and device writes per delivery, and how much
//! the file grows. `cargo bench --features bench --bench store -- deliver FILE MESSAGES`
//!
//! The counters belong to the whole device, so nothing else should use it meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{add_mailbox, fill, one_by_one};
use crate::store::Store;

const MAILBOX: &str = "ann@example.com";
const OCTETS_A_SECTOR: u64 = 512;
/// The unit of CPU time in proc_pid_stat(5).
const TICKS_A_SECOND: u64 = 100;

/// Resources used so far.
struct Used {
    cpu_ticks: u64,
    sectors_written: u64,
    flushes: u64,
    file_octets: u64,
}

/// Runs the benchmark. If FILE does not exist, creates it with as many messages as are then delivered.
pub fn run(path: &Path, messages: u64) {
    let store = match path.exists() {
        true => Store::open(path).unwrap_or_else(|e| panic!("{e}")),
        false => {
            let store = Store::create(path).unwrap_or_else(|e| panic!("{e}"));
            add_mailbox(&store, MAILBOX);
            fill(&store, MAILBOX, 0, messages);
            store
        }
    };
    let before = Used::by_now(path);
    one_by_one(&store, MAILBOX, 1 << 40, messages);
    let after = Used::by_now(path);
    let each = |part: fn(&Used) -> u64| (part(&after) - part(&before)) as f64 / messages as f64;
    println!(
        "  each: {:.1} µs of processor, {:.0} octets and {:.3} flushes of the device; the file has grown by {} MiB",
        each(|used| used.cpu_ticks * 1_000_000 / TICKS_A_SECOND),
        each(|used| used.sectors_written * OCTETS_A_SECTOR),
        each(|used| used.flushes),
        (after.file_octets - before.file_octets) >> 20
    );
    println!("  {:?}", store.copy_window());
}

impl Used {
    fn by_now(path: &Path) -> Self {
        let stat = fs::read_to_string("/proc/self/stat").expect("it is there on Linux");
        // The name, in parentheses, may contain spaces.
        let (_, stat) = stat.rsplit_once(") ").expect("it contains a name");
        let metadata = fs::metadata(path).expect("it was opened");
        let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
        let device = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap_or_default();
        let number = |stat: &str, nth| stat.split_whitespace().nth(nth).map_or(0, |n| n.parse().unwrap_or(0));
        Self {
            cpu_ticks: number(stat, 11) + number(stat, 12),
            sectors_written: number(&device, 6),
            flushes: number(&device, 15),
            file_octets: metadata.blocks() * OCTETS_A_SECTOR,
        }
    }
}
