//! Starts child processes so that they do not outlive the test process, even one that is killed. Linux sends the parent-death
//! signal when the starting *thread* ends, so all children are started by one thread that lives as long as the process.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// A command for `executable` that the kernel kills when we die, where `setpriv` (util-linux) is installed.
pub(crate) fn dies_with_us(executable: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(executable);
    }
    let mut command = Command::new(setpriv);
    command.args([OsStr::new("--pdeathsig"), OsStr::new("KILL"), OsStr::new("--"), executable.as_os_str()]);
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
