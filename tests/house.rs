//! The rules of the house, read off the source: who may use whom, where SQL may stand.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed one is a failed test
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// "A -> B, C": the room A may use the rooms B and C. What is not here is forbidden.
const ARROWS: &str = "
    main         -> command_line, commands/mod, logging
    command_line -> commands/mod, settings
    commands/mod -> commands/check, commands/import, commands/migrate, commands/print, commands/recount, commands/serve, commands/token, commands/users
    commands/mod -> bcrypt_cost, command_line, logging, settings, store/mod, token
    commands/token   -> commands/mod, settings, store/mod
    commands/users   -> commands/mod, settings, store/mod, api/mod, bcrypt_cost, password
    commands/check   -> commands/mod, settings, store/mod, bcrypt_cost
    commands/import  -> commands/mod, settings, store/mod
    commands/migrate -> commands/mod, settings, store/mod
    commands/recount -> commands/mod, settings, store/mod, store/counts
    commands/print   -> settings, server/mod
    commands/serve   -> commands/mod, bcrypt_cost, command_line, settings, logging, store/mod, api/mod, server/mod, throttle, password
    settings     -> api/mod, logging, signing_key, store/mod
    token        -> signing_key
    api/mod      -> api/account, api/auth, api/body, api/error, api/fields, api/movies, api/page, api/probes, api/proxy, api/query, api/registration
    api/mod      -> api/cors, api/docs, api/exchange, api/headers, api/schema, store/mod, token, password, metrics, server/mod, throttle, trace
    api/exchange -> api/mod, api/cors, api/error, api/proxy, logging, metrics, trace
    api/cors     -> api/headers, api/proxy, server/mod
    api/docs     -> api/error, api/headers
    api/schema   -> api/mod, api/auth, api/bodies, api/error, api/exchange, api/operations, api/page, api/registration, store/mod
    api/bodies   -> api/account, api/fields, api/movies, api/operations, api/query, password
    api/operations -> api/error, api/query, server/mod, throttle, token
    api/auth     -> api/mod, api/account, api/body, api/error, api/fields, api/proxy, api/registration, bcrypt_cost, password, store/mod, token
    api/registration -> api/account, api/body, api/error, api/fields, password, store/mod
    api/movies   -> api/mod, api/body, api/error, api/fields, api/page, api/proxy, api/query, store/mod
    api/probes   -> api/mod, api/error, store/mod, metrics, server/mod
    api/body     -> api/error, api/headers, api/query
    api/fields   -> api/body, api/error, text
    api/account  -> api/fields, password, text
    api/query    -> api/error, store/mod, text
    api/page     -> api/error, api/query, store/mod
    api/error    -> api/mod, store/mod, throttle, token, password
    api/proxy    -> api/error, api/headers
    store/mod    -> store/coalescer, store/counts, store/database, store/error, store/executor, store/import, store/lists, store/movies
    store/mod    -> store/pool, store/readiness, store/schema, store/session, store/users, store/write_limit, metrics, trace
    store/coalescer -> trace
    store/lists  -> store/mod, store/coalescer, store/executor, store/movies, store/session
    store/movies -> store/mod, store/coalescer, store/executor, store/session
    store/executor -> store/mod, store/database, store/error, store/outage, store/pool, store/session, store/write_limit
    store/pool   -> store/database, store/error, store/session, metrics, trace
    store/session -> store/mod, store/database, store/error, store/write_limit, metrics, trace
    store/readiness -> store/mod, store/database, store/executor, store/session
    store/outage -> store/error
    store/write_limit -> store/error
    store/schema -> store/mod, store/error
    store/counts -> store/mod, store/database, store/error, store/schema, store/movies
    store/import -> store/mod, store/database, store/error, store/schema, store/movies
    store/database -> store/mod, store/address, store/error
    store/address -> store/connection_string
    store/error  -> store/mod, store/coalescer
    store/users  -> store/mod, store/session
    password     -> text, metrics
    trace        -> metrics
    logging      -> metrics
    logging/queue -> logging/output, metrics
    server/mod        -> server/body, server/refusal, server/request, server/class, server/connection, server/counters
    server/mod        -> server/desk, server/error_headers, server/limits, server/lines, server/lingering, server/listener, server/memory, server/poller, server/queue
    server/mod        -> server/response, server/seats, server/socket, server/table, server/target, server/workers
    server/workers    -> server/class, server/connection, server/counters, server/desk, server/error_headers, server/limits, server/lines
    server/workers    -> server/listener, server/memory, server/pace, server/poller, server/queue, server/refusal
    server/workers    -> server/response, server/seats, server/socket, server/table
    server/connection -> server/body, server/counters, server/desk, server/error_headers, server/limits, server/lingering, server/memory, server/refusal
    server/connection -> server/request, server/response, server/socket, server/table
    server/limits     -> server/class, server/mod
    server/lingering  -> server/socket
    server/memory     -> server/counters, server/limits, server/refusal
    server/desk       -> server/counters, server/error_headers, server/limits, server/response
    server/table      -> server/connection
    server/lines      -> server/class, server/limits, server/table
    server/queue      -> server/class, server/counters, server/limits, server/lines, server/pace
    server/class      -> server/mod
    server/listener   -> server/counters, server/poller, server/refusal, server/response
    server/request    -> server/limits, server/refusal, server/target
    server/target     -> server/refusal
    server/body       -> server/refusal, server/request
    server/response   -> server/error_headers, server/refusal, server/request
