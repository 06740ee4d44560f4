//! Runs the commands that a document shows, so that none of them stops working unnoticed.
//!
//! In a block fenced as `console`, a line that starts with `$ ` is a command (a backslash at its end continues it); the lines
//! up to the next one are what it prints: each must occur in the output, in that order, and `...` stands for anything. A command
//! with ` &` behind it runs until the end. All of them run in one scratch folder, with the binary that has been built already
//! in place of `cargo run --release --`, and a free port in place of 6379.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Outcome, root};

/// How long a server in the background may take until it listens.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// What stands in the document and what is run instead.
const STANDARD_PORT: &str = "6379";
const RUN_THE_BINARY: &str = "cargo run --release --";
/// What runs this; it is not run again from here.
const RUNS_THIS: &str = "./test.sh";

/// One command of a document.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    line: usize,
    command: String,
    expected: Vec<String>,
}

/// Runs every command of a document, in order; the binary is `MTCACHE_BIN`.
pub fn run(file: &str) -> Outcome {
    let text = fs::read_to_string(file).map_err(|error| vec![format!("{file}: {error}")])?;
    let examples = parse(&text);
    if examples.is_empty() {
        return Err(vec![format!("{file}: no `console` block with a command")]);
    }
    let binary = binary().map_err(|fault| vec![fault])?;
    let mut stage = Stage::new(&binary).map_err(|error| vec![format!("{file}: {error}")])?;
    let mut faults = Vec::new();
    let mut count = 0;
    for example in &examples {
        if example.command.starts_with(RUNS_THIS) {
            continue;
        }
        count += 1;
        println!("{file}:{}: $ {}", example.line, example.command);
        if let Err(fault) = stage.play(example) {
            faults.push(format!("{file}:{}: `{}`: {fault}", example.line, example.command));
        }
    }
    if faults.is_empty() { Ok(format!("{file}: {count} examples passed")) } else { Err(faults) }
}

fn parse(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut in_block = false;
    let mut continues = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            in_block = line == "```console";
            continues = false;
        } else if !in_block {
        } else if let Some(command) = line.strip_prefix("$ ") {
            continues = command.ends_with('\\');
            let command = command.trim_end_matches('\\').to_owned();
            examples.push(Example { line: index + 1, command, expected: Vec::new() });
        } else if let Some(example) = examples.last_mut() {
            if continues {
                continues = line.ends_with('\\');
                example.command.push_str(line.trim_end_matches('\\').trim_start());
            } else {
                example.expected.push(line.trim_end().to_owned());
            }
        }
    }
    examples
}

fn binary() -> Result<PathBuf, String> {
    let path =
        std::env::var_os("MTCACHE_BIN").map(PathBuf::from).ok_or("MTCACHE_BIN names no binary to run")?;
    path.canonicalize().map_err(|error| format!("MTCACHE_BIN={}: {error}", path.display()))
}

/// Where the commands run, and what still runs in the background.
struct Stage {
    folder: PathBuf,
    path: std::ffi::OsString,
    port: u16,
    background: Vec<Child>,
}

