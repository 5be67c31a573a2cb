//! `streamseal project …`: creating and listing projects, changing their master keys, through the admin listener of the running proxy.

mod rotate_master;

use clap::Subcommand;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::{
    Failure, print,
    remote::{Keyed, Operator},
    table::{self, Row},
    tell,
};
use crate::{crypto::ApiKey, project::ProjectName, telemetry::printable};

/// What to do with projects.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a project's master key and print its first API key, once, on standard output.
    Create(Create),
    /// List the projects of the configuration, and any other that was created.
    List(Operator),
    /// Change the project's master key, without touching a record: prints an API key of the new one, once, on
    /// standard output, before anything else is done; all API keys of before end with the change. If it breaks
    /// off, run it again.
    RotateMaster(Keyed),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    operator: Operator,
    /// Make the project anew, because the answer was lost: its API keys of before end. Refused once a stream
    /// is encrypted with keys of the project.
    #[arg(long)]
    again: bool,
    /// The project's name, as in the configuration.
    #[arg(value_name = "NAME")]
    name: ProjectName,
}

/// An API key that was made.
#[derive(Deserialize)]
pub(super) struct Made {
    pub(super) id: String,
    #[serde(deserialize_with = "secret")]
    pub(super) api_key: Zeroizing<String>,
    pub(super) expires_at: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    rows: Vec<Project>,
}

#[derive(Deserialize)]
struct Project {
    project: String,
    configured: bool,
    r#match: Vec<String>,
    created: bool,
    mk_epoch: Option<u32>,
    changing: bool,
    api_keys: usize,
}

/// Runs one of the commands.
///
/// # Errors
/// The proxy cannot be asked, or refuses.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(operator) => list(operator).await,
        Command::RotateMaster(keyed) => rotate_master::run(keyed).await,
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

async fn create(args: Create) -> Result<(), Failure> {
    let listener = args.operator.listener_here()?;
    let order = serde_json::json!({ "name": args.name, "again": args.again });
    let made: Made = listener.order("/api/projects", &order).await?;
    hand_over(&made)?;
    tell(&format!(
        "created project {} with API key {}; it is shown this once\n{LOSS}",
        args.name, made.id
    ));
    Ok(())
}

/// What everybody is told who is given an API key.
pub(super) const LOSS: &str =
    "losing every API key of a project loses its data; there is no recovery";

/// Prints the API key and nothing else, so that it can go into a file.
///
/// # Errors
/// Standard output cannot be written: the key is there, and nobody has it.
pub(super) fn hand_over(made: &Made) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        let id = printable(&made.id);
        Failure::Other(format!("API key {id} was made, and nobody has it: {why}"))
    };
    if ApiKey::parse(made.api_key.as_bytes()).is_none() {
        return Err(failed(&"the answer holds something else"));
    }
    let line = Zeroizing::new(format!("{}\n", made.api_key.as_str()));
    print(&line).map_err(|error| failed(&error))
}

async fn list(operator: Operator) -> Result<(), Failure> {
    let listed: Listed = operator.listener()?.read("/api/projects").await?;
    let head = Row::of(["PROJECT", "STATE", "API KEYS", "MASTER KEY", "MATCH"]);
    let rows = listed.rows.iter().map(|project| {
        let state = match (project.configured, project.created) {
            (true, true) if project.changing => "master key is being changed",
            (true, true) => "created",
            (true, false) => "not created",
            (false, _) => "not in the configuration",
        };
        let epoch = project.mk_epoch;
        Row::of([
            &*project.project,
            state,
            &project.api_keys.to_string(),
            &epoch.map_or_else(String::new, |epoch| epoch.to_string()),
            &project.r#match.join(" "),
        ])
    });
    print(&table::text(head, rows))
}
