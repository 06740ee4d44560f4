//! Starts child processes so that they do not outlive the test process, even one that is killed. Linux sends the parent-death
//! signal when the starting *thread* ends, so all children are started by one thread that lives as long as the process.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::{fs, io, thread};

use crate::servers::OpenFiles;

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// A command for `executable` that the kernel kills when we die, where `setpriv` (util-linux) is installed; with a limit of open
/// files, if one is given, and with these words before it.
pub(crate) fn dies_with_us(executable: &Path, files: Option<OpenFiles>, before: Vec<OsString>) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut words: Vec<OsString> = Vec::new();
    if setpriv.exists() {
        words.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into()]);
        // Root could raise every limit.
        if files.is_some() && fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            words.extend(["--bounding-set".into(), "-sys_resource".into()]);
        }
        words.push("--".into());
    }
    if let Some(OpenFiles { soft, hard }) = files {
        let limited = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" \"$@\"");
        words.extend(["/bin/sh".into(), "-c".into(), limited.into()]);
    }
    words.extend(before);
    words.push(executable.into());
    let (program, args) = words.split_first().unwrap_or_else(|| unreachable!("it has at least one word"));
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Starts the command on the thread that never ends.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let requests = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, outcome) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    requests.lock().map_err(|_| gone())?.send((command, answer)).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}
