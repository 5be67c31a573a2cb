//! What the process keeps from its host: core dumps, debuggers, swap, memory that it has freed. And what it asks
//! of it: open files.

use std::{fmt, io};

use mimalloc::MiMalloc;
use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};
use serde::{Deserialize, Serialize};
use zeroizing_alloc::ZeroAlloc;

/// The allocator of the program.
///
/// Batches of about 1 MiB come and go. The system's allocator gives their memory back each time and asks
/// for it again, page by page; mimalloc keeps it. What is freed is overwritten with zeros first, so that
/// no key and no record stays behind in memory that nobody owns.
pub const ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

/// Files besides those of clients: connections to the upstream, most of all.
const OTHER_FILES: u64 = 512;

/// The `[process]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether all memory is locked, so that none of it is ever written to swap.
    pub lock_memory: bool,
}

/// The system does not let the process lock its memory.
#[derive(Debug)]
pub struct NotLocked {
    error: io::Error,
    limit: Option<u64>,
}

impl std::error::Error for NotLocked {}

impl fmt::Display for NotLocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process.lock_memory: {}: ", self.error)?;
        match self.limit {
            Some(bytes) => write!(f, "RLIMIT_MEMLOCK is {bytes} bytes; lift it ")?,
            None => f.write_str("lift RLIMIT_MEMLOCK ")?,
        }
        f.write_str(
            "(systemd: `LimitMEMLOCK=infinity`, a shell: `ulimit -l unlimited`), or give the program \
             CAP_IPC_LOCK",
        )
    }
}

/// Sees to it that the process leaves no core dump, and that nobody but root reads its memory or attaches a
/// debugger to it. Not being allowed to is logged and no reason to stop.
///
/// It takes both: a dump that goes to a program (`|` in `/proc/sys/kernel/core_pattern`) heeds no limit,
/// and where processes are dumped against their will (`fs.suid_dumpable`), the limit still holds.
pub fn forbid_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "cannot set the limit for core dumps to 0");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "cannot make the process undumpable");
    }
}

/// Locks what memory the process has and all that it will have, each page once it is used.
///
/// Without CAP_IPC_LOCK the whole address space counts against `RLIMIT_MEMLOCK`, later allocations too.
///
/// # Errors
/// [`NotLocked`] when the system refuses.
pub fn lock_memory() -> Result<(), NotLocked> {
    let limit = getrlimit(Resource::Memlock).current;
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).map_err(|error| NotLocked {
        error: error.into(),
        limit,
    })?;
    tracing::info!(?limit, "memory is locked: none of it goes to swap");
    Ok(())
}

/// Every connection is an open file, and systems let a process have few of them unless it asks for as many
/// as it may have.
pub fn raise_file_limit(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < (max_connections as u64).saturating_add(OTHER_FILES) {
        tracing::warn!(
            files,
            max_connections,
            "the system allows fewer open files than limits.max_connections needs"
        );
    }
}
