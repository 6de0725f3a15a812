//! Parsing of flags and variables: errors, effective settings, empty values, and that no secret is repeated.

#![allow(clippy::unwrap_used, clippy::panic)] // a failed one is a failed test
use std::ffi::OsString;

use clap::CommandFactory;
use movies_api::cli::args::{Command, CommandLine, EffectiveSetting, parse};
use movies_api::config::{Settings, is_public};

const KEY: &str = "--secret-key=opensesame-opensesame-opensesame";

fn parse_flags(flags: &[&str]) -> Result<CommandLine, String> {
    let program = ["movies-api"].iter();
    parse(program.chain(flags).map(OsString::from).collect())
}

fn parse_serve(flags: &[&str]) -> Result<(Settings, Vec<EffectiveSetting>), String> {
    let always = ["--database-url=host=/tmp", KEY];
    match parse_flags(&[&always, flags].concat())? {
        CommandLine {
            command: Command::Serve(settings),
            effective_settings,
            ..
        } => Ok((*settings, effective_settings)),
        other => panic!("{:?}", other.command),
    }
}

#[test]
fn secrets_are_hidden_in_effective_settings_and_errors() {
    let fallbacks = "--secret-key-fallbacks=, old-hunter2-old-hunter2-old-hunter2,, older-hunter2-older-hunter2-older,";
    let (settings, effective_settings) = parse_serve(&[fallbacks]).unwrap();
    let keys = settings.tokens.secret_key_fallbacks.iter().flatten();
    let keys: Vec<_> = keys.map(|key| key.as_bytes()).collect();
    assert_eq!(
        keys,
        [
            &b"old-hunter2-old-hunter2-old-hunter2"[..],
            b"older-hunter2-older-hunter2-older"
        ]
    );
    for setting in &effective_settings {
        assert!(!setting.value.contains("hunter2") && !setting.value.contains("sesame"));
    }
    assert!(!format!("{settings:?}").contains("hunter2"));
    let weak = "is not allowed: a key is 32 bytes or longer";
    let no_address = "is not allowed: must be postgresql://user:password@host:port/database";
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
            "DATABASE_URL and SECRET_KEY are not set and have no default (see --help)".to_owned(),
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
        let error = parse_flags(&[flag]).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn unexpected_arguments_are_not_repeated_in_errors() {
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
        let error = parse_flags(arguments).map(|_| ()).unwrap_err();
        assert!(!error.contains("hunter2") && !error.is_empty(), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn only_listed_types_are_public() {
    let mut hidden = Vec::new();
    for argument in Settings::command().get_arguments() {
        if !is_public(argument) {
            hidden.push(argument.get_id().to_string());
        }
    }
    assert_eq!(
        hidden,
        ["database_url", "secret_key", "secret_key_fallbacks"]
    );
    assert!(!is_public(&clap::Arg::new("text").long("text")));
}

#[test]
fn empty_flags_count_as_unset() {
    let (settings, effective_settings) = parse_serve(&[
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
        let setting = effective_settings
            .iter()
            .find(|setting| setting.name == name);
        setting.map(|setting| setting.source)
    };
    assert_eq!(source("BIND"), Some("default"));
    assert_eq!(source("SECRET_KEY_FALLBACKS"), None);
    for (arguments, expected) in [
        (
            &["--secret-key=", "--database-url="][..],
            "DATABASE_URL and SECRET_KEY are not set and have no default (see --help)",
        ),
        (
            &["migrate", "--database-url", ""],
            "DATABASE_URL is not set and has no default (see --help)",
        ),
        // A flag that the command does not have stays unexpected, and an argument that is no setting keeps its value.
        (
            &["migrate", "--secret-key="],
            "unexpected argument '--secret-key' found (see --help)",
        ),
        (
            &["serve", "--bind"],
            "--bind <BIND> has no value (see --help)",
        ),
    ] {
        assert_eq!(parse_flags(arguments).map(|_| ()), Err(expected.to_owned()));
    }
}

#[test]
fn invalid_value_error_names_variable_value_and_allowed_values() {
    for (flag, expected) in [
        (
            "--bcrypt-cost=3",
            "BCRYPT_COST=3 is not allowed: must be a whole number from 4 to 31",
        ),
        (
            "--bcrypt-cost=x",
            "BCRYPT_COST=x is not allowed: must be a whole number from 4 to 31",
        ),
        (
            "--bind=here",
            "BIND=here is not allowed: must be an IP address and a port such as 127.0.0.1:8000 or [::]:8000",
        ),
        (
            "--movies-visibility=all",
            "MOVIES_VISIBILITY=all is not allowed: must be one of own, shared",
        ),
        (
            "--access-token-lifetime=0",
            "ACCESS_TOKEN_LIFETIME=0 is not allowed: must be a whole number of seconds from 1 to 3153600000",
        ),
        (
            "--trusted-proxies=10.0.0.0/8,x",
            "TRUSTED_PROXIES=x is not allowed: must be a list of networks such as 10.0.0.0/8,::1/128",
        ),
        (
            "--nonsense",
            "unexpected argument '--nonsense' found (see --help)",
        ),
    ] {
        assert_eq!(
            parse_serve(&[flag]).map(|_| ()),
            Err(expected.to_owned()),
            "{flag}"
        );
    }
}

#[test]
fn effective_settings_name_their_source() {
    let (_, effective_settings) = parse_serve(&["--bcrypt-cost=12"]).unwrap();
    let of = |name: &str| {
        effective_settings
            .iter()
            .find(|setting| setting.name == name)
            .unwrap()
    };
    assert_eq!(
        (of("BCRYPT_COST").value.as_str(), of("BCRYPT_COST").source),
        ("12", "flag")
    );
    assert_eq!(of("BIND").value, "0.0.0.0:8000");
    assert_eq!(of("LOG_LEVEL").source, "default");
}

#[test]
fn commands_require_only_the_settings_they_use() {
    for (flags, expected) in [
        (
            ["serve"],
            "DATABASE_URL and SECRET_KEY are not set and have no default (see --help)",
        ),
        (
            ["migrate"],
            "DATABASE_URL is not set and has no default (see --help)",
        ),
        (
            ["completions"],
            "the argument <SHELL> is missing (see --help)",
        ),
        (["sevre"], "unrecognized subcommand 'sevre' (see --help)"),
    ] {
        assert_eq!(parse_flags(&flags).map(|_| ()), Err(expected.to_owned()));
    }
}

#[test]
fn missing_flags_without_a_variable_are_named_as_flags() {
    for (flags, expected) in [
        (
            &["users", "create", "ann"][..],
            "the flag --email is missing (see --help)",
        ),
        (
            &["users", "create", "ann", "--email=a@example.com"],
            "DATABASE_URL is not set and has no default (see --help)",
        ),
        (&["--bind"], "--bind <BIND> has no value (see --help)"),
    ] {
        assert_eq!(parse_flags(flags).map(|_| ()), Err(expected.to_owned()));
    }
}

#[test]
fn white_space_around_values_is_ignored() {
    let (settings, effective_settings) = parse_serve(&[
        "--bind= 127.0.0.1:81 ",
        "--movies-visibility= shared\n",
        "--workers=\t12",
        "--idle-timeout= 5 ",
        "--login-cooldown= 6 ",
        "--log-level= warn ",
        "--log-format= json ",
        "--server-timing= true ",
        "--trusted-proxies= 10.0.0.0/8 , ::1 ",
        "--cors-origins= https://a.example , https://b.example ",
        "--bcrypt-cost",
        " ",
    ])
    .unwrap();
    assert_eq!(settings.bind.to_string(), "127.0.0.1:81");
    assert_eq!((settings.workers, settings.server_timing), (12, true));
    assert_eq!(
        (settings.trusted_proxies.len(), settings.cors_origins.len()),
        (2, 2)
    );
    for setting in &effective_settings {
        assert_eq!(setting.value, setting.value.trim(), "{}", setting.name);
    }
    let cost = effective_settings
        .iter()
        .find(|setting| setting.name == "BCRYPT_COST");
    assert_eq!(cost.unwrap().source, "default");
}
