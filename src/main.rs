//! The program `movies-api`: parses the command line, runs the command, and sets the exit code.
use std::process::ExitCode;

use movies_api::cli::{self, args};
use movies_api::telemetry::logging;

/// Exit code for wrong arguments and settings, with which every further attempt would fail too. A cost that is too high
/// for this machine is a wrong setting.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command_line = match args::parse(std::env::args_os().collect()) {
        Ok(command_line) => command_line,
        Err(message) => {
            eprintln!("movies-api: {message}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    let _drain_guard = logging::DrainGuard;
    match cli::run(command_line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::report_failure(format_args!("{error:#}"));
            match error.is::<cli::CostTooHigh>() {
                true => ExitCode::from(BAD_USAGE),
                false => ExitCode::FAILURE,
            }
        }
    }
}
