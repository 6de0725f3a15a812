//! Parses LOG_LEVEL and decides which lines are logged.
use std::str::FromStr;

use log::{Level, LevelFilter};

/// The crate whose lines are logged. Those of libraries never are, since the database client logs statements'
/// parameters.
const CRATE: &str = "movies_api";

/// The least severe level that is logged, for the crate and for single modules of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    default: LevelFilter,
    /// Path of the module, with the crate's name, and its level.
    modules: Vec<(String, LevelFilter)>,
}

impl FromStr for Levels {
    type Err = String;

    /// Parses `info` or `info,db=debug,request=off`. A module is named by its path, with or without the crate's name.
    fn from_str(text: &str) -> Result<Levels, String> {
        let not_allowed = || {
            "must be one of off, error, warn, info, debug, trace, or a list with levels of modules such as info,db=debug"
                .to_owned()
        };
        let mut default = LevelFilter::Info;
        let mut modules = Vec::new();
        for directive in text.split(',') {
            let (module, level) = match directive.split_once('=') {
                Some((module, level)) => (Some(module.trim()), level),
                None => (None, directive),
            };
            let level: LevelFilter = level.trim().parse().map_err(|_| not_allowed())?;
            match module {
                None => default = level,
                Some(module) if !is_module_path(module) => return Err(not_allowed()),
                Some(module) if is_within(module, CRATE) => {
                    modules.push((module.to_owned(), level))
                }
                Some(module) => modules.push((format!("{CRATE}::{module}"), level)),
            }
        }
        Ok(Levels { default, modules })
    }
}

/// One level for the whole crate.
impl From<LevelFilter> for Levels {
    fn from(default: LevelFilter) -> Levels {
        Levels {
            default,
            modules: Vec::new(),
        }
    }
}

impl Levels {
    /// Whether a line of this level and target is logged. If several modules of the list contain the target, the
    /// innermost one decides.
    pub(super) fn allows(&self, level: Level, target: &str) -> bool {
        let containing = self
            .modules
            .iter()
            .filter(|(module, _)| is_within(target, module));
        let innermost = containing.max_by_key(|(module, _)| module.len());
        is_within(target, CRATE) && level <= innermost.map_or(self.default, |(_, level)| *level)
    }

    /// The least severe level that any target has.
    pub(super) fn max(&self) -> LevelFilter {
        let modules = self.modules.iter().map(|(_, level)| *level);
        modules.fold(self.default, Ord::max)
    }
}

fn is_module_path(path: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let is_name = |name: &str| !name.is_empty() && name.chars().all(is_letter);
    path.split("::").all(is_name)
}

fn is_within(target: &str, module: &str) -> bool {
    let rest = target.strip_prefix(module);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_applies_to_a_module_and_its_submodules_and_never_to_libraries() {
        let levels: Levels = "warn, db=debug,movies_api::db::coalescer=off,request=off"
            .parse()
            .unwrap();
        for (level, target, is_logged) in [
            (Level::Warn, "movies_api", true),
            (Level::Info, "movies_api::http::worker", false),
            (Level::Debug, "movies_api::db", true),
            (Level::Debug, "movies_api::db::pool", true),
            (Level::Trace, "movies_api::db", false),
            (Level::Error, "movies_api::db::coalescer", false),
            (Level::Warn, "movies_api::dbms", true),
            (Level::Debug, "movies_api::dbms", false),
            (Level::Error, "movies_api::request", false),
            (Level::Error, "tokio_postgres::query", false),
            (Level::Error, "movies_apis", false),
        ] {
            assert_eq!(levels.allows(level, target), is_logged, "{level} {target}");
        }
        assert_eq!(levels.max(), LevelFilter::Debug);
        let levels: Levels = "db=off".parse().unwrap();
        assert!(levels.allows(Level::Info, CRATE) && !levels.allows(Level::Debug, CRATE));
        let levels: Levels = "tokio_postgres=trace".parse().unwrap();
        assert!(!levels.allows(Level::Error, "tokio_postgres"));
    }

    #[test]
    fn unknown_levels_and_malformed_modules_are_rejected() {
        for bad in [
            "",
            "loud",
            "info,",
            "info,db",
            "db=",
            "=debug",
            "a b=info",
            "a:::b=info",
            "info=debug=trace",
            "a::=off",
        ] {
            assert!(bad.parse::<Levels>().is_err(), "{bad}");
        }
        assert_eq!("DEBUG".parse::<Levels>().unwrap().max(), LevelFilter::Debug);
    }
}
