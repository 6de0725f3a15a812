//! The dependencies between the modules of `src`, and where SQL may stand, read from the source.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed one is a failed test
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// "a -> b, c": files of the module `a` may use items of the modules `b` and `c`. What is not listed is not allowed.
const ALLOWED_DEPENDENCIES: &str = "
    main        -> cli, telemetry
    cli         -> api, auth, config, db, http, telemetry
    config      -> api, auth, db, telemetry
    api         -> auth, db, http, python_text, telemetry
    db          -> telemetry
    auth        -> python_text, telemetry
    http        ->
    telemetry   ->
    python_text ->
";

struct SourceFile {
    /// The first component of its path in `src`, without `.rs`.
    module: String,
    path: PathBuf,
    /// Without its unit tests.
    code: String,
}

fn source_files() -> Vec<SourceFile> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let relative = path.strip_prefix(&source).unwrap().with_extension("");
                let module = relative.components().next().unwrap();
                files.push(SourceFile {
                    module: module.as_os_str().to_str().unwrap().to_owned(),
                    code: text.split("#[cfg(test)]").next().unwrap().to_owned(),
                    path,
                });
            }
        }
    }
    assert!(files.len() > 10, "the source was not found");
    files
}

/// The modules whose names follow `crate::` or `movies_api::` in the code: one name, or those of a list in braces.
fn used_modules(code: &str) -> BTreeSet<String> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    let mut names = BTreeSet::new();
    for prefix in ["crate::", "movies_api::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|before: char| is_name(before) || before == ':') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                None => {
                    names.extend(
                        rest.split(|character| !is_name(character))
                            .next()
                            .map(str::to_owned),
                    );
                }
                Some(list) => {
                    let mut depth = 1;
                    let mut name = String::new();
                    for character in list.chars() {
                        match character {
                            '{' => depth += 1,
                            '}' => depth -= 1,
                            ',' => {}
                            _ if depth == 1 => name.push(character),
                            _ => {}
                        }
                        if depth == 0 || depth == 1 && character == ',' {
                            names.insert(name.trim().split([':', ' ']).next().unwrap().to_owned());
                            name.clear();
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                }
            }
        }
    }
    names
}

#[test]
fn modules_use_only_the_modules_they_may_depend_on() {
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in ALLOWED_DEPENDENCIES
        .lines()
        .filter(|line| !line.trim().is_empty())
    {
        let (from, to) = line.split_once("->").unwrap();
        let to = to.split(',').map(str::trim).filter(|name| !name.is_empty());
        allowed.insert(from.trim(), to.collect());
    }
    let mut found = BTreeSet::new();
    for file in source_files() {
        let module = file.module.as_str();
        for used in used_modules(&file.code) {
            if used == module || !allowed.contains_key(used.as_str()) {
                continue;
            }
            assert!(
                allowed
                    .get(module)
                    .is_some_and(|modules| modules.contains(used.as_str())),
                "{} uses {used}, which {module} may not depend on",
                file.path.display()
            );
            found.insert((module.to_owned(), used));
        }
    }
    // Each permission is used, so that the list stays as short as it can be.
    for (from, to) in &allowed {
        for to in to {
            assert!(
                found.contains(&((*from).to_owned(), (*to).to_owned())),
                "{from} does not use {to}"
            );
        }
    }
}

#[test]
fn only_db_names_types_of_postgres_and_includes_sql() {
    for file in source_files().iter().filter(|file| file.module != "db") {
        for text in ["postgres::", "r2d2", "refinery", "sql/"] {
            assert!(
                !file.code.contains(text),
                "{} contains {text}",
                file.path.display()
            );
        }
    }
}

#[test]
fn no_sql_stands_in_a_literal() {
    for file in source_files() {
        for statement in [
            "select ",
            "insert into ",
            "update ",
            "delete from ",
            "create table ",
        ] {
            let quoted = format!("\"{statement}");
            assert!(
                !file.code.to_lowercase().contains(&quoted),
                "{}: SQL in a literal: {statement}",
                file.path.display()
            );
        }
    }
}

#[test]
fn every_sql_file_begins_with_what_it_returns() {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut seen = 0;
    for folder in fs::read_dir(sql).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("-- "), "{} has no comment", path.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} statements were found");
}

#[test]
fn every_module_begins_with_its_purpose() {
    for file in source_files() {
        assert!(
            file.code.starts_with("//! "),
            "{} has no module comment",
            file.path.display()
        );
    }
}
