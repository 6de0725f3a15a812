//! The program's plot: a command from flags and environment, run to its end; and the exit codes.
use std::process::ExitCode;

use movies_api::cli;
use movies_api::cli::command_line;
use movies_api::telemetry::logging;

/// The exit code for settings and arguments that cannot be: another try would fail in the same way.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let asked = match command_line::read(std::env::args_os().collect()) {
        Ok(asked) => asked,
        Err(reason) => {
            eprintln!("movies-api: {reason}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    let _drain_guard = logging::DrainGuard;
    match cli::run(asked.command, &asked.in_force, &asked.warnings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::tell_end(format_args!("{error:#}"));
            match error.is::<cli::BadSetting>() {
                true => ExitCode::from(BAD_USAGE),
                false => ExitCode::FAILURE,
            }
        }
    }
}
