//! `cargo run -p xtask -- TASK`: the checks of the project's own rules, and the documentation that is generated from code.

use std::process::ExitCode;

const USAGE: &str = "\
cargo run -p xtask -- TASK

  layers               who depends on whom, and what each crate must never know
  sources              the rules for source files: an opening comment, a length, no clock or socket where none belongs
  references           files, tests and limits that documents name, looked up in the code
  parameters           whether code reads each server option that is listed as in effect
  commands [--check]   write docs/commands.md from the command table, or check that it is current
  options [--check]    write docs/options.md from the table of server options, or check that it is current
  configuration [--check]
                       write docs/configuration.md from the cache's settings and the trading regions, or check that it is current
  metrics [--check]    write docs/metrics.md from the cache's table of metrics, or check that it is current
  examples FILE        run the commands of FILE's `console` blocks and compare what they print
  check                all checks";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["layers"] => xtask::layers::check(),
        ["sources"] => xtask::sources::check(),
        ["references"] => xtask::references::check(),
        ["parameters"] => xtask::parameters::check(),
        ["commands"] => xtask::generated::write(xtask::generated::COMMANDS_DOCUMENT),
        ["commands", "--check"] => xtask::generated::check(xtask::generated::COMMANDS_DOCUMENT),
        ["options"] => xtask::generated::write(xtask::generated::OPTIONS_DOCUMENT),
        ["options", "--check"] => xtask::generated::check(xtask::generated::OPTIONS_DOCUMENT),
        ["configuration"] => xtask::generated::write(xtask::cache_docs::CONFIGURATION_DOCUMENT),
        ["configuration", "--check"] => xtask::generated::check(xtask::cache_docs::CONFIGURATION_DOCUMENT),
        ["metrics"] => xtask::generated::write(xtask::cache_docs::METRICS_DOCUMENT),
        ["metrics", "--check"] => xtask::generated::check(xtask::cache_docs::METRICS_DOCUMENT),
        ["examples", file] => xtask::examples::run(file),
        ["check"] => xtask::check_all(),
        _ => Err(vec![USAGE.to_owned()]),
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
    }
}
