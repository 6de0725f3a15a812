//! `completions`: prints the completion script of a shell.
use std::io::{self, Write};

use clap_complete::Shell;

use super::args::full_command;

pub fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut full_command(), "movies-api", &mut script);
    let mut script = String::from_utf8(script)?;
    if shell == Shell::Bash {
        // clap_complete 4.6 replaces the hyphen of the program's name in one way where it enters a subcommand's state
        // and in another where it matches on it, so that no subcommand's flags are found.
        script = script.replace("movies__subcmd__api", "movies__api");
    }
    Ok(io::stdout().write_all(script.as_bytes())?)
}
