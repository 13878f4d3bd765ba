//! Tables for a terminal or a file, and the colours of a terminal.

/// Whether warnings and faults are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Plain,
    Colours,
}

// SGR codes (ECMA-48 section 8.3.117).
const RED: &str = "31";
const YELLOW: &str = "33";

impl Paint {
    /// The word, coloured if it is a warning or a fault.
    pub fn word(self, word: &str) -> String {
        let colour = match word {
            "locked" | "domain locked" | "Note:" => YELLOW,
            "used up" | "stopped" | "Found:" | "Lost:" => RED,
            _ => return word.to_owned(),
        };
        match self {
            Self::Plain => word.to_owned(),
            Self::Colours => format!("\x1b[{colour}m{word}\x1b[0m"),
        }
    }
}

/// Columns as wide as their contents, two spaces apart. The first `numbers` are aligned right. Empty columns are left
/// out.
pub fn table(head: &[&str], numbers: usize, rows: impl Iterator<Item = Vec<String>>, paint: Paint) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let is_shown: Vec<bool> = (0..head.len()).map(|at| rows.iter().any(|row| !row[at].is_empty())).collect();
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let columns: Vec<(usize, usize)> =
        (0..is_shown.len()).filter(|&at| is_shown[at]).map(|at| (at, width(at))).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (place, &(at, width)) in columns.iter().enumerate() {
            let gap = if place == 0 { "" } else { "  " };
            let room = " ".repeat(width - row[at].chars().count());
            let cell = paint.word(&row[at]);
            line += &if at < numbers { format!("{gap}{room}{cell}") } else { format!("{gap}{cell}{room}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> impl Iterator<Item = Vec<String>> {
        [["1", "open", "", "a"], ["20", "locked", "", "b"]]
            .into_iter()
            .map(|row| row.map(str::to_owned).to_vec())
    }

    #[test]
    fn an_empty_column_is_left_out() {
        let text = table(&["N", "Status", "Reads", "Name"], 1, rows(), Paint::Plain);
        assert_eq!(text, " N  Status  Name\n 1  open    a\n20  locked  b\n");
    }

    #[test]
    fn a_colour_takes_no_width() {
        let text = table(&["N", "Status", "Reads", "Name"], 1, rows(), Paint::Colours);
        assert_eq!(text, " N  Status  Name\n 1  open    a\n20  \x1b[33mlocked\x1b[0m  b\n");
    }
}