";

struct Room {
    name: String,
    path: PathBuf,
    /// Without the tests at its foot.
    code: String,
}

fn rooms() -> Vec<Room> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    let mut rooms = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let whole = fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(&source).unwrap().with_extension("");
                rooms.push(Room {
                    name: name.to_str().unwrap().to_owned(),
                    code: whole.split("#[cfg(test)]").next().unwrap().to_owned(),
                    path,
                });
            }
        }
    }
    assert!(rooms.len() > 10, "the source was not found");
    rooms
}

/// The first names that follow `prefix` anywhere in the code: one, or those of a list in braces.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|before: char| is_name(before) || before == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list,
            None => rest
                .split_once(|character| !is_name(character))
                .map_or(rest, |(name, _)| name),
        };
        let mut depth = 0;
        let mut name = String::new();
        for character in list.chars().chain(['}']) {
            match character {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    let first = name.trim().split([':', ' ']).next().unwrap().to_owned();
                    names.insert(first);
                    name.clear();
                    if character == '}' {
                        break;
                    }
                }
                _ if depth == 0 => name.push(character),
                _ => {}
            }
        }
    }
    names
}

fn uses_of(room: &Room, all: &BTreeSet<String>) -> BTreeSet<String> {
    let to_room = |path: String| {
        let folder = format!("{path}/mod");
        if all.contains(&folder) {
            Some(folder)
        } else {
            all.get(&path).cloned()
        }
    };
    let mut uses = BTreeSet::new();
    for prefix in ["crate::", "movies_api::"] {
        uses.extend(
            names_after(&room.code, prefix)
                .into_iter()
                .filter_map(to_room),
        );
    }
    if let Some((folder, file)) = room.name.split_once('/') {
        let parent = if file == "mod" { "self::" } else { "super::" };
        for name in names_after(&room.code, parent) {
            let sibling = to_room(format!("{folder}/{name}"));
            uses.insert(sibling.unwrap_or_else(|| format!("{folder}/mod")));
        }
    }
    uses.remove(&room.name);
    uses
}

#[test]
fn rooms_use_only_the_rooms_that_an_arrow_leads_to() {
    let mut allowed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in ARROWS.lines().filter(|line| !line.trim().is_empty()) {
        let (from, to) = line.split_once("->").unwrap();
        let to = to.split(',').map(|name| name.trim().to_owned());
        allowed.entry(from.trim()).or_default().extend(to);
    }
    let rooms = rooms();
    let all = rooms.iter().map(|room| room.name.clone()).collect();
    let mut drawn = 0;
    for room in &rooms {
        let uses = uses_of(room, &all);
        drawn += uses.len();
        let none = BTreeSet::new();
        let undrawn: Vec<_> = uses
            .difference(allowed.get(room.name.as_str()).unwrap_or(&none))
            .collect();
        assert!(
            undrawn.is_empty(),
            "{} uses {undrawn:?}, and no arrow leads there",
            room.name
        );
    }
    assert!(drawn > 30, "only {drawn} uses were found");
}

#[test]
fn sql_stands_in_files_under_sql_that_the_store_alone_includes() {
    for room in rooms() {
        for statement in [
            "select ",
            "insert into ",
            "update ",
            "delete from ",
            "create table ",
        ] {
            let quoted = format!("\"{statement}");
            let found = room.code.to_lowercase().contains(&quoted);
            assert!(
                !found,
                "{}: SQL text in a literal: {statement}",
                room.path.display()
            );
        }
        let includes = room.code.contains("sql/") && room.code.contains("include_str!");
        assert!(
            !includes || room.name.starts_with("store/"),
            "{} includes SQL",
            room.path.display()
        );
    }
}

#[test]
fn every_statement_says_what_it_answers() {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut seen = 0;
    for folder in ["users", "movies", "schema", "probes", "import", "counts"] {
        for entry in fs::read_dir(sql.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("-- "), "{} has no head", path.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} statements were found");
}

#[test]
fn every_file_says_first_what_lives_there() {
    for room in rooms() {
        assert!(
            room.code.starts_with("//! "),
            "{} has no first line",
            room.path.display()
        );
    }
}
