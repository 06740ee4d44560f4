//! The differential test's course: histories from seeds, each replayed on both servers, each failure shrunk and reported as
//! commands one can type. A history stands alone, so that its seed is enough to see a failure again.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::time::{Duration, Instant};

use crate::generate::{Family, Generator, Step};
use crate::replay::{Difference, Pair, Tally, Tamper};
use crate::servers::ServerError;
use crate::shrink::{script, shrink};

/// How many commands a history has: enough to fill its keys, few enough to shrink.
pub const HISTORY: usize = 2_000;

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The first history's seed; the next one's is one more.
    pub seed: u64,
    /// How many commands at least, over all histories.
    pub commands: usize,
    /// Out of which families.
    pub families: Vec<Family>,
    /// After how many different failures to stop.
    pub failures: usize,
    /// What is changed on purpose, to test the test.
    pub tamper: Tamper,
}

impl Plan {
    /// `MTCACHE_SEED` (default: the clock), `MTCACHE_COMMANDS` (default 200,000), `MTCACHE_FAMILIES` (default: all that are
    /// implemented), `MTCACHE_FAILURES` (default 10).
    pub fn from_environment() -> Result<Self, String> {
        let number = |name: &str| match env::var(name) {
            Ok(text) => text
                .replace('_', "")
                .parse::<u64>()
                .map(Some)
                .map_err(|_| format!("{name}={text} is not a number")),
            Err(_) => Ok(None),
        };
        let clock =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let families = match env::var("MTCACHE_FAMILIES") {
            Ok(names) => names
                .split(',')
                .map(|name| {
                    Family::named(name.trim()).ok_or_else(|| format!("MTCACHE_FAMILIES: no family {name:?}"))
                })
                .collect::<Result<_, _>>()?,
            Err(_) => Family::IMPLEMENTED.to_vec(),
        };
        Ok(Self {
            // Far apart, so that two runs do not share histories.
            seed: number("MTCACHE_SEED")?.unwrap_or(clock * 1_000),
            commands: number("MTCACHE_COMMANDS")?.unwrap_or(200_000) as usize,
            families,
            failures: number("MTCACHE_FAILURES")?.unwrap_or(10) as usize,
            tamper: Tamper::default(),
        })
    }
}

/// A difference with the shortest history that shows it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The history's seed.
    pub seed: u64,
    /// What differed at the end of the shrunk history.
    pub difference: Difference,
    /// The shrunk history as redis-cli lines.
    pub script: String,
    /// How many steps that has.
    pub steps: usize,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Commands replayed, without those of shrinking.
    pub commands: usize,
    /// How long that took, without shrinking.
    pub took: Duration,
    /// The failures, each of another command or text.
    pub failures: Vec<Failure>,
    /// Histories that failed in all.
    pub failed_histories: usize,
    /// Commands that our server says it does not support yet; the histories were replayed without them.
    pub missing: BTreeSet<String>,
    /// What the replies were.
    pub tally: Tally,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "--- {} differs (MTCACHE_SEED={} MTCACHE_COMMANDS={HISTORY})",
            self.difference.command, self.seed
        )?;
        // What did not shrink is better run again than read.
        for line in self.script.lines().take(60) {
            writeln!(f, "{line}")?;
        }
        let what: String = self.difference.what.chars().take(2_000).collect();
        writeln!(f, "=> {what}")
    }
}

/// Runs the plan.
pub fn run(pair: &mut Pair, plan: &Plan) -> Result<Report, ServerError> {
    let mut report = Report::default();
    let mut seed = plan.seed;
    while report.commands < plan.commands && report.failures.len() < plan.failures {
        let mut steps = Generator::new(seed, &plan.families).history(HISTORY);
        steps.retain(|step| !report.missing.iter().any(|command| uses(step, command)));
        let start = Instant::now();
        let difference = pair.replay(&steps, plan.tamper, &mut report.tally)?;
        report.took += start.elapsed();
        report.commands += steps.len();
        if let Some(command) = difference.as_ref().and_then(not_supported) {
            // The same history again, without it.
            if report.missing.insert(command) {
                continue;
            }
        }
        if let Some(difference) = difference {
            report.failed_histories += 1;
            let failure = shrink_failure(pair, plan, seed, steps, &difference)?;
            let known = |other: &Failure| {
                other.difference.command == failure.difference.command
                    && alike(&other.script, &failure.script)
            };
            if !report.failures.iter().any(known) {
                println!("{failure}");
                report.failures.push(failure);
            }
        }
        seed += 1;
    }
    Ok(report)
}

/// The command that our side says it does not support yet.
fn not_supported(difference: &Difference) -> Option<String> {
    let (before, _) = difference.what.split_once("' is not supported by this version")?;
    let (_, name) = before.rsplit_once('\'')?;
    Some(name.trim_end_matches('\\').to_owned())
}

/// Whether a step is this command, or a script that calls it.
fn uses(step: &Step, command: &str) -> bool {
    let (name, sub) = command.split_once('|').unwrap_or((command, ""));
    let is = |arg: &[u8], word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
    if is(&step.args[0], name) {
        return sub.is_empty() || step.args.get(1).is_some_and(|arg| is(arg, sub));
    }
    let quoted = format!("'{}'", name.to_ascii_uppercase());
    let script = step.args[0].to_ascii_uppercase().starts_with(b"EVAL");
    script && step.args.iter().any(|arg| is(arg, name) || String::from_utf8_lossy(arg).contains(&quoted))
}

fn shrink_failure(
    pair: &mut Pair,
    plan: &Plan,
    seed: u64,
    mut steps: Vec<Step>,
    first: &Difference,
) -> Result<Failure, ServerError> {
    if let Some(at) = first.step {
        steps.truncate(at + 1);
    }
    let mut last = first.clone();
    let mut broken = None;
    let shrunk =
        shrink(steps, |candidate| match pair.replay(candidate, plan.tamper, &mut Tally::default()) {
            Ok(Some(difference)) if difference.command == first.command => {
                last = difference;
                true
            }
            Ok(_) => false,
            Err(error) => {
                broken = Some(error);
                false
            }
        });
    match broken {
        Some(error) => Err(error),
        None => Ok(Failure { seed, difference: last, script: script(&shrunk), steps: shrunk.len() }),
    }
}

/// Whether two scripts use the same commands in the same order: likely one cause.
fn alike(one: &str, other: &str) -> bool {
    let commands = |script: &str| -> Vec<String> {
        script.lines().filter_map(|line| line.split(' ').next().map(str::to_ascii_uppercase)).collect()
    };
    commands(one) == commands(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    #[test]
    fn a_command_that_is_not_there_yet_is_named_and_left_out() {
        let difference = Difference {
            step: Some(1),
            command: "MEMORY".to_owned(),
            what:
                "ours -ERR \\'memory|usage\\' is not supported by this version of the engine yet, theirs :1"
                    .to_owned(),
        };
        assert_eq!(not_supported(&difference).as_deref(), Some("memory|usage"));
        let step = |args| Step { connection: 0, args };
        assert!(uses(&step(args!["MEMORY", "usage", "k"]), "memory|usage"));
        assert!(!uses(&step(args!["MEMORY", "DOCTOR"]), "memory|usage"));
        assert!(uses(&step(args!["EVAL", "redis.call('LCS', 'a', 'b')", "0"]), "lcs"));
        assert!(!uses(&step(args!["SET", "k", "'LCS'"]), "lcs"));
    }
}
