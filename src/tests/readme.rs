//! The tables in README.md match the program's, and the source it quotes exists. (`clients/readme.rs` runs its
//! commands.)

use std::fmt::Write as _;
use std::path::Path;

use argh::ArgsInfo as _;

use crate::admin::commands::Winpop;
use crate::settings;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("it is there")
}

fn assert_holds(table: &str) {
    assert!(readme().contains(&format!("\n\n{table}\n")), "README.md should hold this table:\n\n{table}");
}

#[test]
fn the_table_of_settings_is_that_of_the_program() {
    let mut table =
        "| setting | default | allowed | takes effect | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for key in settings::keys() {
        let names: Vec<String> =
            [&[key.name], key.aliases].concat().iter().map(|name| format!("`{name}`")).collect();
        let (names, allowed) = (names.join(", "), (key.allowed)());
        let _ = writeln!(
            table,
            "| {names} | {} | {allowed} | {} | {} |",
            key.default,
            key.effect.name(),
            key.help
        );
    }
    assert_holds(&table);
}

#[test]
fn the_source_it_quotes_is_in_our_files() {
    let without_indentation =
        |text: &str| text.lines().map(|line| line.trim().to_owned() + "\n").collect::<String>();
    let readme = readme();
    let quotes: Vec<&str> =
        readme.split("\n```rust\n").skip(1).map(|rest| rest.split("```").next().expect("a piece")).collect();
    let sources = [include_str!("../settings/mod.rs"), include_str!("../admin/commands.rs")];
    assert_eq!(quotes.len(), sources.len());
    for (quote, source) in quotes.into_iter().zip(sources) {
        assert!(
            without_indentation(source).contains(&without_indentation(quote)),
            "README.md quotes:\n\n{quote}"
        );
    }
}

#[test]
fn the_table_of_winpop_is_that_of_the_program() {
    let mut table = "| `winpop` | does |\n| --- | --- |\n".to_owned();
    for command in &Winpop::get_args_info().commands {
        let _ = writeln!(table, "| `{}` | {} |", command.name, command.command.description);
    }
    assert_holds(&table);
}
