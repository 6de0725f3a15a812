//! `import-django`: imports the users and movies of the Django application that this service replaces.
use std::io::{self, IsTerminal};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use super::common::{CONNECT_TIMEOUT, Output};
use crate::config::DatabaseSettings;
use crate::db::ConnectionConfig;
use crate::db::import::{Imported, import};

/// Imports all rows or none.
///
/// # Errors
/// If a row cannot be imported: the output lists every reason.
pub fn import_django(
    source: &ConnectionConfig,
    target: &DatabaseSettings,
    output: &Output,
) -> anyhow::Result<()> {
    let imported = {
        let mut progress = Progress::default();
        import(
            source,
            &target.database_url,
            CONNECT_TIMEOUT,
            &mut |table, rows, total| progress.show(table, rows, total),
        )?
    };
    output.print(&imported, &describe(&imported))?;
    match imported.problems.len() {
        0 => Ok(()),
        1 => bail!("nothing was imported: one problem has to be fixed first"),
        many => bail!("nothing was imported: {many} problems have to be fixed first"),
    }
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
    lines
}

/// Shows a progress bar on a terminal; elsewhere prints a line on standard error for each table that was copied.
#[derive(Default)]
struct Progress {
    bar: Option<(&'static str, ProgressBar)>,
}

impl Progress {
    fn show(&mut self, table: &'static str, rows: u64, total: u64) {
        if !io::stderr().is_terminal() {
            if rows == total {
                eprintln!("{table}: {rows} copied");
            }
            return;
        }
        match &self.bar {
            Some((shown, bar)) if *shown == table => bar.set_position(rows),
            _ => {
                let style =
                    ProgressStyle::with_template("{msg:7} {wide_bar} {human_pos} of {human_len}");
                let bar = ProgressBar::new(total).with_message(table);
                let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_position(rows);
                // The bar of the previous table is dropped and stays on the screen.
                self.bar = Some((table, bar.with_finish(indicatif::ProgressFinish::Abandon)));
            }
        }
    }
}
