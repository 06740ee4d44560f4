//! `mtcache check-rdb` and `mtcache check-aof`: look files through, and cut damage off a journal where that is asked for.
//!
//! The exit status is 0 for sound files, and 1 otherwise, as of Redis' own tools. Nothing changes without `--fix` (or a
//! timestamp), and then only after a yes.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use mtcache_persistence::disk::RealDisk;
use mtcache_persistence::{
    AofOptions, CheckedFile, Fix, check, check_aof_file, check_rdb, cut_off_aof_file, first_after,
    manifest::Manifest,
};

/// Look an RDB file through: is it whole, and what does it hold?
#[derive(Debug, Args)]
pub(crate) struct CheckRdb {
    /// The file, usually dump.rdb.
    file: PathBuf,
}

/// Look an append-only file through, and cut off what is damaged at its end.
#[derive(Debug, Args)]
pub(crate) struct CheckAof {
    /// Cut off what is not sound at the end of the (last) file, after asking.
    #[arg(long)]
    fix: bool,
    /// Cut off all that was written after this time, in seconds since 1970; needs `#TS:` lines in the file.
    #[arg(long, value_name = "SECONDS", conflicts_with = "fix")]
    truncate_to_timestamp: Option<u64>,
    /// Do not ask before a file is cut off.
    #[arg(long)]
    yes: bool,
    /// A manifest (…/appendonlydir/appendonly.aof.manifest), or one file.
    file: PathBuf,
}

impl CheckRdb {
    pub(crate) fn run(&self) -> Result<(), String> {
        let checked = check_rdb(&RealDisk, &self.file).map_err(|error| error.to_string())?;
        match checked.outcome {
            Ok(report) => {
                for (name, value) in &report.facts {
                    println!("{name}: {value}");
                }
                let checksum =
                    if report.has_checksum { "its checksum is right" } else { "it has no checksum" };
                println!(
                    "{} is sound: version {}, {} keys, {} of them expire, {checksum}",
                    self.file.display(),
                    report.version,
                    report.keys,
                    report.expiring_keys
                );
                Ok(())
            }
            Err(error) => {
                let last = checked.last_key.map_or_else(String::new, |key| {
                    let key: String = key.escape_ascii().take(80).map(char::from).collect();
                    format!(", the last of them \"{key}\"")
                });
                println!("{} keys were read before{last}", checked.keys);
                Err(error.to_string())
            }
        }
    }
}

impl CheckAof {
    pub(crate) fn run(&self) -> Result<(), String> {
        let is_manifest = self.file.extension().is_some_and(|extension| extension == "manifest");
        match (is_manifest, self.truncate_to_timestamp) {
            (true, None) => self.check_journal(),
            (true, Some(seconds)) => {
                let (dir, options) = self.journal()?;
                let manifest = Manifest::load(&RealDisk, &dir.join(&options.dir_name), &name_of(&self.file)?)
                    .map_err(|error| error.to_string())?;
                let last = manifest.as_ref().and_then(|manifest| manifest.data_files().last().cloned());
                let last = last.ok_or("the manifest names no files")?;
                self.cut_off_after(&dir.join(&options.dir_name).join(last.name), seconds)
            }
            (false, None) => self.check_one(),
            (false, Some(seconds)) => self.cut_off_after(&self.file, seconds),
        }
    }

    /// The directory in which the journal's directory lies, and what its files are called.
    fn journal(&self) -> Result<(PathBuf, AofOptions), String> {
        let file = std::path::absolute(&self.file).map_err(|error| error.to_string())?;
        let dir = file.parent().ok_or("a manifest lies in a directory")?;
        let mut options = AofOptions::default();
        options.dir_name = name_of(dir)?;
        name_of(&file)?.trim_end_matches(".manifest").clone_into(&mut options.file_name);
        Ok((dir.parent().ok_or("a manifest lies in a directory of a directory")?.to_owned(), options))
    }

    fn check_journal(&self) -> Result<(), String> {
        let (dir, options) = self.journal()?;
        let look = |fix| check(&RealDisk, &dir, &options, fix).map_err(|error| error.to_string());
        let report = look(Fix::No)?;
        report.files.iter().for_each(say);
        report.warnings.iter().for_each(|warning| println!("{warning}"));
        if report.is_sound() {
            println!("all files are sound");
            return Ok(());
        }
        if !self.fix {
            return Err(
                "the journal is not sound; --fix cuts the damage off the end of its last file".to_owned()
            );
        }
        if let Some(last) = report.files.last().filter(|last| last.problem.is_some()) {
            self.ask(&last.name, last.len, last.sound_up_to)?;
        }
        let repaired = look(Fix::CutOff)?;
        if let Some(cut) = &repaired.cut_off {
            println!("{} ends at {} now: {} bytes were cut off", cut.file, cut.offset, cut.bytes);
        }
        if repaired.is_sound() { Ok(()) } else { Err("the journal is still not sound".to_owned()) }
    }

    fn check_one(&self) -> Result<(), String> {
        let checked = check_aof_file(&RealDisk, &self.file, &AofOptions::default())
            .map_err(|error| error.to_string())?;
        say(&checked);
        if checked.problem.is_none() {
            return Ok(());
        }
        if !self.fix {
            return Err("the file is not sound; --fix cuts the damage off its end".to_owned());
        }
        self.cut_off(&self.file, checked.len, checked.sound_up_to)
    }

    fn cut_off_after(&self, path: &Path, seconds: u64) -> Result<(), String> {
        let options = AofOptions::default();
        let checked = check_aof_file(&RealDisk, path, &options).map_err(|error| error.to_string())?;
        say(&checked);
        let at = first_after(&RealDisk, path, seconds, &options).map_err(|error| error.to_string())?;
        match at {
            Some(at) => self.cut_off(path, checked.len, at),
            None => {
                println!("nothing in {} is later than {seconds}", path.display());
                Ok(())
            }
        }
    }

    fn cut_off(&self, path: &Path, len: u64, at: u64) -> Result<(), String> {
        self.ask(&path.display().to_string(), len, at)?;
        cut_off_aof_file(&RealDisk, path, at).map_err(|error| error.to_string())?;
        println!("{} ends at {at} now: {} bytes were cut off", path.display(), len.saturating_sub(at));
        Ok(())
    }

    fn ask(&self, name: &str, len: u64, at: u64) -> Result<(), String> {
        let bytes = len.saturating_sub(at);
        println!("{name} will be cut off at {at}: {bytes} of its {len} bytes will be gone");
        if self.yes {
            return Ok(());
        }
        print!("Continue? [y/N]: ");
        let _ = std::io::stdout().flush();
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(|error| error.to_string())?;
        if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { Err("nothing was changed".to_owned()) }
    }
}

fn name_of(path: &Path) -> Result<String, String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| format!("{} has no plain name", path.display()))
}

fn say(file: &CheckedFile) {
    println!("{}: {} bytes, {} keys, {} commands", file.name, file.len, file.keys, file.commands);
    if let Some(problem) = &file.problem {
        println!(
            "  not sound after offset {}, at command number {}: {problem}",
            file.sound_up_to,
            file.commands + 1
        );
    }
}
