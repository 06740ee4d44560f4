//! A disk in memory that can lose power, fill up and fail, the same way for the same seed.
//!
//! It keeps what is visible apart from what is durable: for each file its content and the changes not yet
//! synced, for the directories the names and the changes of names not yet synced. It promises POSIX's minimum
//! and nothing of what some file systems add: a synced file whose name was not synced is gone after a crash. A
//! failed sync loses the changes that it should have made durable, although they stay visible, as on Linux.
//! For tests, here and in the crates above; deliberately absent: permissions, links, directories removed.

mod faults;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

pub use self::faults::{Crash, Fault};
use self::state::{
    DataChange, ENOSPC, EROFS, Inode, InodeId, NameChange, Node, Power, State, input_output_error,
};
use super::{Disk, DiskLock, ReadFile, SyncFile, WriteFile};

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
}

/// Where syncs of files wait while a test holds them.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<Held>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    is_closed: bool,
    waiting: usize,
}

impl Gate {
    fn pass(&self) {
        let mut held = self.state.lock();
        held.waiting += 1;
        self.opened.wait_while(&mut held, |held| held.is_closed);
        held.waiting -= 1;
    }
}

impl SimDisk {
    /// An empty disk with one durable directory, its parents included.
    pub fn with_dir(dir: impl AsRef<Path>) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.state.lock();
            for ancestor in dir.as_ref().ancestors() {
                state.visible.insert(ancestor.to_owned(), Node::Dir);
                state.durable.insert(ancestor.to_owned(), Node::Dir);
            }
        }
        disk
    }

    /// How many changing operations (syncs among them) there have been.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Lets the machine lose power in the middle of changing operation number `step`, counted from 1: it takes
    /// effect without becoming durable, and fails; every later operation fails.
    pub fn crash_at(&self, step: u64) {
        self.state.lock().crash_at = Some(step);
    }

    /// Whether the step of [`SimDisk::crash_at`] has come.
    pub fn has_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// The disk that the machine finds when it has power again. This one is dead from now on.
    #[must_use]
    pub fn crash(&self, how: Crash) -> Self {
        let mut state = self.state.lock();
        state.crashed = true;
        let survivor = state.after(how);
        Self { state: Arc::new(Mutex::new(survivor)), gate: Arc::default() }
    }

    /// Adds a fault to those in force.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Lets syncs of files wait from now on, as those of a disk that is busy.
    pub fn hold_syncs(&self) {
        self.gate.state.lock().is_closed = true;
    }

    /// Lets the syncs that wait go on, and all that come.
    pub fn release_syncs(&self) {
        self.gate.state.lock().is_closed = false;
        self.gate.opened.notify_all();
    }

    /// How many syncs of files wait.
    pub fn held_syncs(&self) -> usize {
        self.gate.state.lock().waiting
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// What a file holds now, durable or not.
    pub fn content(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.file(path.as_ref()).ok().and_then(|id| state.inodes.get(&id)).map(|inode| inode.current.clone())
    }

    /// Puts a durable file there, as if it had always been.
    pub fn place(&self, path: impl AsRef<Path>, content: &[u8]) {
        let mut state = self.state.lock();
        let id = state.new_inode();
        state
            .inodes
            .insert(id, Inode { durable: content.to_vec(), current: content.to_vec(), pending: Vec::new() });
        state.visible.insert(path.as_ref().to_owned(), Node::File(id));
        state.durable.insert(path.as_ref().to_owned(), Node::File(id));
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        match state.node(path) {
            Ok(Node::Dir) => return Ok(()),
            Ok(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => {}
        }
        let parent = state.parent(path)?;
        let power = state.step()?;
        let link = Some((path.to_owned(), Node::Dir));
        state.change_names(NameChange { unlink: None, link, waits_for: [parent].into() });
        power.outcome(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.look()?;
        if state.node(dir)? != Node::Dir {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let inside = state.visible.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        state.look()?;
        Ok(state.visible.contains_key(path))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let state = self.state.lock();
        state.look()?;
        let id = state.file(path)?;
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let state = self.state.lock();
        state.look()?;
        let id = state.file(path)?;
        if state.faults.contains(&Fault::ReadOnly) {
            return Err(io::Error::from_raw_os_error(EROFS));
        }
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state.lock();
        state.look()?;
        let parent = state.parent(path)?;
        let power = state.step()?;
        let id = if let Ok(id) = state.file(path) {
            state.inode(id).change(DataChange::Truncate(0));
            id
        } else {
            let id = state.new_inode();
            state.inode(id);
            let link = Some((path.to_owned(), Node::File(id)));
            state.change_names(NameChange { unlink: None, link, waits_for: [parent].into() });
            id
        };
        power.outcome(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        let id = state.file(from)?;
        let waits_for = [state.parent(from)?, state.parent(to)?].into();
        let power = state.step()?;
        if state.fault_fires(|fault| match fault {
            Fault::RenameFails { times } => Some(times),
            _ => None,
        }) {
            return Err(input_output_error());
        }
        let panics = state.fault_fires(|fault| match fault {
            Fault::RenamePanics { times } => Some(times),
            _ => None,
        });
        assert!(!panics, "the panic that was asked for");
        let unlink = Some((from.to_owned(), Some(id)));
        let link = Some((to.to_owned(), Node::File(id)));
        state.change_names(NameChange { unlink, link, waits_for });
        power.outcome(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        let id = state.file(path)?;
        let parent = state.parent(path)?;
        let power = state.step()?;
        let unlink = Some((path.to_owned(), Some(id)));
        state.change_names(NameChange { unlink, link: None, waits_for: [parent].into() });
        power.outcome(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look()?;
        state.node(dir)?;
        let power = state.step()?;
        if state.fault_fires(|fault| match fault {
            Fault::DirSyncFails { after, .. } if *after > 0 => {
                *after -= 1;
                None
            }
            Fault::DirSyncFails { times, .. } => Some(times),
            _ => None,
        }) {
            return Err(input_output_error());
        }
        if power == Power::On {
            state.sync_dir(dir);
        }
        power.outcome(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        {
            let state = self.state.lock();
            state.look()?;
            if state.locked.contains(path) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if state.file(path).is_err() {
                drop(state);
                self.create(path)?;
            }
        }
        self.state.lock().locked.insert(path.to_owned());
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: InodeId,
}

impl SimFile {
    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.look()?;
        Ok(state.inode(self.id).current.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.gate.pass();
        let mut state = self.disk.state.lock();
        let power = state.step()?;
        // A failure that nobody lived to be told is told to the next process that syncs the file.
        let may_fail = power == Power::On;
        if may_fail
            && state.fault_fires(|fault| match fault {
                Fault::SyncFails { times } => Some(times),
                _ => None,
            })
        {
            state.inode(self.id).pending.clear();
            return Err(input_output_error());
        }
        if power == Power::On {
            state.inode(self.id).sync();
        }
        power.outcome(())
    }
}

impl ReadFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.look()?;
        let content = &state.inode(self.id).current;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }
}

impl WriteFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        let power = state.step()?;
        if state.fault_fires(|fault| match fault {
            Fault::WriteFails { times } => Some(times),
            _ => None,
        }) {
            return Err(input_output_error());
        }
        let mut room = bytes.len();
        for fault in &mut state.faults {
            match fault {
                Fault::ShortWrites { most } => room = room.min(*most),
                Fault::Full { free: 0 } => return Err(io::Error::from_raw_os_error(ENOSPC)),
                Fault::Full { free } => {
                    room = room.min(*free as usize);
                    *free -= room as u64;
                }
                _ => {}
            }
        }
        let inode = state.inode(self.id);
        let bytes = bytes.iter().copied().take(room).collect();
        inode.change(DataChange::Write { offset: inode.current.len(), bytes });
        power.outcome(room)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn sync_handle(&self) -> io::Result<Box<dyn SyncFile>> {
        Ok(Box::new(Self { disk: self.disk.clone(), id: self.id }))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let power = state.step()?;
        if state.fault_fires(|fault| match fault {
            Fault::TruncateFails { times } => Some(times),
            _ => None,
        }) {
            return Err(input_output_error());
        }
        let inode = state.inode(self.id);
        if (len as usize) < inode.current.len() {
            inode.change(DataChange::Truncate(len as usize));
        }
        power.outcome(())
    }

    fn len(&self) -> io::Result<u64> {
        self.length()
    }
}

impl SyncFile for SimFile {
    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state.lock().locked.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &SimDisk, path: &str, bytes: &[u8]) -> Box<dyn WriteFile> {
        let mut file = disk.create(Path::new(path)).unwrap();
        assert_eq!(file.append(bytes).unwrap(), bytes.len());
        file
    }

    #[test]
    fn a_synced_file_without_its_name_is_gone() {
        let disk = SimDisk::with_dir("/d");
        write(&disk, "/d/a", b"x").sync_all().unwrap();
        assert_eq!(disk.crash(Crash::Strict).content("/d/a"), None);
    }

    #[test]
    fn a_synced_name_without_its_content_is_empty() {
        let disk = SimDisk::with_dir("/d");
        write(&disk, "/d/a", b"x");
        disk.sync_dir(Path::new("/d")).unwrap();
        assert_eq!(disk.crash(Crash::Strict).content("/d/a"), Some(Vec::new()));
        assert!(disk.exists(Path::new("/d")).is_err(), "the crashed disk is dead");
    }

    #[test]
    fn a_rename_waits_for_both_directories() {
        let disk = SimDisk::with_dir("/d/e");
        disk.place("/d/a", b"x");
        disk.rename(Path::new("/d/a"), Path::new("/d/e/a")).unwrap();
        disk.sync_dir(Path::new("/d/e")).unwrap();
        let half = disk.clone();
        half.state.lock().crashed = false;
        assert_eq!(half.crash(Crash::Strict).content("/d/a"), Some(b"x".to_vec()));
        half.state.lock().crashed = false;
        disk.sync_dir(Path::new("/d")).unwrap();
        let after = disk.crash(Crash::Strict);
        assert_eq!((after.content("/d/a"), after.content("/d/e/a")), (None, Some(b"x".to_vec())));
    }

    #[test]
    fn a_failed_sync_loses_the_changes_for_good() {
        let disk = SimDisk::with_dir("/d");
        let mut file = write(&disk, "/d/a", b"lost");
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.inject(Fault::SyncFails { times: 1 });
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(disk.content("/d/a"), Some(b"lost".to_vec()));
        assert_eq!(disk.crash(Crash::Strict).content("/d/a"), Some(Vec::new()));
    }

    #[test]
    fn a_full_disk_cuts_the_write_short_and_then_refuses() {
        let disk = SimDisk::with_dir("/d");
        disk.inject(Fault::Full { free: 3 });
        let mut file = disk.create(Path::new("/d/a")).unwrap();
        assert_eq!(file.append(b"abcdef").unwrap(), 3);
        assert_eq!(file.append(b"def").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.heal();
        assert_eq!(file.append(b"def").unwrap(), 3);
        assert_eq!(disk.content("/d/a"), Some(b"abcdef".to_vec()));
    }

    #[test]
    fn the_end_of_a_process_makes_nothing_durable() {
        let disk = SimDisk::with_dir("/d");
        disk.place("/d/a", b"");
        disk.open_append(Path::new("/d/a")).unwrap().append(b"x").unwrap();
        let next = disk.crash(Crash::ProcessOnly);
        assert_eq!(next.content("/d/a"), Some(b"x".to_vec()));
        assert_eq!(next.crash(Crash::Strict).content("/d/a"), Some(Vec::new()));
    }

    #[test]
    fn the_same_seed_keeps_the_same() {
        let left = |seed| {
            let disk = SimDisk::with_dir("/d");
            for name in ["/d/a", "/d/b", "/d/c"] {
                write(&disk, name, b"some content");
            }
            let after = disk.crash(Crash::AnyNames(seed));
            ["/d/a", "/d/b", "/d/c"].map(|name| after.content(name))
        };
        assert_eq!(left(7), left(7));
        assert!((0..50).any(|seed| left(seed) != left(7)));
    }

    #[test]
    fn power_is_lost_at_the_named_step() {
        let disk = SimDisk::with_dir("/d");
        disk.crash_at(2);
        let mut file = disk.create(Path::new("/d/a")).unwrap();
        file.append(b"x").unwrap_err();
        assert!(disk.has_crashed());
        file.sync_all().unwrap_err();
        assert_eq!(disk.crash(Crash::ProcessOnly).content("/d/a"), Some(b"x".to_vec()));
    }
}
