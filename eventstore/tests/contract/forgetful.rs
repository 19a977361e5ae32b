//! A file system in memory that forgets at a power cut what was not synced, as a disk with a write
//! cache and a journal of names does.
//!
//! Of a file's bytes those survive that were written before its last sync; later writes survive by
//! chance, whole or in part. Names (creating, renaming, removing) survive up to the last sync of
//! anything: that is what journaling file systems do. With `strict`, a folder's names survive only
//! up to a sync of that folder.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fuse::{
    self, Attr, DIRECTORY_NOT_EMPTY, EXISTS, Files, IS_A_DIRECTORY, Kind, NOT_A_DIRECTORY,
    NOT_FOUND, Session,
};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// A change that may be lost.
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Write { at, bytes } => {
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

type Names = BTreeMap<OsString, u64>;

#[derive(Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Default)]
struct Folder {
    now: Names,
    synced: Names,
}

enum Node {
    File(File),
    Folder(Folder),
}

/// Numbers for chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 33) as usize % limit
    }
}

struct Disk {
    nodes: HashMap<u64, Node>,
    next: u64,
    strict: bool,
}

impl Disk {
    fn add(&mut self, node: Node) -> u64 {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }

    /// What a folder holds, all of it synced.
    fn load(&mut self, from: &Path) -> u64 {
        let mut names = Names::new();
        for entry in std::fs::read_dir(from).expect("a folder") {
            let path = entry.expect("an entry").path();
            let node = if path.is_dir() {
                self.load(&path)
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                self.add(Node::File(File { synced: bytes.clone(), now: bytes, pending: vec![] }))
            };
            names.insert(path.file_name().expect("a name").to_owned(), node);
        }
        self.add(Node::Folder(Folder { synced: names.clone(), now: names }))
    }

    fn folder(&mut self, ino: u64) -> Result<&mut Folder, i32> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(_)) => Err(NOT_A_DIRECTORY),
            None => Err(NOT_FOUND),
        }
    }

    fn file(&mut self, ino: u64) -> Result<&mut File, i32> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(IS_A_DIRECTORY),
            None => Err(NOT_FOUND),
        }
    }

    fn attr(&self, ino: u64) -> Result<Attr, i32> {
        Ok(match self.nodes.get(&ino).ok_or(NOT_FOUND)? {
            Node::File(file) => Attr { ino, size: file.now.len() as u64, kind: Kind::File },
            Node::Folder(_) => Attr { ino, size: 0, kind: Kind::Folder },
        })
    }

    fn make(&mut self, parent: u64, name: &OsStr, node: Node) -> Result<Attr, i32> {
        if self.folder(parent)?.now.contains_key(name) {
            return Err(EXISTS);
        }
        let ino = self.add(node);
        self.folder(parent)?.now.insert(name.to_owned(), ino);
        self.attr(ino)
    }

    fn change(&mut self, ino: u64, change: Change) -> Result<(), i32> {
        let file = self.file(ino)?;
        change.apply(&mut file.now);
        file.pending.push(change);
        Ok(())
    }

    fn sync_file(&mut self, ino: u64) -> Result<(), i32> {
        let file = self.file(ino)?;
        for change in std::mem::take(&mut file.pending) {
            change.apply(&mut file.synced);
        }
        if !self.strict {
            self.sync_names();
        }
        Ok(())
    }

    fn sync_folder(&mut self, ino: u64) -> Result<(), i32> {
        let folder = self.folder(ino)?;
        folder.synced = folder.now.clone();
        if !self.strict {
            self.sync_names();
        }
        Ok(())
    }

    fn sync_names(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::Folder(folder) = node {
                folder.synced.clone_from(&folder.now);
            }
        }
    }

    /// Writes down what a power cut leaves.
    fn write(&self, ino: u64, to: &Path, chance: &mut Chance, kept: usize) {
        match &self.nodes[&ino] {
            Node::Folder(folder) => {
                std::fs::create_dir_all(to).expect("a folder");
                for (name, ino) in &folder.synced {
                    self.write(*ino, &to.join(name), chance, kept);
                }
            }
            Node::File(file) => {
                std::fs::write(to, file.after_a_cut(chance, kept)).expect("written");
            }
        }
    }
}