impl Stage {
    fn new(binary: &Path) -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("mtcache-examples-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        // The documents speak of the project's own files as they are found from its root.
        for shared in ["data", "docs"] {
            std::os::unix::fs::symlink(root().join(shared), folder.join(shared))?;
        }
        let own = binary.parent().map(Path::to_path_buf).into_iter();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.chain(std::env::split_paths(&inherited)))
            .map_err(std::io::Error::other)?;
        Ok(Self { folder, path, port: free_port()?, background: Vec::new() })
    }

    fn play(&mut self, example: &Example) -> Result<(), String> {
        let command = example.command.replace(RUN_THE_BINARY, "mtcache");
        let command = with_port(&command, self.port);
        if let Some(server) = command.strip_suffix('&') {
            return self.start(server.trim_end());
        }
        let output = self.bash(&command).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(format!("ended with {}:\n{said}{complaint}", output.status));
        }
        expect(&said, &example.expected, self.port)
    }

    fn start(&mut self, server: &str) -> Result<(), String> {
        let log = fs::File::create(self.folder.join("background.log")).map_err(|error| error.to_string())?;
        let child = self
            .bash(&format!("exec {server}"))
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        self.background.push(child);
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.background.last_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || start.elapsed() > START_DEADLINE {
                let log = fs::read_to_string(self.folder.join("background.log")).unwrap_or_default();
                return Err(format!("does not listen on port {}:\n{log}", self.port));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn bash(&self, command: &str) -> Command {
        // Should this process be ended in the middle, what it has started ends too.
        let mut bash = Command::new("setpriv");
        bash.args(["--pdeathsig", "TERM", "bash", "-euo", "pipefail", "-c", command])
            .current_dir(&self.folder)
            .env("PATH", &self.path);
        // Replies as redis-cli shows them at a terminal.
        bash.env("FAKETTY", "1");
        // A group of its own, so that Ctrl-C at the terminal reaches the runner first.
        bash.process_group(0);
        bash
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.background {
            // SIGTERM, so that what runs there can save and tidy up.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
        let _ = std::io::stdout().flush();
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A command as it runs on another port. One that names no port gets it where it needs it.
fn with_port(command: &str, port: u16) -> String {
    let command = command.replace(STANDARD_PORT, &port.to_string());
    let needs_one = |program: &str| command.starts_with(program) && !command.contains(&port.to_string());
    if needs_one("redis-cli") {
        command.replacen("redis-cli", &format!("redis-cli -p {port}"), 1)
    } else if needs_one("mtcache serve") && !command.contains("--port") {
        command.replacen("mtcache serve", &format!("mtcache serve --port {port}"), 1)
    } else {
        command
    }
}

/// Finds the expected lines in the output, one after the other.
fn expect(said: &str, expected: &[String], port: u16) -> Result<(), String> {
    let mut lines = said.lines();
    for wanted in expected.iter().filter(|line| !line.is_empty() && *line != "...") {
        let wanted = wanted.replace(STANDARD_PORT, &port.to_string());
        if !lines.any(|line| is_like(line.trim_end(), &wanted)) {
            return Err(format!("does not print (there, or at all) `{wanted}`; it prints:\n{said}"));
        }
    }
    Ok(())
}

/// Whether a line is as wanted, `...` standing for anything.
fn is_like(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        last = Some(part);
    }
    match last {
        None => rest.is_empty(),
        Some("") => true,
        Some(part) => line.ends_with(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_what_they_print_are_found_in_console_blocks_alone() {
        let text = "# A\n```sh\n$ not this\n```\n```console\n$ one \\\n    two\nsays\n...\n$ three\n```\n$ nor this\n";
        let example = |line, command: &str, expected: &[&str]| Example {
            line,
            command: command.to_owned(),
            expected: expected.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(parse(text), [example(6, "one two", &["says", "..."]), example(10, "three", &[])]);
    }

    #[test]
    fn expected_lines_occur_in_order_and_may_leave_out_what_varies() {
        let wanted = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let said = "first\nhit rate 92.3 % of 100\nlast\n";
        assert!(expect(said, &wanted(&["hit rate ... % of 100", "last"]), 1).is_ok());
        assert!(expect(said, &wanted(&["last", "first"]), 1).is_err());
        assert!(expect(said, &wanted(&["hit rate ... of 10"]), 1).is_err());
        assert!(expect(said, &wanted(&["fir"]), 1).is_err());
    }

    #[test]
    fn the_standard_port_is_replaced_and_added_where_it_is_left_out() {
        assert_eq!(with_port("redis-cli PING", 7), "redis-cli -p 7 PING");
        assert_eq!(with_port("redis-cli -p 6379 PING", 7), "redis-cli -p 7 PING");
        assert_eq!(with_port("mtcache serve --dir .", 7), "mtcache serve --port 7 --dir .");
        assert_eq!(with_port("mtcache demo", 7), "mtcache demo");
    }
}
