//! Finds environment variables that are ignored but were probably meant as a setting.
use std::ffi::OsString;

use clap::CommandFactory;

use crate::config::Settings;

/// Returns a warning for each variable whose name is almost a setting's, and for `PORT`, which other programs read, if
/// `bind` has another port.
pub fn find(variables: impl Iterator<Item = (OsString, OsString)>, bind: &str) -> Vec<String> {
    let settings = Settings::command();
    let known: Vec<_> = settings
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .collect();
    let mut warnings = Vec::new();
    for (name, value) in variables {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
            continue;
        };
        if known.contains(&name) || value.trim().is_empty() {
            continue;
        }
        if name == "PORT" && !bind.ends_with(&format!(":{}", value.trim())) {
            warnings.push(
                "the environment variable PORT is ignored: set address and port in BIND, for example BIND=0.0.0.0:8000"
                    .to_owned(),
            );
        }
        if let Some(setting) = known.iter().find(|known| is_misspelled(name, known)) {
            warnings.push(format!(
                "the environment variable {name} is ignored: did you mean {setting}?"
            ));
        }
    }
    warnings.sort();
    warnings
}

/// Whether the names differ in nothing but capitals and separators, or in a few letters: at most two letters of a name
/// of 10 or more, one of a name of 6 to 9. In a shorter name only two neighbouring letters may be swapped, since common
/// variables such as BIN are only one letter away from a setting.
fn is_misspelled(name: &str, setting: &str) -> bool {
    let normalize = |name: &str| name.to_uppercase().replace(['_', '-'], "");
    let upper = name.to_uppercase();
    if normalize(name) == normalize(setting) {
        return true;
    }
    let distance = strsim::osa_distance(&upper, setting);
    match setting.len() {
        0..6 => {
            let sorted = |name: &str| {
                let mut letters: Vec<_> = name.chars().collect();
                letters.sort_unstable();
                letters
            };
            distance == 1 && sorted(&upper) == sorted(setting)
        }
        6..10 => distance == 1,
        _ => distance <= 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_settings_are_reported_and_common_variables_are_not() {
        let find_one = |name: &str, value: &str| {
            let variables = [(OsString::from(name), OsString::from(value))];
            find(variables.into_iter(), "0.0.0.0:8000")
        };
        for (name, meant) in [
            ("CORS_ORIGNS", "CORS_ORIGINS"),
            ("CORS_ORIGIN", "CORS_ORIGINS"),
            ("cors_origins", "CORS_ORIGINS"),
            ("CORS-ORIGINS", "CORS_ORIGINS"),
            ("TRUSTED_PROXY", ""),
            ("TRUSTED_PROXYS", "TRUSTED_PROXIES"),
            ("SECRETKEY", "SECRET_KEY"),
            ("SERCET_KEY", "SECRET_KEY"),
            ("DATABSE_URL", "DATABASE_URL"),
            ("WORKER", "WORKERS"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("LOG_LEVELS", "LOG_LEVEL"),
            ("BNID", "BIND"),
        ] {
            let warnings = find_one(name, "x");
            let expected = match meant {
                "" => Vec::new(),
                meant => vec![format!(
                    "the environment variable {name} is ignored: did you mean {meant}?"
                )],
            };
            assert_eq!(warnings, expected, "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "HOST",
            "HOSTNAME",
            "USER",
            "LOGNAME",
            "SHELL",
            "TERM",
            "LANG",
            "PWD",
            "OLDPWD",
            "BIN",
            "BINDIR",
            "BINDING",
            "BIN_DIR",
            "KIND",
            "FIND",
            "BLIND",
            "EMAIL",
            "PORTS",
            "PGHOST",
            "PGPORT",
            "DATA_DIR",
            "DATABASE",
            "DATABASE_HOST",
            "SECRET",
            "SECRETS",
            "LOG",
            "LOG_FILE",
            "LOG_DIR",
            "DISPLAY",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "MALLOC_ARENA_MAX",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "SECRET_KEY_BASE",
            "KUBERNETES_PORT",
            "DJANGO_SECRET_KEY",
            "WEB_CONCURRENCY",
            "TIMEOUT",
            "NOTIFY_SOCKET",
            "LOGIN_URL",
            "MAIL",
            "XDG_SESSION_ID",
        ] {
            assert_eq!(find_one(name, "x"), Vec::<String>::new(), "{name}");
        }
        assert_eq!(find_one("CORS_ORIGNS", ""), Vec::<String>::new());
        assert_eq!(find_one("PORT", "9000").len(), 1);
        assert_eq!(find_one("PORT", "8000"), Vec::<String>::new());
    }
}
