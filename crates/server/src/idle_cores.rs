//! How much of the cores that this process may use nobody uses, this process or another.
//!
//! From the kernel's own account of its cores, `/proc/stat` (proc(5)), which counts in clock ticks. Deliberately absent: a container's
//! quota of processor time (cgroup `cpu.max`), which takes no core away but all of them for a moment.

use std::time::{Duration, Instant};

/// Of a second. The unit of `/proc/stat` on every Linux there is (`sysconf(_SC_CLK_TCK)`).
const TICKS: u64 = 100;

/// What the cores of this process have idled, all together, since the machine has started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdleTime {
    idled: Duration,
    at: Instant,
}

impl IdleTime {
    /// None where the kernel does not say.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn now() -> Option<Self> {
        None
    }

    /// None where the kernel does not say.
    #[cfg(target_os = "linux")]
    pub(crate) fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let mine = rustix::thread::sched_getaffinity(None).ok()?;
        let idled = idled(&stat, |core| mine.is_set(core))?;
        Some(Self { idled, at: Instant::now() })
    }

    /// What has been idle since, in thousandths of a core. All, where the kernel does not say any more.
    pub(crate) fn share_since(self) -> u32 {
        let Some(now) = Self::now() else { return u32::MAX };
        let wall = now.at.duration_since(self.at).max(Duration::from_micros(1));
        (now.idled.saturating_sub(self.idled).as_secs_f64() / wall.as_secs_f64() * 1000.0) as u32
    }
}

/// Idle time, and time in which only a disk was waited for, of the cores that are `mine`.
fn idled(stat: &str, mine: impl Fn(usize) -> bool) -> Option<Duration> {
    let ticks = stat.lines().filter_map(|line| {
        let mut words = line.strip_prefix("cpu")?.split(' ');
        // The sum of all has no number.
        let core: usize = words.next()?.parse().ok()?;
        // cpuN user nice system idle iowait ...
        let mut times = words.skip(3).map(|word| word.parse::<u64>().ok());
        let ticks = times.next()??.saturating_add(times.next()??);
        mine(core).then_some(ticks)
    });
    let ticks = ticks.reduce(u64::saturating_add)?;
    Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cores_of_this_process_count() {
        let stat = "cpu  10 0 20 700 30 0 0 0 0 0\ncpu0 5 0 10 300 20 0 0 0 0 0\ncpu1 5 0 10 400 10 0 0 0 0 0\nintr 1 2\n";
        assert_eq!(idled(stat, |_| true), Some(Duration::from_millis(7_300)));
        assert_eq!(idled(stat, |core| core == 1), Some(Duration::from_millis(4_100)));
        for unknown in ["", "cpu  1 2 3 4 5\n", "cpu0 1 2 3\n", "cpu0 1 2 3 x 5\n"] {
            assert_eq!(idled(unknown, |_| true), None, "{unknown}");
        }
    }

    #[test]
    fn the_share_lies_between_nothing_and_all_cores() {
        let Some(before) = IdleTime::now() else { return };
        std::thread::sleep(Duration::from_millis(50));
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        // A tick more or less at either end, for each core.
        assert!(before.share_since() <= cores * 1400);
    }
}
