//! Finds the known word closest to a mistyped one.

/// Most typing errors between a word and a suggestion.
const SLIPS_MAX: usize = 2;
/// Longest word compared, so that a novel costs nothing.
const WORD_OCTETS_MAX: usize = 32;

/// The word of `known` with the fewest typing errors (a letter missing, added, changed, or two swapped), if few enough
/// to suggest it. Case is ignored.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.len() > WORD_OCTETS_MAX {
        return None;
    }
    let typed = typed.to_lowercase();
    known
        .into_iter()
        .map(|word| (slips(&typed, word), word))
        .filter(|(slips, word)| *slips <= SLIPS_MAX && *slips < word.len())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, word)| word)
}

/// The optimal string alignment distance.
fn slips(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_two_slips_still_find_the_word() {
        let known = ["add", "delete", "list", "lock", "socketmax", "socketmin"];
        for (typed, meant) in [
            ("DELTE", Some("delete")),
            ("lsit", Some("list")),
            ("lok", Some("lock")),
            ("socketmxa", Some("socketmax")),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }

    #[test]
    fn swapping_two_letters_is_one_slip() {
        assert_eq!(slips("prot", "port"), 1);
        assert_eq!(slips("", "port"), 4);
        assert_eq!(slips("port", "port"), 0);
    }
}
