//! What the program is built from, read off `cargo tree`: licences that its users may take on, and no crate twice without
//! a reason.

#![allow(clippy::unwrap_used)] // a failed one is a failed test
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences that ask for no more than their text. Of a choice (`OR`, `/`) one of these has to be there, of a sum (`AND`) all.
const LICENCES: [&str; 5] = ["MIT", "Apache-2.0", "BSD-3-Clause", "Unicode-3.0", "Zlib"];

/// Crates that are built in more than one version, and who holds on to the older one.
const TWICE: [(&str, &str); 8] = [
    (
        "base64",
        "rouille 3.6 on 0.13; postgres-protocol 0.6 and jsonwebtoken 11 on 0.22; utoipa-swagger-ui 10 on 0.23",
    ),
    ("getrandom", "rouille's rand 0.8"),
    ("lock_api", "as parking_lot"),
    (
        "parking_lot",
        "tokio-postgres 0.7 and r2d2 0.8 on 0.12; r2d2's scheduled-thread-pool on 0.13",
    ),
    ("parking_lot_core", "as parking_lot"),
    (
        "rand",
        "rouille 3.6 on 0.8, for the boundaries of multipart forms",
    ),
    ("rand_core", "as rand"),
    (
        "syn",
        "macros, at build time only: openssl-macros, refinery-macros and zeroize_derive on 2",
    ),
];

/// The crates that the program is built from, each as its name, version and licence.
fn crates() -> BTreeSet<(String, String, String)> {
    let listed = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,build"])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let text = String::from_utf8(listed.stdout).unwrap();
    let crates: BTreeSet<_> = text
        .lines()
        .map(|line| {
            let (package, licence) = line.split_once('|').unwrap();
            let mut words = package.split(' ');
            let mut word = || words.next().unwrap().to_owned();
            (word(), word(), licence.to_owned())
        })
        .collect();
    assert!(
        crates.len() > 100,
        "only {} crates were found",
        crates.len()
    );
    crates
}

fn is_allowed(licence: &str) -> bool {
    licence.split(" AND ").all(|part| {
        part.trim_matches(['(', ')'])
            .split([' ', '/'])
            .any(|name| LICENCES.contains(&name))
    })
}

#[test]
fn every_crate_has_a_licence_that_is_allowed_here() {
    for (name, version, licence) in crates() {
        assert!(is_allowed(&licence), "{name} {version}: '{licence}'");
    }
}

#[test]
fn a_crate_is_built_twice_only_where_a_reason_stands() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version, _) in crates() {
        versions.entry(name).or_default().insert(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let found: BTreeSet<_> = versions.keys().map(String::as_str).collect();
    let named: BTreeSet<_> = TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        found, named,
        "found on the left, named on the right: {versions:?}"
    );
}
