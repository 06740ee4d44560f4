//! Waiting for what has to come: as long as a loaded machine may take, and not for ever.

use std::time::{Duration, Instant};

/// How long anything may take that has to come, however busy the machine is. Default: 1 minute.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Time between two looks. Default: 10 ms.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// Looks again and again until it `holds`.
///
/// # Panics
/// When it does not within [`PATIENCE`]; `what` is the message.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK_PERIOD);
    }
}
