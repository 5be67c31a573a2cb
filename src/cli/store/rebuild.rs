//! `streamseal store rebuild`: a lost or old config store filled from what the upstream holds.

use super::{
    super::{ConfigFile, Failure, print},
    plan::{self, Known, Plan},
    upstream,
};
use crate::{
    config::Config,
    store::{Embedded, Store as _},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    #[command(flatten)]
    upstream: upstream::Access,
    /// Say what would be recorded, and record nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Looks at every stream of every basin, then records what was found, all at once.
///
/// # Errors
/// The upstream cannot be asked for everything, or the store cannot be used. Nothing is recorded then.
pub(super) async fn run(config: Config, args: Args) -> Result<(), Failure> {
    let rules = config
        .rules()
        .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
    let upstream = args.upstream.open(config.clone())?;
    // One that is there is looked at first: it may be in use, or have another key.
    let is_there = config.store.path.exists();
    let open = || Embedded::open_to_rebuild(&config.store);
    let mut store = is_there.then(open).transpose()?;
    let mut found = Vec::new();
    for basin in upstream::basins(&upstream).await? {
        let streams = upstream::streams(&upstream, &basin).await?;
        found.push((basin, streams));
    }
    if store.is_none() && !args.dry_run {
        store = Some(open()?);
    }
    let (basins, streams) = match &store {
        Some(store) => (store.basins().await?, store.streams().await?),
        None => (Vec::new(), Vec::new()),
    };
    let known = Known::new(basins, streams);
    let mut plan = Plan::default();
    for (basin, streams) in &found {
        plan::basin(&mut plan, &known, &rules, basin, streams);
    }
    for line in &plan.report {
        print(&format!("{line}\n"))?;
    }
    let path = config.store.path.display();
    match store {
        Some(store) if !args.dry_run => {
            let count = plan.changes.len();
            store.commit(plan.changes).await?;
            print(&format!("config store {path}: {count} entries recorded\n"))
        }
        Some(_) | None => print("nothing was recorded: --dry-run\n"),
    }
}
