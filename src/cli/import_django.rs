//! `import-django`: the users and movies of the Django application that this service replaces.
use std::io::{self, IsTerminal};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use super::common::{CONNECT_TIMEOUT, Output};
use crate::config::DatabaseSettings;
use crate::db::ConnectionConfig;
use crate::db::import::{Imported, import};

/// Imports all or nothing; fails with everything that has to be mended first.
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
            &mut |what, rows, total| progress.show(what, rows, total),
        )?
    };
    output.print(&imported, &describe(&imported))?;
    match imported.problems.len() {
        0 => Ok(()),
        1 => bail!("nothing was imported: one thing has to be mended first"),
        many => bail!("nothing was imported: {many} things have to be mended first"),
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
        lines.push(format!("not taken over: {columns}"));
    }
    lines
}

/// A bar on a terminal; elsewhere a line on standard error for each table that is done.
#[derive(Default)]
struct Progress {
    bar: Option<(&'static str, ProgressBar)>,
}

impl Progress {
    fn show(&mut self, what: &'static str, rows: u64, total: u64) {
        if !io::stderr().is_terminal() {
            if rows == total {
                eprintln!("{what}: {rows} copied");
            }
            return;
        }
        match &self.bar {
            Some((shown, bar)) if *shown == what => bar.set_position(rows),
            _ => {
                let style =
                    ProgressStyle::with_template("{msg:7} {wide_bar} {human_pos} of {human_len}");
                let bar = ProgressBar::new(total).with_message(what);
                let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_position(rows);
                // The bar before is dropped, and stays as it was.
                self.bar = Some((what, bar.with_finish(indicatif::ProgressFinish::Abandon)));
            }
        }
    }
}
