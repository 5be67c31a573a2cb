//! `streamseal apikey …`: making, listing, rotating and revoking a project's API keys, through the admin
//! listener of the running proxy. API keys come from files: an argument is there for everybody to see.

use clap::Subcommand;
use humantime_serde::re::humantime;
use serde::Deserialize;

use super::{
    Failure, print,
    project::{LOSS, Made, hand_over},
    remote::Keyed,
    table::{self, Row},
    tell,
};
use crate::project::Scope;

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make another API key of the project and print it, once, on standard output.
    Create(Create),
    /// List the project's API keys: what each may be used for, and how long.
    List(Keyed),
    /// Put a new API key in place of another and print it, once, on standard output. No record is touched.
    Rotate(Rotate),
    /// End an API key, at once and for ever.
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    keyed: Keyed,
    /// What it may be used for: append, read or manage. Can be given several times.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<Scope>,
    /// What it is for, for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// How long it is good for, such as 30d; for ever if left out.
    #[arg(long, value_name = "TIME", value_parser = span)]
    expires_in: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    keyed: Keyed,
    /// The id of the API key; if left out, the one in the file.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long the one before stays good, from 1m to 30d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
    grace: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    keyed: Keyed,
    /// The id of the API key.
    #[arg(long, value_name = "ID")]
    id: String,
    /// Revoke it even if it is the last that keeps the project's data from being lost for ever.
    #[arg(long)]
    force: bool,
}

#[derive(Deserialize)]
struct Listed {
    project: String,
    rows: Vec<ApiKey>,
}

#[derive(Deserialize)]
struct ApiKey {
    id: String,
    label: String,
    scopes: Vec<Scope>,
    created_at: String,
    expires_at: Option<String>,
    state: String,
    until: Option<String>,
    successor: Option<String>,
    own: bool,
}

#[derive(Deserialize)]
struct Rotated {
    #[serde(flatten)]
    made: Made,
    replaces: Replaced,
}

#[derive(Deserialize)]
struct Replaced {
    id: String,
    until: String,
}

#[derive(Deserialize)]
struct Revoked {
    was_good: bool,
}

/// Runs one of the commands.
///
/// # Errors
/// The proxy cannot be asked, or refuses.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(keyed) => list(keyed).await,
        Command::Rotate(args) => rotate(args).await,
        Command::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: Create) -> Result<(), Failure> {
    let order = serde_json::json!({
        "scopes": args.scopes,
        "label": args.label,
        "expires_in": args.expires_in,
    });
    let made: Made = args.keyed.listener()?.order("/api/apikeys", &order).await?;
    hand_over(&made)?;
    let end = end(made.expires_at.as_deref());
    tell(&format!(
        "made API key {}, {end}; it is shown this once\n{LOSS}",
        made.id
    ));
    Ok(())
}

async fn list(keyed: Keyed) -> Result<(), Failure> {
    let listed: Listed = keyed.listener()?.read("/api/apikeys").await?;
    tell(&format!("API keys of project {}", listed.project));
    let head = Row::of(["ID", "LABEL", "SCOPES", "CREATED", "EXPIRES", "STATE"]);
    print(&table::text(head, listed.rows.iter().map(ApiKey::row)))
}

async fn rotate(args: Rotate) -> Result<(), Failure> {
    let order = serde_json::json!({ "id": args.id, "grace": args.grace });
    let listener = args.keyed.listener()?;
    let Rotated { made, replaces } = listener.order("/api/apikeys/rotate", &order).await?;
    hand_over(&made)?;
    let end = end(made.expires_at.as_deref());
    tell(&format!(
        "made API key {}, {end}, in place of {}, which is good until {}; it is shown this once\n{LOSS}",
        made.id, replaces.id, replaces.until
    ));
    Ok(())
}

async fn revoke(args: Revoke) -> Result<(), Failure> {
    let order = serde_json::json!({ "id": args.id, "force": args.force });
    let listener = args.keyed.listener()?;
    let revoked: Revoked = listener.order("/api/apikeys/revoke", &order).await?;
    match revoked.was_good {
        true => print(&format!("revoked API key {}\n", args.id)),
        false => print(&format!("API key {} was over before\n", args.id)),
    }
}

impl ApiKey {
    fn row(&self) -> Row {
        let scopes: Vec<_> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        let mut state = self.state.clone();
        match (&*self.state, &self.until) {
            ("retiring", Some(until)) => state += &format!(" until {until}"),
            (_, Some(at)) => state += &format!(" at {at}"),
            (_, None) => {}
        }
        if let Some(successor) = &self.successor {
            state += &format!(", replaced by {successor}");
        }
        if self.own {
            state += " (this one)";
        }
        Row::of([
            &*self.id,
            &self.label,
            &scopes.join(","),
            &self.created_at,
            self.expires_at.as_deref().unwrap_or("never"),
            &state,
        ])
    }
}

fn end(expires_at: Option<&str>) -> String {
    match expires_at {
        Some(end) => format!("good until {end}"),
        None => "good until it is revoked".to_owned(),
    }
}

/// A time span that the proxy understands, as it was written.
fn span(text: &str) -> Result<String, humantime::DurationError> {
    humantime::parse_duration(text).map(|_| text.to_owned())
}
