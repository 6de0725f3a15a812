//! How much is logged: the levels of the program's rooms. Knows no lines.
use std::str::FromStr;

use log::{Level, LevelFilter};

/// The target of all lines of this program begins with it. The libraries' own lines are left out, since the database
/// client's hold the parameters of statements.
const PROGRAM: &str = "movies_api";

/// How much is logged: one level for the program, others for single rooms of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    everywhere: LevelFilter,
    rooms: Vec<(String, LevelFilter)>,
}

impl FromStr for Levels {
    type Err = String;

    /// `info`, or `info,store=debug,request=off`: a room by its path in the program, of several that fit the narrowest.
    fn from_str(text: &str) -> Result<Levels, String> {
        let allowed = || {
            "it is one of off, error, warn, info, debug, trace, or a list with rooms such as info,store=debug"
                .to_owned()
        };
        let mut everywhere = LevelFilter::Info;
        let mut rooms = Vec::new();
        for directive in text.split(',') {
            let (room, level) = match directive.split_once('=') {
                Some((room, level)) => (Some(room.trim()), level),
                None => (None, directive),
            };
            let level: LevelFilter = level.trim().parse().map_err(|_| allowed())?;
            match room {
                None => everywhere = level,
                Some(room) if !is_room(room) => return Err(allowed()),
                Some(room) if is_within(room, PROGRAM) => rooms.push((room.to_owned(), level)),
                Some(room) => rooms.push((format!("{PROGRAM}::{room}"), level)),
            }
        }
        Ok(Levels { everywhere, rooms })
    }
}

/// One level for the whole program.
impl From<LevelFilter> for Levels {
    fn from(everywhere: LevelFilter) -> Levels {
        Levels {
            everywhere,
            rooms: Vec::new(),
        }
    }
}

impl Levels {
    /// Whether a line of this level and target is logged.
    pub(super) fn admit(&self, level: Level, target: &str) -> bool {
        let fitting = self
            .rooms
            .iter()
            .filter(|(room, _)| is_within(target, room));
        let narrowest = fitting.max_by_key(|(room, _)| room.len());
        is_within(target, PROGRAM)
            && level <= narrowest.map_or(self.everywhere, |(_, level)| *level)
    }

    /// The level past which no line is logged, wherever it is from.
    pub(super) fn most(&self) -> LevelFilter {
        let rooms = self.rooms.iter().map(|(_, level)| *level);
        rooms.fold(self.everywhere, Ord::max)
    }
}

fn is_room(path: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let is_word = |word: &str| !word.is_empty() && word.chars().all(is_letter);
    path.split("::").all(is_word)
}

fn is_within(target: &str, room: &str) -> bool {
    let rest = target.strip_prefix(room);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_holds_for_its_room_and_those_within_and_the_libraries_are_left_out() {
        let levels: Levels = "warn, store=debug,movies_api::db::batch=off,request=off"
            .parse()
            .unwrap();
        for (level, target, is_logged) in [
            (Level::Warn, "movies_api", true),
            (Level::Info, "movies_api::http::workers", false),
            (Level::Debug, "movies_api::db", true),
            (Level::Debug, "movies_api::db::connection", true),
            (Level::Trace, "movies_api::db", false),
            (Level::Error, "movies_api::db::batch", false),
            (Level::Warn, "movies_api::storeroom", true),
            (Level::Debug, "movies_api::storeroom", false),
            (Level::Error, "movies_api::request", false),
            (Level::Error, "tokio_postgres::query", false),
            (Level::Error, "movies_apis", false),
        ] {
            assert_eq!(levels.admit(level, target), is_logged, "{level} {target}");
        }
        assert_eq!(levels.most(), LevelFilter::Debug);
        let levels: Levels = "store=off".parse().unwrap();
        assert!(levels.admit(Level::Info, PROGRAM) && !levels.admit(Level::Debug, PROGRAM));
        let levels: Levels = "tokio_postgres=trace".parse().unwrap();
        assert!(!levels.admit(Level::Error, "tokio_postgres"));
    }

    #[test]
    fn what_names_no_level_or_no_room_is_refused() {
        for bad in [
            "",
            "loud",
            "info,",
            "info,store",
            "store=",
            "=debug",
            "a b=info",
            "a:::b=info",
            "info=debug=trace",
            "a::=off",
        ] {
            assert!(bad.parse::<Levels>().is_err(), "{bad}");
        }
        assert_eq!(
            "DEBUG".parse::<Levels>().unwrap().most(),
            LevelFilter::Debug
        );
    }
}
