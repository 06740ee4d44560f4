//! The floors of the workspace: an arrow between crates goes only down, and some crates never know some things.
//!
//! The two tables are ARCHITECTURE.md's. Arrows come from `cargo metadata`, what a crate knows by way of others from
//! `cargo tree`; only what ships counts, so development dependencies are free.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::{Outcome, root};

/// On which floor a crate is. Those on one floor do not know each other.
const FLOORS: &[(&str, u8)] = &[
    ("mtcache-protocol", 0),
    ("mtcache-engine", 1),
    ("mtcache-persistence", 2),
    ("mtcache-node", 3),
    ("mtcache-link", 3),
    ("mtcache-cache", 4),
    ("mtcache-server", 4),
    ("mtcache-trading", 5),
    ("mtcache-workload", 5),
    ("mtcache-http", 6),
    ("mtcache-macros", 6),
    ("mtcache", 7),
    ("mtcache-demo", 8),
    ("mtcache-python", 8),
    ("mtcache-cli", 9),
];

/// What only tests and this program use: no crate that ships may depend on it.
const DEVELOPMENT_ONLY: &[&str] = &["mtcache-conformance", "xtask"];

/// What a crate must not have among its dependencies, not even by way of others.
const NEVER_KNOWS: &[(&str, &[&str])] = &[
    ("mtcache-protocol", &["tokio", "mio", "socket2", "redis", "tracing", "parking_lot", "mtcache-engine"]),
    (
        "mtcache-engine",
        &["tokio", "mio", "socket2", "redis", "tracing", "tempfile", "mtcache-persistence", "mtcache-node"],
    ),
    ("mtcache-persistence", &["tokio", "mio", "socket2", "redis", "mtcache-node"]),
    ("mtcache-node", &["tokio", "mio", "socket2", "redis", "mtcache-server"]),
    ("mtcache-server", &["redis", "mtcache-cache", "mtcache-link", "openssl", "aws-lc-rs"]),
    (
        "mtcache-link",
        &["mtcache-cache", "mtcache-engine", "mtcache-node", "mtcache-server", "openssl", "native-tls"],
    ),
    ("mtcache-cache", &["mtcache-server", "mtcache-trading", "axum", "hyper"]),
    ("mtcache-trading", &["mtcache-server", "sqlx"]),
    ("mtcache-workload", &["mtcache-trading", "mtcache-server", "sqlx"]),
    ("mtcache-http", &["mtcache-server", "axum", "sqlx", "openssl", "native-tls"]),
    ("mtcache", &["mtcache-server", "sqlx", "clap"]),
    ("mtcache-demo", &["mtcache-server", "clap", "openssl", "native-tls"]),
    ("mtcache-python", &["mtcache-server", "sqlx", "clap", "openssl", "native-tls"]),
    ("mtcache-cli", &["openssl", "native-tls"]),
];

/// Which crates may name a dependency in their own manifest; nobody else may.
const ONLY_NAMED_BY: &[(&str, &[&str])] = &[
    ("redis", &["mtcache-link"]),
    ("quick_cache", &["mtcache-cache"]),
    ("socket2", &["mtcache-link", "mtcache-server"]),
    ("mlua", &["mtcache-engine"]),
    ("sqlx", &["mtcache-demo"]),
    ("rustls", &["mtcache-link", "mtcache-server"]),
    ("tokio-rustls", &["mtcache-link", "mtcache-server"]),
    ("clap", &["mtcache-cli"]),
    ("pyo3", &["mtcache-python"]),
    (
        "mtcache-protocol",
        &["mtcache-engine", "mtcache-persistence", "mtcache-node", "mtcache-server", "mtcache-link"],
    ),
    ("mtcache-node", &["mtcache-cache", "mtcache-server", "mtcache-cli"]),
    ("mtcache-link", &["mtcache-cache", "mtcache-workload", "mtcache-cli"]),
    ("mtcache-server", &["mtcache-cli"]),
];

