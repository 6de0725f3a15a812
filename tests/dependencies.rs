//! The crates that the program is built from: those of its design are used, every licence is an allowed one, and a crate
//! in two versions has a known reason.

#![allow(clippy::unwrap_used)] // a failed one is a failed test
use std::collections::{BTreeMap, BTreeSet};
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

/// Licences that require no more than that their text is passed on. A package with a choice (`OR`, `/`) must have one of
/// them, a package with several (`AND`) only these.
const LICENCES: [&str; 5] = ["MIT", "Apache-2.0", "BSD-3-Clause", "Unicode-3.0", "Zlib"];

/// Crates in more than one version, with the dependencies that require each.
const DUPLICATES: [(&str, &str); 8] = [
    (
        "base64",
        "rouille 3.6 requires 0.13; postgres-protocol 0.6 and jsonwebtoken 11 require 0.22; utoipa-swagger-ui 10 requires 0.23",
    ),
    ("getrandom", "rouille's rand 0.8"),
    ("lock_api", "as parking_lot"),
    (
        "parking_lot",
        "this crate, tokio-postgres 0.7 and r2d2 0.8 require 0.12; r2d2's scheduled-thread-pool requires 0.13",
    ),
    ("parking_lot_core", "as parking_lot"),
    (
        "rand",
        "rouille 3.6 requires 0.8, for the boundaries of multipart forms",
    ),
    ("rand_core", "as rand"),
    (
        "syn",
        "macros, at build time only: openssl-macros, refinery-macros and zeroize_derive require 2",
    ),
];

struct Package {
    name: String,
    version: String,
    licence: String,
}

/// Runs `cargo tree` with these arguments as well, and returns its packages.
fn packages(arguments: &[&str]) -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline"])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let (package, licence) = line.split_once('|').unwrap();
            let mut words = package.split(' ');
            let mut word = || words.next().unwrap().to_owned();
            Package {
                name: word(),
                version: word(),
                licence: licence.to_owned(),
            }
        })
        .collect()
}

/// All packages that the program is built from.
fn all_packages() -> Vec<Package> {
    let packages = packages(&["--edges", "normal,build"]);
    assert!(
        packages.len() > 100,
        "only {} packages were found",
        packages.len()
    );
    packages
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
    let direct = packages(&["--edges", "normal", "--depth", "1"]);
    let code = code();
    for name in DESIGN {
        assert!(
            direct.iter().any(|package| package.name == name),
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

#[test]
fn every_package_has_an_allowed_licence() {
    for package in all_packages() {
        let is_allowed = package.licence.split(" AND ").all(|part| {
            part.trim_matches(['(', ')'])
                .split([' ', '/'])
                .any(|name| LICENCES.contains(&name))
        });
        let (name, version) = (&package.name, &package.version);
        assert!(is_allowed, "{name} {version}: '{}'", package.licence);
    }
}

#[test]
fn only_listed_crates_are_built_in_several_versions() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in all_packages() {
        let versions = versions.entry(package.name).or_default();
        versions.insert(package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let found: BTreeSet<_> = versions.keys().map(String::as_str).collect();
    let listed: BTreeSet<_> = DUPLICATES.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        found, listed,
        "found on the left, listed on the right: {versions:?}"
    );
}
