//! What a simulated disk holds: the visible apart from the durable, and what a crash leaves of the difference.
//!
//! The invariant: what is durable changes by a sync only. Deliberately absent: the operations of the trait, which
//! count steps and ask for faults before they change anything here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::faults::{Crash, Fault};

pub(super) type InodeId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(InodeId),
}

/// One change of names that is not durable yet, with the directories whose sync it still waits for.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) unlink: Option<(PathBuf, Option<InodeId>)>,
    pub(super) link: Option<(PathBuf, Node)>,
    pub(super) waits_for: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug)]
pub(super) enum DataChange {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Vec<u8>,
    pub(super) current: Vec<u8>,
    pub(super) pending: Vec<DataChange>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) visible: BTreeMap<PathBuf, Node>,
    pub(super) durable: BTreeMap<PathBuf, Node>,
    pub(super) pending: Vec<NameChange>,
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) last_inode: InodeId,
    pub(super) locked: BTreeSet<PathBuf>,
    pub(super) faults: Vec<Fault>,
    pub(super) steps: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
}

/// Whether the machine is still there after the step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    On,
    Lost,
}

impl Power {
    pub(super) fn outcome<T>(self, value: T) -> io::Result<T> {
        match self {
            Self::On => Ok(value),
            Self::Lost => Err(power_loss()),
        }
    }
}

pub(super) fn power_loss() -> io::Error {
    io::Error::other("the simulated machine has lost power")
}

/// Linux' numbers, so that messages read as they do there.
pub(super) const EIO: i32 = 5;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

pub(super) fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

impl State {
    pub(super) fn look(&self) -> io::Result<()> {
        if self.crashed { Err(power_loss()) } else { Ok(()) }
    }

    /// Counts a changing operation.
    pub(super) fn step(&mut self) -> io::Result<Power> {
        self.look()?;
        self.steps += 1;
        if self.crash_at == Some(self.steps) {
            self.crashed = true;
            return Ok(Power::Lost);
        }
        if self.faults.contains(&Fault::ReadOnly) {
            return Err(io::Error::from_raw_os_error(EROFS));
        }
        Ok(Power::On)
    }

    /// Uses up one time of the first fault that `times` picks.
    pub(super) fn fault_fires(&mut self, times: impl Fn(&mut Fault) -> Option<&mut u32>) -> bool {
        for fault in &mut self.faults {
            if let Some(times) = times(fault)
                && *times > 0
            {
                *times -= 1;
                return true;
            }
        }
        false
    }

    pub(super) fn node(&self, path: &Path) -> io::Result<Node> {
        self.visible.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<InodeId> {
        match self.node(path)? {
            Node::File(id) => Ok(id),
            Node::Dir => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn inode(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.entry(id).or_default()
    }

    pub(super) fn new_inode(&mut self) -> InodeId {
        self.last_inode += 1;
        self.last_inode
    }

    pub(super) fn parent(&self, path: &Path) -> io::Result<PathBuf> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        match self.node(parent)? {
            Node::Dir => Ok(parent.to_owned()),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.visible);
        self.pending.push(change);
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let mut waiting = Vec::new();
        for mut change in std::mem::take(&mut self.pending) {
            change.waits_for.remove(dir);
            if change.waits_for.is_empty() {
                change.apply(&mut self.durable);
            } else {
                waiting.push(change);
            }
        }
        self.pending = waiting;
    }

    /// The state after power loss.
    pub(super) fn after(&self, how: Crash) -> Self {
        let mut kept = self.what_is_durable();
        let mut random = match how {
            Crash::Strict => return kept,
            Crash::ProcessOnly => return self.for_another_process(),
            Crash::Torn(seed) | Crash::AnyNames(seed) | Crash::Holes(seed) => SplitMix(seed),
        };
        let first_lost = random.below(self.pending.len() + 1);
        for (at, change) in self.pending.iter().enumerate() {
            let survives = if matches!(how, Crash::Torn(_)) { at < first_lost } else { random.below(2) == 1 };
            if survives {
                change.apply(&mut kept.durable);
            }
        }
        kept.visible.clone_from(&kept.durable);
        for (id, inode) in &self.inodes {
            let content = if matches!(how, Crash::Holes(_)) {
                inode.after_losing_any(&mut random)
            } else {
                inode.after_losing_a_tail(&mut random)
            };
            kept.inodes
                .insert(*id, Inode { durable: content.clone(), current: content, pending: Vec::new() });
        }
        kept
    }

    /// The same disk for another process: what is not durable yet is still not.
    pub(super) fn for_another_process(&self) -> Self {
        Self {
            visible: self.visible.clone(),
            durable: self.durable.clone(),
            pending: self.pending.clone(),
            inodes: self.inodes.clone(),
            last_inode: self.last_inode,
            ..Self::default()
        }
    }

    pub(super) fn what_is_durable(&self) -> Self {
        let inodes = self.inodes.iter().map(|(id, inode)| {
            let content = inode.durable.clone();
            (*id, Inode { durable: content.clone(), current: content, pending: Vec::new() })
        });
        Self {
            visible: self.durable.clone(),
            durable: self.durable.clone(),
            inodes: inodes.collect(),
            last_inode: self.last_inode,
            ..Self::default()
        }
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some((path, inode)) = &self.unlink {
            let matches = inode.is_none_or(|id| names.get(path) == Some(&Node::File(id)));
            if matches {
                names.remove(path);
            }
        }
        if let Some((path, node)) = &self.link {
            names.insert(path.clone(), *node);
        }
    }
}

impl DataChange {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                if let Some(place) = content.get_mut(*offset..end) {
                    place.copy_from_slice(bytes);
                }
            }
            Self::Truncate(len) => content.truncate(*len),
        }
    }
}

impl Inode {
    pub(super) fn change(&mut self, change: DataChange) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    /// Some first changes survive, and of the next one, if it is a write, some first bytes.
    fn after_losing_a_tail(&self, random: &mut SplitMix) -> Vec<u8> {
        let mut content = self.durable.clone();
        let whole = random.below(self.pending.len() + 1);
        for change in self.pending.iter().take(whole) {
            change.apply(&mut content);
        }
        if let Some(DataChange::Write { offset, bytes }) = self.pending.get(whole) {
            let some = bytes.iter().copied().take(random.below(bytes.len() + 1)).collect();
            DataChange::Write { offset: *offset, bytes: some }.apply(&mut content);
        }
        content
    }

    fn after_losing_any(&self, random: &mut SplitMix) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.pending {
            if random.below(2) == 1 {
                change.apply(&mut content);
            }
        }
        content
    }
}

/// Sebastiano Vigna's generator: 64 bits of state, good enough to choose what a crash keeps.
struct SplitMix(u64);

impl SplitMix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % (bound as u64).max(1)) as usize
    }
}
