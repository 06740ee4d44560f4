//! What documents say about the code, looked up in the code: file names, test names, limits.
//!
//! In the documents below, code in backticks that looks like a path of this repository must be one; a name of four words or more
//! joined by underscores must be a function; and in a table row a path followed by `NAME = VALUE` must be a constant that has that
//! value there. Links to files must lead somewhere.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, root, sources};

const DOCUMENTS: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "crates/cache/tests/contract/MATRIX.md",
    "data/README.md",
    "docs/README.md",
    "docs/batch.md",
    "docs/benchmarks.md",
    "docs/comparison.md",
    "docs/fill-tokens.md",
    "docs/http.md",
    "docs/keys-and-eviction.md",
    "docs/limits.md",
    "docs/near-cache.md",
    "docs/operating-the-cache.md",
    "docs/python.md",
    "docs/who-writes-what.md",
    "fuzz/README.md",
];

/// What a path of this repository begins with.
const FOLDERS: &[&str] = &["crates/", "xtask/", "fuzz/", "docs/", "data/", "scripts/"];

/// Looks everything up.
pub fn check() -> Outcome {
    let root = root();
    let functions = functions(&root).map_err(|error| vec![format!("sources: {error}")])?;
    let mut faults = Vec::new();
    let mut count = 0;
    for name in DOCUMENTS {
        let text = match fs::read_to_string(root.join(name)) {
            Ok(text) => text,
            Err(error) => {
                faults.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (number, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            for fault in line_faults(line, &root, name, &functions, &mut count) {
                faults.push(format!("{place}: {fault}"));
            }
        }
    }
    if faults.is_empty() {
        return Ok(format!("references: {count} names of files, tests and limits in documents are right"));
    }
    Err(faults)
}

fn line_faults(
    line: &str,
    root: &Path,
    document: &str,
    functions: &HashSet<String>,
    count: &mut usize,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut last_path: Option<PathBuf> = None;
    for code in in_backticks(line) {
        if FOLDERS.iter().any(|folder| code.starts_with(folder)) && !code.contains(' ') {
            *count += 1;
            let path = root.join(code);
            if !path.exists() && !code.contains("corpus") && !code.contains("artifacts") {
                faults.push(format!("there is no {code}"));
            }
            last_path = Some(path);
        } else if let Some(name) = test_name(code) {
            *count += 1;
            if !functions.contains(name) {
                faults.push(format!("no function is called {name}"));
            }
        } else if let Some((constant, value)) = code.split_once(" = ")
            && let Some(path) = &last_path
            && constant.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        {
            *count += 1;
            let text = fs::read_to_string(path).unwrap_or_default();
            if !has_constant(&text, constant, value) {
                faults.push(format!("{} has no {constant} of {value}", path.display()));
            }
        }
    }
    for target in links(line) {
        *count += 1;
        let folder = root.join(document);
        let target = folder.parent().unwrap_or(root).join(target.split('#').next().unwrap_or(target));
        if !target.exists() {
            faults.push(format!("the link to {} leads nowhere", target.display()));
        }
    }
    faults
}

fn in_backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Targets of links to files of this repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
}

/// The name, with its module's before it or not, of what reads as a sentence: four words or more in lower case. Names of
/// parameters and the like have fewer.
fn test_name(code: &str) -> Option<&str> {
    let name = code.rsplit("::").next().unwrap_or(code);
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (name.split('_').count() >= 4 && name.bytes().all(is_word)).then_some(name)
}

fn has_constant(text: &str, constant: &str, value: &str) -> bool {
    // As Python has it.
    if text.lines().any(|line| line == format!("{constant} = {value}")) {
        return true;
    }
    let start = format!("const {constant}: ");
    text.lines()
        .filter_map(|line| line.split_once(start.as_str()))
        .any(|(_, rest)| rest.split_once(" = ").is_some_and(|(_, given)| given == format!("{value};")))
}

/// Names of all functions in the sources.
fn functions(root: &Path) -> std::io::Result<HashSet<String>> {
    let mut names = HashSet::new();
    for file in sources::files(root)? {
        let text = fs::read_to_string(file)?;
        for (_, rest) in text.lines().filter_map(|line| line.split_once("fn ")) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            names.insert(rest[..end].to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(line: &str) -> Vec<String> {
        let functions = HashSet::from(["expired_key_is_a_miss".to_owned()]);
        line_faults(line, &root(), "README.md", &functions, &mut 0)
    }

    #[test]
    fn files_and_tests_must_exist() {
        assert_eq!(faults("see `xtask/src/main.rs` and `expired_key_is_a_miss`"), [""; 0]);
        assert_eq!(faults("see `xtask/src/none.rs` and `keys::expired_key_is_a_hit`").len(), 2);
        assert_eq!(faults("[a page](ARCHITECTURE.md#floors) and [none](docs/none.md)").len(), 1);
        assert_eq!(faults("`maxmemory_policy` is no test"), [""; 0]);
    }

    #[test]
    fn a_limit_must_have_the_value_that_its_page_says() {
        assert_eq!(faults("| `xtask/src/sources.rs` `MAX_LINES = 800` |"), [""; 0]);
        assert_eq!(faults("| `xtask/src/sources.rs` `MAX_LINES = 900` |").len(), 1);
        assert_eq!(faults("| `crates/python/python/mtcache/starlette.py` `LOAD_TIMEOUT = 600.0` |"), [""; 0]);
        assert_eq!(faults("| `crates/python/python/mtcache/starlette.py` `LOAD_TIMEOUT = 60.0` |").len(), 1);
    }
}
