//! The `streamseal` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    streamseal::cli::run()
}
