//! `import-django`: imports the users and movies of the Django application that this service replaces.
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::common::{CONNECT_TIMEOUT, CommonArguments};
use crate::auth::password::describe_unverifiable;
use crate::config::{PasswordSettings, parse_database_url};
use crate::db::ConnectionConfig;
use crate::db::import::{Imported, Source, Step, import};

/// The arguments of `import-django`.
#[derive(Args, Debug)]
pub struct ImportDjango {
    /// What to import: the application's PostgreSQL database, in the form of DATABASE_URL, which is only read (keep
    /// its password in a passfile, since other users can see arguments); or, from any other database, the file
    /// that `manage.py dumpdata auth.user movies.movie --output FILE` writes, or - for standard input
    #[arg(value_parser = parse_source, value_hint = ValueHint::FilePath)]
    source: SourceArgument,
    #[command(flatten)]
    passwords: PasswordSettings,
    #[command(flatten)]
    common: CommonArguments,
}

/// Where to import from: a database, or a dump in a file or on standard input.
#[derive(Clone, Debug)]
enum SourceArgument {
    Database(ConnectionConfig),
    File(PathBuf),
    StandardInput,
}

/// Parses `-`, a connection string, or the path of an existing file.
///
/// # Errors
/// If it is none of them. The error does not repeat the value, which may be a misspelt connection string with a password.
fn parse_source(text: &str) -> Result<SourceArgument, String> {
    if text == "-" {
        return Ok(SourceArgument::StandardInput);
    }
    match parse_database_url(text) {
        Ok(database) => Ok(SourceArgument::Database(database)),
        Err(_) if Path::new(text).exists() => Ok(SourceArgument::File(text.into())),
        Err(reason) => Err(format!(
            "{reason}, an existing file (no file has this name), or - for standard input"
        )),
    }
}

/// Imports all rows or none.
///
/// # Errors
/// If a row cannot be imported: the output lists every reason. If a dump cannot be read or is no dump of Django's.
pub fn import_django(arguments: ImportDjango) -> anyhow::Result<()> {
    let source = open_source(arguments.source)?;
    let CommonArguments { database, output } = arguments.common;
    let mut bar = None;
    let mut show = |step| show_progress(step, &mut bar);
    let bcrypt_cost = arguments.passwords.bcrypt_cost;
    let imported = import(
        source,
        &database.database_url,
        CONNECT_TIMEOUT,
        &|stored| describe_unverifiable(stored, bcrypt_cost),
        &mut show,
    )?;
    // The last bar stays on the screen.
    drop(bar);
    output.print(&imported, &describe(&imported))?;
    match imported.problems.len() {
        0 => Ok(()),
        1 => bail!("nothing was imported: one problem has to be fixed first"),
        many => bail!("nothing was imported: {many} problems have to be fixed first"),
    }
}

fn open_source(source: SourceArgument) -> anyhow::Result<Source> {
    Ok(match source {
        SourceArgument::Database(database) => Source::Database(database),
        SourceArgument::File(path) => {
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
            let (metadata, file) =
                opened.with_context(|| format!("cannot open {}", path.display()))?;
            Source::Dump {
                size: metadata.is_file().then_some(metadata.len()),
                input: Box::new(file),
            }
        }
        SourceArgument::StandardInput => Source::Dump {
            input: Box::new(io::stdin()),
            size: None,
        },
    })
}

fn describe(imported: &Imported) -> Vec<String> {
    if !imported.problems.is_empty() {
        return imported.problems.clone();
    }
    let mut lines = vec![format!(
        "{} users and {} movies imported",
        imported.users, imported.movies
    )];
    if imported.users_without_email > 0 {
        let count = imported.users_without_email;
        lines.push(format!("{count} users have no e-mail address, as before"));
    }
    for (algorithm, count) in &imported.users_locked_out {
        lines.push(format!(
            "{count} users cannot sign in until `users set-password` ({algorithm})"
        ));
    }
    if !imported.columns_left_behind.is_empty() {
        let columns = imported.columns_left_behind.join(", ");
        lines.push(format!("not imported: {columns}"));
    }
    if !imported.models_passed_over.is_empty() {
        let models = imported.models_passed_over.iter();
        let models: Vec<_> = models
            .map(|(label, records)| format!("{label} ({records})"))
            .collect();
        lines.push(format!("other models passed over: {}", models.join(", ")));
    }
    if imported.times_without_zone > 0 {
        let count = imported.times_without_zone;
        lines.push(format!(
            "{count} times had no time zone and were taken for UTC"
        ));
    }
    if imported.has_new_user_ids {
        let reason = "the dump has no ids of users, so they have new ones";
        lines.push(format!("{reason}: tokens from before are refused"));
    }
    lines
}

/// Shows a progress bar on a terminal; elsewhere prints a line on standard error for a dump that was read, and for each
/// table that was copied. `shown` holds the bar and the name of its step.
fn show_progress(step: Step, shown: &mut Option<(&'static str, ProgressBar)>) {
    let Step { name, done, total } = step;
    if !io::stderr().is_terminal() {
        if total == Some(done) {
            let what = match name {
                "dump" => "bytes read",
                _ => "copied",
            };
            eprintln!("{name}: {done} {what}");
        }
        return;
    }
    match shown {
        Some((shown_name, bar)) if *shown_name == name => {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
        _ => {
            let style = match total {
                Some(_) => "{msg:7} {wide_bar} {human_pos} of {human_len}",
                None => "{msg:7} {spinner} {human_pos} bytes",
            };
            let style = ProgressStyle::with_template(style);
            let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let bar = bar.with_message(name);
            let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(done);
            // The bar of the previous step is dropped and stays on the screen.
            *shown = Some((name, bar.with_finish(ProgressFinish::Abandon)));
        }
    }
}
