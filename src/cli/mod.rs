//! The command line: one file per command, and the exit code that says how it went.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    config::{self, Config},
    process,
    registry::rules::Refused,
    stream::StreamPath,
    telemetry::{self, LogFormat},
};

mod apikey;
mod check_config;
mod effective;
mod explain;
mod init;
mod keygen;
pub mod notify;
mod open;
mod project;
#[cfg(feature = "quickstart")]
mod quickstart;
pub mod reload;
mod remote;
pub mod serve;
mod store;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod watch;

/// Exit code for a bad configuration or command line (`EX_USAGE` of `sysexits.h`).
const BAD_USAGE: u8 = 64;
/// Exit code for everything else that went wrong.
const FAILED: u8 = 1;

/// Why a command failed: one line for people, which also decides the exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The configuration or the command line is at fault: exit code 64.
    #[error("{0}")]
    Config(String),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Other(String),
}

/// Encrypts S2 streams on their way to the store, and decrypts them on the way back.
#[derive(Debug, Parser)]
#[command(name = "streamseal", version)]
struct Args {
    /// Form of the log on standard error: `auto` is text on a terminal and JSON otherwise.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Serve(ConfigFile),
    /// Check the configuration and print it as it takes effect.
    CheckConfig(CheckConfig),
    /// Print a fresh encryption key.
    Keygen,
    /// Create the config store.
    Init(ConfigFile),
    /// Export, import, rebuild or change the config store; with --admin also one that a proxy runs on.
    #[command(subcommand)]
    Store(store::Command),
    /// Create or list projects, through the admin listener of a running proxy.
    #[command(subcommand)]
    Project(project::Command),
    /// Make, list, rotate or revoke a project's API keys, through the admin listener of a running proxy.
    #[command(subcommand)]
    Apikey(apikey::Command),
    /// Copy a stream into another one, or check that everything in one decrypts.
    #[command(subcommand)]
    Stream(stream::Command),
    /// Run an S2 server in memory, the proxy in front of it, and a worked example.
    #[cfg(feature = "quickstart")]
    Quickstart(quickstart::Args),
}

#[derive(Debug, clap::Args)]
struct CheckConfig {
    #[command(flatten)]
    file: ConfigFile,
    /// Print instead what decides how this stream is treated.
    #[arg(long, value_name = "BASIN/STREAM", value_parser = store::stream_path)]
    explain: Option<StreamPath>,
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "./streamseal.toml")]
    config: PathBuf,
}

/// Runs the command that this process was started with and returns its exit code: 0 for a clean end,
/// 64 for a bad configuration or command line, 1 for anything else. A failure leaves its reason on
/// standard error.
pub fn run() -> ExitCode {
    match run_with(env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if even this fails.
            let _ = writeln!(io::stderr().lock(), "streamseal: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => BAD_USAGE,
            Self::Other(_) => FAILED,
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::SealsLess(_) => Self::Config(refused.to_string()),
            Refused::Store(_) => Self::Other(refused.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

fn run_with(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        // `--help` and `--version` come as errors, too.
        Err(shown) if !shown.use_stderr() => {
            return print(&shown.render().to_string());
        }
        Err(error) => {
            let text = error.render().to_string();
            let text = text.trim_start_matches("error: ").trim_end();
            return Err(Failure::Config(text.to_owned()));
        }
    };
    match args.command {
        Command::CheckConfig(args) => {
            process::forbid_dumps();
            check_config::run(&load(&args.file)?, args.explain.as_ref())
        }
        Command::Keygen => {
            process::forbid_dumps();
            keygen::run()
        }
        Command::Init(file) => {
            begin(args.log_format, None)?;
            init::run(&load(&file)?)
        }
        Command::Store(command) => {
            begin(args.log_format, None)?;
            store::run(command)
        }
        Command::Project(command) => {
            begin(args.log_format, None)?;
            block_on(project::run(command))
        }
        Command::Apikey(command) => {
            begin(args.log_format, None)?;
            block_on(apikey::run(command))
        }
        Command::Stream(command) => {
            begin(args.log_format, None)?;
            stream::run(command)
        }
        Command::Serve(file) => {
            begin(args.log_format, None)?;
            let config = load(&file)?;
            checked(&config)?;
            if config.process.lock_memory {
                process::lock_memory().map_err(|error| Failure::Other(error.to_string()))?;
            }
            block_on(serve::run(config, &file.config))
        }
        #[cfg(feature = "quickstart")]
        Command::Quickstart(args_of) => {
            begin(args.log_format, Some(quickstart::LOG_FILTER))?;
            block_on(quickstart::run(args_of))
        }
    }
}

/// Writes `text` to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Says `text` on standard error, beside what standard output is for.
fn tell(text: &str) {
    for line in text.lines() {
        // What matters was said on standard output.
        let _ = writeln!(io::stderr().lock(), "{}", telemetry::printable(line));
    }
}

fn load(file: &ConfigFile) -> Result<Config, Failure> {
    Ok(Config::load(Some(&file.config))?)
}

/// Refuses a configuration that makes no sense, with every reason.
fn checked(config: &Config) -> Result<(), Failure> {
    match config.check() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(config::Error::Mistakes(problems).into()),
    }
}

/// What comes before anything secret is read: a log, and no core dumps.
fn begin(format: LogFormat, filter: Option<&str>) -> Result<(), Failure> {
    start_log(format, filter)?;
    process::forbid_dumps();
    Ok(())
}

/// Starts the log with the filter of the environment, or else with `default`.
fn start_log(format: LogFormat, default: Option<&str>) -> Result<(), Failure> {
    let filter = match env::var(telemetry::FILTER_VARIABLE) {
        Ok(filter) => Some(filter),
        Err(env::VarError::NotPresent) => default.map(str::to_owned),
        Err(error) => {
            let variable = telemetry::FILTER_VARIABLE;
            return Err(Failure::Config(format!("{variable}: {error}")));
        }
    };
    telemetry::init(format, filter.as_deref()).map_err(|error| match error {
        telemetry::Error::Filter(_) => Failure::Config(error.to_string()),
        telemetry::Error::Installed(_) => Failure::Other(error.to_string()),
    })
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command)
}
