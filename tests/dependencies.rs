//! The crates of the program's design are direct dependencies, and their items are used. (`deny.toml` has the rules for
//! licences and versions of all crates.)

#![allow(clippy::unwrap_used)] // a failed one is a failed test
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates of the design. Each is a direct dependency, and the program uses items of it.
const DESIGN: [&str; 9] = [
    "rouille",
    "postgres",
    "r2d2_postgres",
    "serde",
    "serde_json",
    "jsonwebtoken",
    "bcrypt",
    "log",
    "simplelog",
];

/// The names of the direct dependencies.
fn direct_dependencies() -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(["--depth", "1", "--prefix", "none", "--format", "{lib}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The program's code in src without comments and unit tests.
fn code() -> String {
    let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut code = String::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(path).unwrap();
            paths.extend(entries.map(|entry| -> PathBuf { entry.unwrap().path() }));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let program = text.split("#[cfg(test)]").next().unwrap();
            for line in program.lines() {
                code += line.split("//").next().unwrap();
                code.push('\n');
            }
        }
    }
    code
}

/// Whether `name::` occurs in the code as a whole path segment, and not as the end of another name.
fn uses_items_of(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code.get(..at).unwrap_or_default();
        let before = before.strip_suffix("::").unwrap_or(before);
        !before.ends_with(|character: char| character.is_alphanumeric() || character == '_')
    })
}

#[test]
fn crates_of_the_design_are_direct_dependencies_and_used() {
    let direct = direct_dependencies();
    let code = code();
    for name in DESIGN {
        assert!(
            direct.iter().any(|dependency| dependency == name),
            "{name} is no direct dependency"
        );
        assert!(uses_items_of(&code, name), "no item of {name} is used");
    }
}

#[test]
fn only_whole_path_segments_outside_comments_count_as_use() {
    assert!(uses_items_of("use ::postgres::Row;", "postgres"));
    assert!(!uses_items_of("use r2d2_postgres::Manager;", "postgres"));
    assert!(!uses_items_of("use postgres;", "postgres"));
    assert!(!uses_items_of("crate::log::write()", "log"));
}
