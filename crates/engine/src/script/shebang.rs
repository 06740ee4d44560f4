//! The first line of a script, `#!lua flags=...`, and what it promises.

use mtcache_protocol::split_args;

use crate::error::CommandError;

/// What a script says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// It has such a line. One without may do what its commands may, as scripts of old do.
    pub(crate) declared: bool,
    /// It writes nothing.
    pub(crate) no_writes: bool,
    /// It may run, and write, without memory left.
    pub(crate) allow_oom: bool,
}

/// The flags, and the source below the line. The line's end stays, so that line numbers do.
pub(crate) fn read(source: &[u8]) -> Result<(Flags, &[u8]), CommandError> {
    let mut flags = Flags::default();
    if !source.starts_with(b"#!") {
        return Ok((flags, source));
    }
    let Some(end) = memchr::memchr(b'\n', source) else {
        return Err(CommandError::new("ERR Invalid script shebang"));
    };
    let (line, body) = source.split_at(end);
    let words = split_args(line).unwrap_or_default();
    let Some((engine, options)) = words.split_first() else {
        return Err(CommandError::new("ERR Invalid engine in script shebang"));
    };
    if engine != b"#!lua" {
        return Err(refused("Unexpected engine in script shebang", engine));
    }
    flags.declared = true;
    for option in options {
        let Some(names) = option.strip_prefix(b"flags=") else {
            return Err(refused("Unknown lua shebang option", option));
        };
        if names.is_empty() {
            continue;
        }
        for name in names.split(|byte| *byte == b',') {
            match name {
                b"no-writes" => flags.no_writes = true,
                b"allow-oom" => flags.allow_oom = true,
                // There are no replicas that could be stale, and no slots.
                b"allow-stale" | b"no-cluster" | b"allow-cross-slot-keys" => {}
                other => return Err(refused("Unexpected flag in script shebang", other)),
            }
        }
    }
    Ok((flags, body))
}

fn refused(what: &str, word: &[u8]) -> CommandError {
    CommandError::new(format!("ERR {what}: {}", String::from_utf8_lossy(word)))
}

#[cfg(test)]
mod tests {
    use super::{Flags, read};

    #[test]
    fn flags_are_read_and_the_line_is_cut_off() {
        let (flags, body) = read(b"#!lua flags=no-writes,allow-oom flags=allow-stale\nreturn 1").unwrap();
        assert_eq!(flags, Flags { declared: true, no_writes: true, allow_oom: true });
        assert_eq!(body, b"\nreturn 1");
        assert_eq!(read(b"return 1").unwrap(), (Flags::default(), &b"return 1"[..]));
    }

    #[test]
    fn a_line_that_is_not_understood_is_refused() {
        for (source, text) in [
            (&b"#!lua"[..], "ERR Invalid script shebang"),
            (b"#!js\n", "ERR Unexpected engine in script shebang: #!js"),
            (b"#!lua \"flags\n", "ERR Invalid engine in script shebang"),
            (b"#!lua name=x\n", "ERR Unknown lua shebang option: name=x"),
            (b"#!lua flags=no-writes,\n", "ERR Unexpected flag in script shebang: "),
        ] {
            assert_eq!(read(source).unwrap_err().to_string(), text);
        }
    }
}