/// Checks both tables against the workspace.
pub fn check() -> Outcome {
    let packages = workspace_packages().map_err(|fault| vec![fault])?;
    let mut faults = arrow_faults(&packages);
    let mut looked_at = 0;
    for (package, unknown) in NEVER_KNOWS {
        match all_dependencies(package) {
            Ok(known) => {
                looked_at += known.len();
                faults.extend(unknown.iter().filter(|name| known.contains(**name)).map(|name| {
                    format!(
                        "{package} must never know {name}: see `cargo tree -e normal -p {package} -i {name}`"
                    )
                }));
            }
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(format!(
        "layers: {} crates on their floors, {looked_at} dependencies looked at, none that should not be known",
        packages.len()
    ))
}

/// A crate of the workspace and what its own manifest asks for in order to ship.
#[derive(Debug)]
struct Package {
    name: String,
    dependencies: Vec<String>,
}

fn arrow_faults(packages: &[Package]) -> Vec<String> {
    let floor_of = |name: &str| FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor);
    let mut faults = Vec::new();
    for Package { name, dependencies } in packages {
        if DEVELOPMENT_ONLY.contains(&name.as_str()) {
            continue;
        }
        let Some(floor) = floor_of(name) else {
            faults.push(format!("{name} is on no floor: give it one in xtask/src/layers.rs"));
            continue;
        };
        for dependency in dependencies {
            if DEVELOPMENT_ONLY.contains(&dependency.as_str()) {
                faults.push(format!("{name} depends on {dependency}, which is for development only"));
            } else if let Some(below) = floor_of(dependency)
                && below >= floor
            {
                faults.push(format!("{name} (floor {floor}) depends on {dependency} (floor {below})"));
            }
            if let Some((_, allowed)) = ONLY_NAMED_BY.iter().find(|(named, _)| named == dependency)
                && !allowed.contains(&name.as_str())
            {
                faults.push(format!("{name} names {dependency}; only {} may", allowed.join(", ")));
            }
        }
    }
    for (name, _) in FLOORS {
        if !packages.iter().any(|package| package.name == *name) {
            faults.push(format!("{name} has a floor and is not in the workspace"));
        }
    }
    faults
}

fn workspace_packages() -> Result<Vec<Package>, String> {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    Ok(list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: name(package),
            dependencies: list(&package["dependencies"])
                .iter()
                // A null kind is an ordinary dependency; the others are `dev` and `build`.
                .filter(|dependency| dependency["kind"].is_null())
                .map(name)
                .collect(),
        })
        .collect())
}

/// Every crate that a crate is built from, its own name left out.
fn all_dependencies(package: &str) -> Result<BTreeSet<String>, String> {
    let tree = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--package", package])?;
    let known: BTreeSet<String> =
        tree.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    Ok(known)
}

fn cargo(args: &[&str]) -> Result<String, String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo {}: {}", args.join(" "), said.trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("cargo {}: {error}", args.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The faults of one crate, those about crates that are left out of the test's workspace aside.
    fn faults(name: &str, dependencies: &[&str]) -> Vec<String> {
        let mut faults = arrow_faults(&[package(name, dependencies)]);
        faults.retain(|fault| !fault.ends_with("is not in the workspace"));
        faults
    }

    #[test]
    fn an_arrow_down_is_fine() {
        assert_eq!(faults("mtcache-engine", &["mtcache-protocol", "ahash"]), [""; 0]);
    }

    #[test]
    fn an_arrow_up_or_sideways_is_a_fault() {
        assert_eq!(
            faults("mtcache-engine", &["mtcache-persistence"]),
            ["mtcache-engine (floor 1) depends on mtcache-persistence (floor 2)"]
        );
        assert_eq!(
            faults("mtcache-trading", &["mtcache-workload"]),
            ["mtcache-trading (floor 5) depends on mtcache-workload (floor 5)"]
        );
    }

    #[test]
    fn a_crate_that_ships_does_not_use_what_only_tests_may() {
        assert_eq!(
            faults("mtcache-cache", &["mtcache-conformance"]),
            ["mtcache-cache depends on mtcache-conformance, which is for development only"]
        );
    }

    #[test]
    fn redis_is_named_by_the_link_alone() {
        assert_eq!(faults("mtcache-link", &["redis"]), [""; 0]);
        assert_eq!(faults("mtcache-cache", &["redis"]), ["mtcache-cache names redis; only mtcache-link may"]);
    }

    #[test]
    fn trading_does_not_see_which_backend_is_behind_the_cache() {
        assert_eq!(faults("mtcache-trading", &["mtcache-node", "mtcache-link"]).len(), 2);
    }

    #[test]
    fn a_crate_without_a_floor_is_a_fault() {
        assert_eq!(faults("mtcache-new", &[]).len(), 1);
    }
}
