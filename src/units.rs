//! Sizes and durations, as people type and read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of octets, typed as `52428800`, `50MB`, `50 MiB` or `1G`. Units are powers of 1024, with or without `i`, as
/// in file managers and the original service. Printed with `humansize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets(pub u64);

/// Whole seconds, typed as `90`, `90s`, `10m`, `2h` or `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u64);

impl Octets {
    pub const fn mebibytes(n: u64) -> Self {
        Self(n << 20)
    }
}

/// A note for people who may mean powers of 1000: `10MB is taken as 10 MiB`.
pub fn taken_as_binary(typed: &str) -> Option<String> {
    let octets: Octets = typed.parse().ok()?;
    let (_, unit) = split_number(typed);
    let is_ambiguous =
        !unit.eq_ignore_ascii_case("b") && !unit.is_empty() && !unit.to_ascii_lowercase().contains('i');
    is_ambiguous.then(|| format!("{typed} is taken as {octets}, because units are powers of 1024"))
}

impl FromStr for Octets {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let (number, unit) = split_number(typed);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => {
                return Err(format!(
                    "\"{typed}\" is not a size: write octets, or a number with KB, MB, GB or TB"
                ));
            }
        };
        let number: u64 =
            number.parse().map_err(|_| format!("\"{typed}\" is not a size: write it as 52428800 or 50MB"))?;
        number.checked_mul(1 << shift).map(Octets).ok_or_else(|| format!("{typed} is too large"))
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let (number, unit) = split_number(typed);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => {
                return Err(format!(
                    "\"{typed}\" is not a time: write seconds, or a number with s, m, h or d"
                ));
            }
        };
        let number: u64 =
            number.parse().map_err(|_| format!("\"{typed}\" is not a time: write it as 600 or 10m"))?;
        number.checked_mul(factor).map(Seconds).ok_or_else(|| format!("{typed} is too large"))
    }
}

fn split_number(typed: &str) -> (&str, &str) {
    let digits = typed.bytes().take_while(u8::is_ascii_digit).count();
    (&typed[..digits], typed[digits..].trim_start())
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Duration {
        Duration::from_secs(seconds.0)
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humansize::format_size(self.0, humansize::BINARY))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} s", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (typed, octets) in
            [("0", 0), ("512", 512), ("50MB", 50 << 20), ("50 mib", 50 << 20), ("1G", 1 << 30), ("2kb", 2048)]
        {
            assert_eq!(typed.parse(), Ok(Octets(octets)), "{typed}");
        }
        for bad in ["", "MB", "1.5MB", "-1", "1XB", "99999999999999999999", "99999999999TB"] {
            assert!(bad.parse::<Octets>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_unit_that_could_be_a_power_of_1000_is_reported() {
        let told = "10MB is taken as 10 MiB, because units are powers of 1024";
        assert_eq!(taken_as_binary("10MB").as_deref(), Some(told));
        assert!(taken_as_binary("1g").is_some());
        for plain in ["10", "10 MiB", "10mib", "512B", "much"] {
            assert_eq!(taken_as_binary(plain), None, "{plain}");
        }
    }

    #[test]
    fn times_are_read_in_seconds() {
        for (typed, seconds) in [("0", 0), ("90", 90), ("10m", 600), ("2h", 7200), ("1d", 86400)] {
            assert_eq!(typed.parse(), Ok(Seconds(seconds)), "{typed}");
        }
        assert!("ten".parse::<Seconds>().is_err());
    }
}
