//! Finds the server programs that tests start: environment variable first, then where the project's own scripts put them.
//! Our own binary is brought up to date with cargo once per process, so that no test passes against yesterday's code.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A server that tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// redis-server.
    Redis,
    /// valkey-server.
    Valkey,
    /// `mtcache serve`.
    Mtcache,
}

impl Program {
    /// The three of them.
    pub const ALL: [Self; 3] = [Self::Redis, Self::Valkey, Self::Mtcache];
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
            Self::Mtcache => "mtcache serve",
        })
    }
}

/// The program's path, or what to do to have it.
pub fn find(program: Program) -> Result<PathBuf, String> {
    match program {
        Program::Redis => find_redis(),
        Program::Valkey => find_valkey(),
        Program::Mtcache => mtcache(),
    }
}

/// Where `scripts/install-test-tools.sh` installs: `test-tools` in cargo's target directory.
pub fn test_tools() -> PathBuf {
    target_directory().join("test-tools")
}

fn find_redis() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("MTCACHE_REDIS_SERVER") {
        return Ok(path.into());
    }
    env::var_os("PATH")
        .and_then(|path| {
            env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|file| file.is_file())
        })
        .ok_or_else(|| "redis-server is not in PATH; run scripts/install-test-tools.sh".to_owned())
}

fn find_valkey() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("MTCACHE_VALKEY_SERVER") {
        return Ok(path.into());
    }
    let installed = test_tools().join("valkey-server");
    if installed.is_file() {
        return Ok(installed);
    }
    Err(format!("{} is missing; run scripts/install-test-tools.sh", installed.display()))
}

fn mtcache() -> Result<PathBuf, String> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = env::var_os("MTCACHE_BIN") {
        return Ok(path.into());
    }
    BINARY.get_or_init(build_mtcache).clone()
}

fn build_mtcache() -> Result<PathBuf, String> {
    let release =
        env::current_exe().is_ok_and(|path| path.components().any(|part| part.as_os_str() == "release"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--package", "mtcache-cli", "--bin", "mtcache", "--target-dir"])
        .arg(target_directory())
        .args(release.then_some("--release"))
        .current_dir(workspace());
    let output =
        command.output().map_err(|error| format!("cargo cannot be run to build mtcache: {error}"))?;
    if !output.status.success() {
        return Err(format!("mtcache does not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(target_directory().join(if release { "release" } else { "debug" }).join("mtcache"))
}

/// `CARGO_TARGET_DIR`, or the folder above the `debug` or `release` that this test binary is in.
fn target_directory() -> PathBuf {
    if let Some(path) = env::var_os("CARGO_TARGET_DIR") {
        return workspace().join(path);
    }
    let own = env::current_exe().unwrap_or_default();
    own.ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| workspace().join("target"), Path::to_path_buf)
}

fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}
