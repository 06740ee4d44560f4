//! Cuts a failing history down to what still fails: first whole steps (delta debugging, Zeller and Hildebrandt 2002), then
//! arguments, then their bytes. Pure: whether a history fails is the caller's question to answer.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::generate::Step;

/// How long shrinking may take; what has been reached then is good enough to read.
const BUDGET: Duration = Duration::from_secs(30);

/// The smallest failing history found. `fails` must be true of `steps` itself.
pub fn shrink(steps: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let deadline = Instant::now() + BUDGET;
    let mut fails = |steps: &[Step]| Instant::now() < deadline && fails(steps);
    let mut steps = shrink_list(steps, &mut |candidate| fails(candidate));
    for position in 0..steps.len() {
        let args = steps[position].args.clone();
        let mut with = |args: &[Vec<u8>]| {
            let mut candidate = steps.clone();
            candidate[position].args = args.to_vec();
            !args.is_empty() && fails(&candidate)
        };
        let mut args = shrink_list(args, &mut with);
        for index in 1..args.len() {
            let bytes = args[index].clone();
            if bytes.len() > 1 {
                args[index] = shrink_list(bytes, &mut |bytes| {
                    let mut candidate = args.clone();
                    candidate[index] = bytes.to_vec();
                    with(&candidate)
                });
            }
        }
        steps[position].args = args;
    }
    shrink_list(steps, &mut |candidate| fails(candidate))
}

/// Takes pieces away, the big ones first, as long as the rest still fails.
fn shrink_list<T: Clone>(mut items: Vec<T>, fails: &mut dyn FnMut(&[T]) -> bool) -> Vec<T> {
    let mut piece = items.len().div_ceil(2).max(1);
    loop {
        let mut removed = false;
        let mut start = 0;
        while start < items.len() {
            let end = (start + piece).min(items.len());
            let candidate: Vec<T> = items[..start].iter().chain(&items[end..]).cloned().collect();
            if fails(&candidate) {
                items = candidate;
                removed = true;
            } else {
                start = end;
            }
        }
        if piece == 1 && !removed {
            return items;
        }
        if piece > 1 {
            piece = piece.div_ceil(2);
        }
    }
}

/// The history as one would type it, a redis-cli line for each step.
pub fn script(steps: &[Step]) -> String {
    let several = steps.iter().any(|step| step.connection != steps[0].connection);
    let mut script = String::new();
    for step in steps {
        let line: Vec<String> = step.args.iter().map(|arg| quoted(arg)).collect();
        script.push_str(&line.join(" "));
        if several {
            let protocol = if step.connection.is_multiple_of(2) { "RESP2" } else { "RESP3" };
            let _ = write!(script, "    # connection {}, {protocol}", step.connection);
        }
        script.push('\n');
    }
    script
}

fn quoted(arg: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_:.-*+".contains(byte);
    if !arg.is_empty() && arg.iter().all(plain) {
        return String::from_utf8_lossy(arg).into_owned();
    }
    format!("\"{}\"", arg.escape_ascii().to_string().replace("\\'", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn step(connection: usize, args: Vec<Vec<u8>>) -> Step {
        Step { connection, args }
    }

    #[test]
    fn a_history_shrinks_to_the_steps_arguments_and_bytes_that_matter() {
        let mut steps: Vec<Step> = (0..300).map(|number: i64| step(0, args!["SET", "k", number])).collect();
        steps[40] = step(0, args!["SADD", "set", "one", "two", "a long member"]);
        steps[222] = step(1, args!["SREM", "set", "a long member"]);
        let shrunk = shrink(steps, |steps| {
            let added = steps
                .iter()
                .position(|step| step.args[0] == b"SADD" && step.args.iter().any(|arg| arg.contains(&b'm')));
            let removed = steps.iter().position(|step| step.args[0] == b"SREM");
            matches!((added, removed), (Some(added), Some(removed)) if added < removed)
        });
        assert_eq!(shrunk, [step(0, args!["SADD", "m"]), step(1, args!["SREM"])]);
    }

    #[test]
    fn a_script_can_be_typed_into_redis_cli() {
        let steps = [step(0, args!["SET", "k", ""]), step(0, args!["GET", "it's \"\n"])];
        assert_eq!(script(&steps), "SET k \"\"\nGET \"it's \\\"\\n\"\n");
        let two = [step(0, args!["MULTI"]), step(1, args!["PING"])];
        assert!(script(&two).contains("PING    # connection 1, RESP3"));
    }
}
