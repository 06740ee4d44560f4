//! The rules for source files: each opens with a comment of what it is, none is too long to read, and some words do not
//! appear on some floors.
//!
//! Invariant: every `.rs` file that is kept under version control here is looked at, tests and fuzz targets included.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, root};

/// How long a file may be. Most have a third of that; what is longer is two files.
pub const MAX_LINES: usize = 800;

/// Words that code of a crate does not have: sockets, files and clocks belong to other floors. A file that is made for just
/// that is named behind.
const NEVER_SAYS: &[(&str, &[&str], &[&str])] = &[
    ("crates/protocol/src", &["std::net", "std::fs", "std::thread", "Instant::now", "SystemTime"], &[]),
    (
        "crates/engine/src",
        &["std::net", "std::fs", "Instant::now", "SystemTime::now", "SystemTime,"],
        // The harness of the commands' tests starts redis-server beside the engine.
        &["crates/engine/src/testing"],
    ),
    (
        "crates/persistence/src",
        &["std::net", "std::fs", "SystemTime::now"],
        &["crates/persistence/src/disk/real.rs"],
    ),
    ("crates/node/src", &["std::net", "SystemTime::now"], &["crates/node/src/clock.rs"]),
    ("crates/trading/src", &["redis::", "mtcache_node", "mtcache_link", "mtcache_engine"], &[]),
    ("crates/cache/src", &["mtcache_protocol", "mtcache_server", "mtcache_trading"], &[]),
];

/// Looks at every source file.
pub fn check() -> Outcome {
    let root = root();
    let files = files(&root).map_err(|error| vec![format!("sources: {error}")])?;
    let mut faults = Vec::new();
    let mut lines = 0;
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file).to_string_lossy().into_owned();
        match fs::read_to_string(file) {
            Ok(text) => {
                lines += text.lines().count();
                faults.extend(faults_of(&name, &text));
            }
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(format!(
        "sources: {} files, {lines} lines, none over {MAX_LINES}, each opens with what it is",
        files.len()
    ))
}

/// Every source file, in order.
pub(crate) fn files(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "fuzz"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn faults_of(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let length = text.lines().count();
    if length > MAX_LINES {
        faults.push(format!("{name}: {length} lines; at most {MAX_LINES}, so make it two files"));
    }
    if !opens_with_its_purpose(text) {
        faults.push(format!("{name}: opens without a `//!` comment of what it is"));
    }
    for (folder, words, exceptions) in NEVER_SAYS {
        if !name.starts_with(folder) || exceptions.iter().any(|exception| name.starts_with(exception)) {
            continue;
        }
        for (number, line) in shipped_lines(text) {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{name}:{number}: says `{word}`, which is not for {folder}"));
            }
        }
    }
    faults
}

/// Whether the first line, or the first behind a fuzz target's `#![no_main]`, is an inner comment.
fn opens_with_its_purpose(text: &str) -> bool {
    text.lines()
        .find(|line| !line.starts_with("#![") && !line.is_empty())
        .is_some_and(|line| line.starts_with("//!"))
}

/// Lines of code that ships, numbered: no comments, and nothing from the tests on, which come last in a file.
pub(crate) fn shipped_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| *line != "mod tests {")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != "corpus" && name != "artifacts" {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_its_opening_comment_is_a_fault() {
        assert_eq!(faults_of("crates/x/src/a.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(faults_of("crates/x/src/a.rs", "//! What it is.\nuse std::fmt;\n"), [""; 0]);
        assert_eq!(faults_of("fuzz/fuzz_targets/a.rs", "#![no_main]\n//! What it is.\n"), [""; 0]);
    }

    #[test]
    fn a_file_that_is_too_long_is_a_fault() {
        let long = "//! Long.\n".to_owned() + &"\n".repeat(MAX_LINES - 1);
        assert_eq!(faults_of("crates/x/src/a.rs", &long), [""; 0]);
        assert_eq!(faults_of("crates/x/src/a.rs", &(long + "\n")).len(), 1);
    }

    #[test]
    fn the_engine_says_nothing_of_sockets_outside_comments_and_tests() {
        let opening = "//! What it is.\n";
        let name = "crates/engine/src/a.rs";
        assert_eq!(faults_of(name, &format!("{opening}use std::net::TcpStream;\n")).len(), 1);
        assert_eq!(faults_of(name, &format!("{opening}// not std::net\n")), [""; 0]);
        assert_eq!(faults_of(name, &format!("{opening}mod tests {{\nuse std::net::TcpStream;\n")), [""; 0]);
        assert_eq!(
            faults_of("crates/server/src/a.rs", &format!("{opening}use std::net::TcpStream;\n")),
            [""; 0]
        );
    }
}
