//! The differences from Redis that are allowed, each with its reason. Nothing else may differ once the normalisations of
//! `normalise.rs` are done. An entry names a command (and subcommand) and says how its replies are compared instead.

use crate::normalise::Comparison;

/// One allowed difference.
#[derive(Debug)]
pub struct Allowed {
    /// The command and, after a space, its subcommand; `*` stands for any command. Without one, the bare command is meant.
    pub command: &'static str,
    /// What is still compared.
    pub compared_as: Comparison,
    /// Why the rest may differ.
    pub reason: &'static str,
}

/// The whole list. It is kept short: an entry needs a reason that holds for users too.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        command: "COMMAND",
        compared_as: Comparison::Shape,
        reason: "as COMMAND COUNT; single commands are compared through COMMAND INFO",
    },
    Allowed {
        command: "COMMAND COUNT",
        compared_as: Comparison::Shape,
        reason: "not every command of Redis is there yet, and we have none of its module commands",
    },
    Allowed {
        command: "* HELP",
        compared_as: Comparison::Shape,
        reason: "help is prose for people; ours is in our own words",
    },
    Allowed {
        command: "MEMORY USAGE",
        compared_as: Comparison::Shape,
        reason: "our layout in memory is another one; that it is smaller is measured elsewhere",
    },
    Allowed {
        command: "OBJECT REFCOUNT",
        compared_as: Comparison::Shape,
        reason: "Redis shares one object for each small integer and answers 2147483647 for it; we share none",
    },
];

/// The entry for a command, if it has one.
pub fn allowed(args: &[Vec<u8>]) -> Option<&'static Allowed> {
    let word =
        |position: usize| args.get(position).map(|arg| String::from_utf8_lossy(arg).to_ascii_uppercase());
    let (name, subcommand) = (word(0)?, word(1));
    ALLOWED.iter().find(|entry| match entry.command.split_once(' ') {
        Some((command, sub)) => (command == "*" || command == name) && subcommand.as_deref() == Some(sub),
        None => entry.command == name && subcommand.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    #[test]
    fn an_entry_is_found_by_command_and_subcommand_in_any_case() {
        assert!(allowed(&args!["memory", "Usage", "k"]).is_some());
        assert!(allowed(&args!["OBJECT", "HELP"]).is_some());
        assert!(allowed(&args!["OBJECT", "ENCODING", "k"]).is_none());
        assert!(allowed(&args!["GET", "COUNT"]).is_none());
    }
}
