//! The cost of an operation: time, the server's CPU, and writes to the device.

use std::fs;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Clock ticks a second in /proc/PID/stat (proc_pid_stat(5)); Linux shows user space 100 on every architecture.
const TICKS_PER_SECOND: u64 = 100;
/// The unit in /sys/block/*/stat, whatever the device's sectors are.
const SECTOR_OCTETS: u64 = 512;

pub const HEADING: &str = "server                 ops/s   ratio   p50 ms   p99 ms   max ms  CPU us/op   MB/s  device KB/op  flushes/op";

/// Counters at one instant.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    cpu: Option<Duration>,
    device: Option<Device>,
}

#[derive(Clone, Copy)]
struct Device {
    octets_written: u64,
    flushes: u64,
}

/// Reads the counters of a server's processes, and of the device that holds a directory.
pub fn read(pid: Option<u32>, directory: Option<&Path>) -> Reading {
    Reading { cpu: pid.map(cpu_of), device: directory.and_then(device_of) }
}

/// The cost of a workload.
pub struct Figures {
    /// One per operation, in microseconds.
    pub latencies: Vec<u32>,
    pub octets: u64,
    pub elapsed: Duration,
    pub before: Reading,
    pub after: Reading,
}

impl Figures {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// `first`: the rate to which the ratio is taken.
    pub fn row(&self, name: &str, first: f64) -> String {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |part: f64| {
            let index = (sorted.len() as f64 * part) as usize;
            sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        let count = self.latencies.len() as f64;
        let cpu = match (self.before.cpu, self.after.cpu) {
            (Some(before), Some(after)) => {
                format!("{:.0}", after.saturating_sub(before).as_micros() as f64 / count)
            }
            _ => "-".to_owned(),
        };
        let (device, flushes) = match (self.before.device, self.after.device) {
            (Some(before), Some(after)) => (
                format!("{:.1}", (after.octets_written - before.octets_written) as f64 / 1000.0 / count),
                format!("{:.3}", (after.flushes - before.flushes) as f64 / count),
            ),
            _ => ("-".to_owned(), "-".to_owned()),
        };
        format!(
            "{name:<16} {rate:>11.0} {ratio:>7.2} {p50:>8.2} {p99:>8.2} {max:>8.2} {cpu:>10} {octets:>6.0} {device:>13} \
             {flushes:>11}",
            rate = self.per_second(),
            ratio = self.per_second() / first,
            p50 = at(0.5),
            p99 = at(0.99),
            max = at(1.0),
            octets = self.octets as f64 / 1e6 / self.elapsed.as_secs_f64(),
        )
    }
}

/// CPU time of a process and its descendants, including those that have ended.
fn cpu_of(root: u32) -> Duration {
    // utime, stime, and both again for children that were waited for.
    let ticks: u64 =
        family(root).iter().map(|process| process.numbers.iter().skip(11).take(4).sum::<u64>()).sum();
    Duration::from_micros(ticks * 1_000_000 / TICKS_PER_SECOND)
}

/// Anonymous memory of a process and its descendants, in octets.
pub fn anonymous_octets(root: u32) -> u64 {
    let of = |process: &Process| {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).map(str::to_owned);
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    family(root).iter().map(of).sum()
}

/// What follows the name in a process's `stat` file, beginning with the state.
struct Process {
    pid: u32,
    numbers: Vec<u64>,
}

impl Process {
    fn parent(&self) -> u32 {
        self.numbers.get(1).map_or(0, |parent| *parent as u32)
    }
}

/// A process and its descendants.
fn family(root: u32) -> Vec<Process> {
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name is in parentheses and may contain anything.
        let (_, numbers) = stat.rsplit_once(") ")?;
        let numbers = numbers.split(' ').map(|number| number.parse().unwrap_or(0)).collect();
        Some(Process { pid, numbers })
    };
    let mut others: Vec<Process> =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(process).collect();
    let mut family: Vec<Process> = others.extract_if(.., |process| process.pid == root).collect();
    let mut next = 0;
    while let Some(parent) = family.get(next).map(|process| process.pid) {
        family.extend(others.extract_if(.., |process| process.parent() == parent));
        next += 1;
    }
    family
}

/// The counters of the disk, because those of a partition do not count flushes.
fn device_of(directory: &Path) -> Option<Device> {
    let number = fs::metadata(directory).ok()?.st_dev();
    let (major, minor) = (libc::major(number), libc::minor(number));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = if device.join("partition").exists() { device.parent()?.to_owned() } else { device };
    let stat = fs::read_to_string(disk.join("stat")).ok()?;
    let numbers: Vec<u64> = stat.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
    Some(Device { octets_written: numbers.get(6)? * SECTOR_OCTETS, flushes: *numbers.get(15)? })
}
