//! The switches of `sendmail` that programs expect.
//!
//! Those for sender and recipients are followed; those for queues, logging, notifications and error reports are
//! accepted and ignored.

use super::commands::Deliver;
use crate::admin::Refusal;

/// Reads a command line as sendmail does: `-fsender` and `-f sender`, `-ti` for `-t -i`.
pub fn read(typed: &[String]) -> Result<Deliver, Refusal> {
    let mut deliver = Deliver { from: None, to_header: false, each: true, recipients: Vec::new() };
    let mut words = typed.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            deliver.recipients.extend(words.by_ref().cloned());
            break;
        }
        let Some(switches) = word.strip_prefix('-').filter(|switches| !switches.is_empty()) else {
            deliver.recipients.push(word.clone());
            continue;
        };
        let mut letters = switches.chars();
        while let Some(letter) = letters.next() {
            match letter {
                't' => deliver.to_header = true,
                'i' | 'n' | 'v' | 'G' | 'U' | 's' | 'm' => {}
                'b' if letters.as_str() == "m" => break,
                'b' => {
                    return Err(Refusal::usage(format!("sendmail -b{} is not supported", letters.as_str())));
                }
                // Their value is in the same word or absent.
                'o' | 'e' | 'd' | 'q' => break,
                'f' | 'r' | 'F' | 'N' | 'R' | 'V' | 'B' | 'O' | 'L' | 'X' | 'p' | 'h' | 'C' => {
                    let value = match letters.as_str() {
                        "" => words.next().map(String::as_str),
                        rest => Some(rest),
                    };
                    let value =
                        value.ok_or_else(|| Refusal::usage(format!("the value of -{letter} is missing")))?;
                    if matches!(letter, 'f' | 'r') {
                        deliver.from = Some(value.to_owned());
                    }
                    break;
                }
                other => return Err(Refusal::usage(format!("sendmail has no switch \"-{other}\""))),
            }
        }
    }
    if deliver.recipients.is_empty() && !deliver.to_header {
        return Err(Refusal::usage("no recipient is given")
            .with_hint("Name one, or use -t to take them from the header"));
    }
    Ok(deliver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::reply::Code;

    fn of(typed: &str) -> Result<Deliver, Refusal> {
        let words: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
        read(&words)
    }

    fn deliver(from: Option<&str>, to_header: bool, recipients: &[&str]) -> Deliver {
        let recipients = recipients.iter().map(|recipient| (*recipient).to_owned()).collect();
        Deliver { from: from.map(str::to_owned), to_header, each: true, recipients }
    }

    #[test]
    fn the_forms_that_programs_use_are_understood() {
        for (typed, meant) in [
            ("-t -i", deliver(None, true, &[])),
            ("-ti", deliver(None, true, &[])),
            ("-t -oi -oem", deliver(None, true, &[])),
            ("-i -f a@b c@d e@f", deliver(Some("a@b"), false, &["c@d", "e@f"])),
            ("-fa@b c@d", deliver(Some("a@b"), false, &["c@d"])),
            ("-tfa@b", deliver(Some("a@b"), true, &[])),
            ("-r a@b -F Full -N never -bm c@d", deliver(Some("a@b"), false, &["c@d"])),
            ("-f <> c@d", deliver(Some("<>"), false, &["c@d"])),
            ("-FFull -odi -v c@d", deliver(None, false, &["c@d"])),
            ("-i -- -odd@d", deliver(None, false, &["-odd@d"])),
        ] {
            assert_eq!(of(typed), Ok(meant), "{typed}");
        }
    }

    #[test]
    fn unsupported_modes_and_missing_recipients_are_refused() {
        for typed in ["", "-i", "-bs", "-bp", "-t -f", "-Z c@d"] {
            assert_eq!(of(typed).unwrap_err().code, Code::Usage, "{typed}");
        }
    }
}
