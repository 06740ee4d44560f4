//! What the project asks of itself beyond what the compiler checks: the floors and their arrows, the rules for source files,
//! documentation that agrees with the code.
//!
//! Each check answers with one line of what it looked at, or with every fault that it found.

pub mod cache_docs;
pub mod examples;
pub mod generated;
pub mod layers;
pub mod parameters;
pub mod references;
pub mod sources;

use std::path::{Path, PathBuf};

/// What a check says: one line when all is well, otherwise a line per fault.
pub type Outcome = Result<String, Vec<String>>;

/// All checks that need nothing but the sources.
pub fn check_all() -> Outcome {
    let checks: [fn() -> Outcome; 5] =
        [layers::check, sources::check, references::check, parameters::check, generated::check_all];
    let mut said = Vec::new();
    let mut faults = Vec::new();
    for check in checks {
        match check() {
            Ok(line) => said.push(line),
            Err(mut found) => faults.append(&mut found),
        }
    }
    if faults.is_empty() { Ok(said.join("\n")) } else { Err(faults) }
}

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}