impl File {
    /// What was synced, and of what was not, `kept` in ten changes, some of them torn.
    fn after_a_cut(&self, chance: &mut Chance, kept: usize) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for change in &self.pending {
            if chance.below(10) >= kept {
                continue;
            }
            match change {
                Change::Write { at, bytes: new } if chance.below(4) == 0 => {
                    let sectors = chance.below(new.len() / SECTOR + 1);
                    let torn = new[..sectors * SECTOR].to_vec();
                    Change::Write { at: *at, bytes: torn }.apply(&mut bytes);
                }
                whole => whole.apply(&mut bytes),
            }
        }
        bytes
    }
}

#[derive(Clone)]
struct Forgetful(Arc<Mutex<Disk>>);

impl Forgetful {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A forgetful disk at work.
pub(crate) struct Mounted {
    disk: Forgetful,
    session: Session,
}

impl Mounted {
    /// Mounts a disk that holds what a folder holds; `None` where that is not allowed.
    pub(crate) fn on(at: &Path, from: &Path, strict: bool) -> Option<Self> {
        let mut disk = Disk { nodes: HashMap::new(), next: fuse::ROOT, strict };
        let root = disk.load(from);
        let root = disk.nodes.remove(&root).expect("just made");
        disk.nodes.insert(fuse::ROOT, root);
        let disk = Forgetful(Arc::new(Mutex::new(disk)));
        match Session::mount(at, disk.clone()) {
            Ok(session) => Some(Self { disk, session }),
            Err(error) => {
                println!("skipped: no file system of one's own here: {error}");
                None
            }
        }
    }

    /// Cuts the power: writes into a new folder what is left. Of ten changes that were not synced
    /// `kept` survive. Whoever used the disk must have ended.
    pub(crate) fn cut(self, to: &Path, seed: u64, kept: usize) {
        self.disk.disk().write(fuse::ROOT, to, &mut Chance(seed), kept);
        self.session.unmount();
    }
}

impl Files for Forgetful {
    fn find(&self, parent: u64, name: &OsStr) -> Result<Attr, i32> {
        let mut disk = self.disk();
        let ino = disk.folder(parent)?.now.get(name).copied().ok_or(NOT_FOUND)?;
        disk.attr(ino)
    }

    fn attr(&self, ino: u64) -> Result<Attr, i32> {
        self.disk().attr(ino)
    }

    fn set_length(&self, ino: u64, length: u64) -> Result<(), i32> {
        self.disk().change(ino, Change::Length(length as usize))
    }

    fn make(&self, parent: u64, name: &OsStr, kind: Kind) -> Result<Attr, i32> {
        let node = match kind {
            Kind::File => Node::File(File::default()),
            Kind::Folder => Node::Folder(Folder::default()),
        };
        self.disk().make(parent, name, node)
    }

    fn remove(&self, parent: u64, name: &OsStr) -> Result<(), i32> {
        let mut disk = self.disk();
        let ino = disk.folder(parent)?.now.get(name).copied().ok_or(NOT_FOUND)?;
        if disk.folder(ino).is_ok_and(|folder| !folder.now.is_empty()) {
            return Err(DIRECTORY_NOT_EMPTY);
        }
        disk.folder(parent)?.now.remove(name);
        Ok(())
    }

    fn rename(&self, from: u64, name: &OsStr, to: u64, new: &OsStr) -> Result<(), i32> {
        let mut disk = self.disk();
        let ino = disk.folder(from)?.now.remove(name).ok_or(NOT_FOUND)?;
        disk.folder(to)?.now.insert(new.to_owned(), ino);
        Ok(())
    }

    fn read(&self, ino: u64, from: u64, length: usize) -> Result<Vec<u8>, i32> {
        let mut disk = self.disk();
        let file = disk.file(ino)?;
        let from = (from as usize).min(file.now.len());
        let end = (from + length).min(file.now.len());
        Ok(file.now[from..end].to_vec())
    }

    fn write(&self, ino: u64, at: u64, bytes: &[u8], synced: bool) -> Result<(), i32> {
        let mut disk = self.disk();
        disk.change(ino, Change::Write { at: at as usize, bytes: bytes.to_vec() })?;
        if synced { disk.sync_file(ino) } else { Ok(()) }
    }

    fn sync_file(&self, ino: u64) -> Result<(), i32> {
        self.disk().sync_file(ino)
    }

    fn sync_folder(&self, ino: u64) -> Result<(), i32> {
        self.disk().sync_folder(ino)
    }

    fn list(&self, ino: u64) -> Result<Vec<(OsString, Attr)>, i32> {
        let mut disk = self.disk();
        let names = disk.folder(ino)?.now.clone();
        names.into_iter().map(|(name, ino)| Ok((name, disk.attr(ino)?))).collect()
    }
}
