//! Secrets on the command line: none is repeated in an error or in the settings in force, and an empty flag is none.

#![allow(clippy::unwrap_used, clippy::panic)] // a failed one is a failed test
use std::ffi::OsString;

use clap::CommandFactory;
use movies_api::cli::Command;
use movies_api::cli::command_line::{CommandLine, InForce, read};
use movies_api::config::{Settings, is_shown};

const KEY: &str = "--secret-key=opensesame-opensesame-opensesame";

fn read_flags(flags: &[&str]) -> Result<CommandLine, String> {
    let program = ["movies-api"].iter();
    read(program.chain(flags).map(OsString::from).collect())
}

fn serve(flags: &[&str]) -> Result<(Settings, Vec<InForce>), String> {
    let always = ["--database-url=host=/tmp", KEY];
    match read_flags(&[&always, flags].concat())? {
        CommandLine {
            command: Command::Serve(settings),
            in_force,
            ..
        } => Ok((*settings, in_force)),
        other => panic!("{:?}", other.command),
    }
}

#[test]
fn secrets_are_neither_shown_in_force_nor_in_an_error() {
    let fallbacks = "--secret-key-fallbacks=, old-hunter2-old-hunter2-old-hunter2,, older-hunter2-older-hunter2-older,";
    let (settings, in_force) = serve(&[fallbacks]).unwrap();
    let keys = settings.tokens.secret_key_fallbacks.iter().flatten();
    let keys: Vec<_> = keys.map(|key| key.as_bytes()).collect();
    assert_eq!(
        keys,
        [
            &b"old-hunter2-old-hunter2-old-hunter2"[..],
            b"older-hunter2-older-hunter2-older"
        ]
    );
    for setting in &in_force {
        assert!(!setting.value.contains("hunter2") && !setting.value.contains("sesame"));
    }
    assert!(!format!("{settings:?}").contains("hunter2"));
    let weak = "is not allowed: a key is 32 bytes or longer";
    let no_address = "is not allowed: it is postgresql://user:password@host:port/database";
    for (flag, expected) in [
        (
            "--database-url=postgresql://me:hunter2@host:port/db",
            format!("DATABASE_URL=(hidden) {no_address}"),
        ),
        (
            "--secret-key=hunter2",
            format!("SECRET_KEY=(hidden) {weak}"),
        ),
        (
            "--secret-key=  ",
            "DATABASE_URL and SECRET_KEY are not set, without a default (see --help)".to_owned(),
        ),
        (
            "--secret-key-fallbacks=hunter2",
            format!("SECRET_KEY_FALLBACKS=(hidden) {weak}"),
        ),
        (
            "--secret-key-fallbacks=a-key-that-is-long-enough-for-hs256,hunter2",
            format!("SECRET_KEY_FALLBACKS=(hidden) {weak}"),
        ),
    ] {
        let error = read_flags(&[flag]).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn an_argument_without_a_place_is_not_repeated() {
    for arguments in [
        &["serve", "hunter2"][..],
        &["serve", "--secret-key", KEY, "hunter2"],
        &["serve", "-phunter2"],
        &["serve", "--hunter2"],
        &["serve", "--database-url", "host=/x", "password=hunter2"],
        &["postgres://u:hunter2@host/db"],
        &["hunter2"],
        &["migrate", "postgres://u:hunter2@host/db"],
        &["migrate", "--json=hunter2"],
        &["users", "hunter2"],
        &["import-django", "host=/x", "password=hunter2"],
        &["import-django", "hunter2"],
    ] {
        let error = read_flags(arguments).map(|_| ()).unwrap_err();
        assert!(!error.contains("hunter2") && !error.is_empty(), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn only_known_types_are_shown() {
    let mut shown = Vec::new();
    for argument in Settings::command().get_arguments() {
        if !is_shown(argument) {
            shown.push(argument.get_id().to_string());
        }
    }
    assert_eq!(
        shown,
        ["database_url", "secret_key", "secret_key_fallbacks"]
    );
    assert!(!is_shown(&clap::Arg::new("text").long("text")));
}

#[test]
fn an_empty_flag_counts_as_unset() {
    let (settings, in_force) = serve(&[
        "--bind=",
        "--workers",
        "",
        "--secret-key-fallbacks=",
        "--log-format=",
        "--bcrypt-cost",
        "7",
    ])
    .unwrap();
    assert_eq!((settings.workers, settings.passwords.bcrypt_cost), (96, 7));
    assert!(settings.tokens.secret_key_fallbacks.is_empty());
    let source = |name: &str| {
        let setting = in_force.iter().find(|setting| setting.name == name);
        setting.map(|setting| setting.source)
    };
    assert_eq!(source("BIND"), Some("default"));
    assert_eq!(source("SECRET_KEY_FALLBACKS"), None);
    for (arguments, expected) in [
        (
            &["--secret-key=", "--database-url="][..],
            "DATABASE_URL and SECRET_KEY are not set, without a default (see --help)",
        ),
        (
            &["migrate", "--database-url", ""],
            "DATABASE_URL is not set, without a default (see --help)",
        ),
        // A flag that the command does not have stays unexpected, and an argument that is no setting keeps its value.
        (
            &["migrate", "--secret-key="],
            "unexpected argument '--secret-key' found",
        ),
        (
            &["serve", "--bind"],
            "--bind <BIND> has no value (see --help)",
        ),
    ] {
        assert_eq!(read_flags(arguments).map(|_| ()), Err(expected.to_owned()));
    }
}
