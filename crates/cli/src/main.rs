//! The `mtcache` binary: puts server, demo and tools together. Each subcommand is a thin file.

mod allocator;
mod check;
mod demo;
mod launch;
mod logging;
mod replay;
mod selftest;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// MasterTrade Cache: the caching layer of a trading platform.
#[derive(Debug, Parser)]
#[command(name = "mtcache", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    Selftest(selftest::Selftest),
    Replay(replay::Replay),
    CheckRdb(check::CheckRdb),
    CheckAof(check::CheckAof),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::Selftest(selftest) => selftest.run(),
        Command::Replay(replay) => replay.run(),
        Command::CheckRdb(check) => check.run(),
        Command::CheckAof(check) => check.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtcache: {error}");
            ExitCode::FAILURE
        }
    }
}
