//! File descriptors: enough of them for `maxclients` and for the server's own use, or fewer clients.
//!
//! Invariant: connections never take the descriptors that files, event loops and listeners need, so that a server full of clients
//! still saves and journals. The limit of the process is raised and never lowered.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::ServerError;

/// Descriptors that are not for clients: files of the journal and of snapshots, listeners, the log. Default: 32, as in Redis.
pub const RESERVED_DESCRIPTORS: usize = 32;
/// What each worker needs besides: its event loops and what wakes them, and a connection that is turned away. Default: 6.
pub const DESCRIPTORS_PER_WORKER: usize = 6;

/// Makes room for so many clients; the number of those there is room for, which is at most that.
pub(crate) fn make_room(maxclients: usize, workers: usize) -> usize {
    let own = (RESERVED_DESCRIPTORS + workers.saturating_mul(DESCRIPTORS_PER_WORKER)) as u64;
    let wanted = (maxclients as u64).saturating_add(own);
    let had = getrlimit(Resource::Nofile);
    // No limit at all is none to care about.
    let Some(current) = had.current.filter(|current| *current < wanted) else { return maxclients };
    let reached = raise(had, wanted);
    if reached >= wanted {
        tracing::info!(
            "Increased maximum number of open files to {wanted} (it was originally set to {current})."
        );
        return maxclients;
    }
    usize::try_from(reached.saturating_sub(own)).unwrap_or(maxclients)
}

/// As [`make_room`], at the start of a server: says so where there is room for fewer than asked for.
pub(crate) fn make_room_at_start(maxclients: usize, workers: usize) -> Result<usize, ServerError> {
    let possible = make_room(maxclients, workers);
    if possible == maxclients {
        return Ok(maxclients);
    }
    let needed = maxclients + RESERVED_DESCRIPTORS + workers * DESCRIPTORS_PER_WORKER;
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if possible == 0 {
        return Err(ServerError::told(format!(
            "Your current 'ulimit -n' of {current} is not enough for the server to start. Please increase your open file \
             limit to at least {needed}."
        )));
    }
    tracing::warn!(
        "You requested maxclients of {maxclients} requiring at least {needed} max file descriptors. Current maximum open files \
         is {current}. maxclients has been reduced to {possible} to compensate for low ulimit. If you need higher maxclients \
         increase 'ulimit -n'."
    );
    Ok(possible)
}

/// Raises the limit to `wanted`, or as far as it goes; the limit that is in force then.
fn raise(had: Rlimit, wanted: u64) -> u64 {
    let current = had.current.unwrap_or(u64::MAX);
    // Only a privileged process may go beyond the hard limit.
    let beyond = Rlimit { current: Some(wanted), maximum: Some(had.maximum.unwrap_or(wanted).max(wanted)) };
    if setrlimit(Resource::Nofile, beyond).is_ok() {
        return wanted;
    }
    let most = had.maximum.unwrap_or(wanted).min(wanted);
    match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: had.maximum }) {
        Ok(()) => most,
        Err(_) => current,
    }
}
