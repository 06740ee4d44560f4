//! The rule for server options: what docs/options.md lists as in effect is read by code that ships.
//!
//! A reader is code outside of the table that names the parameter. That it does the right thing with it is for tests.

use std::fs;

use mtcache_engine::{Effect, PARAMS};

use crate::sources::{files, shipped_lines};
use crate::{Outcome, root};

const TABLE: &str = "crates/engine/src/config/table.rs";
const READERS: &[&str] = &["crates/engine/src/", "crates/node/src/", "crates/server/src/", "crates/cli/src/"];
/// Listed as in effect because a server that started without them would be the wrong one to those who set them; what reads
/// them is being built.
const AWAITED: &[&str] = &["dbfilename"];

/// Looks for a reader of every parameter in effect.
pub fn check() -> Outcome {
    let root = root();
    let mut code = String::new();
    for file in files(&root).map_err(|error| vec![format!("parameters: {error}")])? {
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        if !READERS.iter().any(|folder| name.starts_with(folder)) || name == TABLE || name.contains("/tests/")
        {
            continue;
        }
        let text = fs::read_to_string(&file).map_err(|error| vec![format!("{name}: {error}")])?;
        code.extend(shipped_lines(&text).flat_map(|(_, line)| [line, "\n"]));
    }
    let faults: Vec<String> = unread(&code)
        .into_iter()
        .map(|name| format!("parameters: {name} is listed as in effect, and no code reads it"))
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok("parameters: each that is listed as in effect has a reader".to_owned())
}

fn unread(code: &str) -> Vec<&'static str> {
    PARAMS
        .iter()
        .filter(|param| matches!(param.effect, Effect::Engine | Effect::Owner))
        .map(|param| param.name)
        .filter(|name| !AWAITED.contains(name) && !code.contains(&format!("\"{name}\"")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_in_effect_has_a_reader() {
        check().unwrap();
    }

    #[test]
    fn a_parameter_that_nobody_names_is_a_fault() {
        assert!(unread("").contains(&"timeout"));
        assert!(!unread("config.int(\"timeout\")").contains(&"timeout"));
        assert!(!unread("").contains(&"daemonize"), "nothing is promised of it");
    }
}
