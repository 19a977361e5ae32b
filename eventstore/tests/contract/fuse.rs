//! A file system in user space: the part of the kernel's FUSE protocol (`linux/fuse.h`, 7.31) that
//! a database and a nats-server need. Numbers are those of this machine, in its byte order.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// The root's number.
pub(crate) const ROOT: u64 = 1;
pub(crate) const NOT_FOUND: i32 = 2;
pub(crate) const EXISTS: i32 = 17;
pub(crate) const NOT_A_DIRECTORY: i32 = 20;
pub(crate) const IS_A_DIRECTORY: i32 = 21;
pub(crate) const DIRECTORY_NOT_EMPTY: i32 = 39;
const NOT_IMPLEMENTED: i32 = 38;

const LARGEST_WRITE: u32 = 128 << 10;
/// `O_DSYNC`, which `O_SYNC` includes.
const SYNCED: u32 = 0o10_000;
/// Of `setattr`: the length is set.
const LENGTH_IS_SET: u32 = 1 << 3;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
}

/// What the kernel wants to know of something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) kind: Kind,
}

/// Files and folders by number. Errors are the kernel's numbers.
pub(crate) trait Files: Send + 'static {
    fn find(&self, parent: u64, name: &OsStr) -> Result<Attr, i32>;
    fn attr(&self, ino: u64) -> Result<Attr, i32>;
    fn set_length(&self, ino: u64, length: u64) -> Result<(), i32>;
    fn make(&self, parent: u64, name: &OsStr, kind: Kind) -> Result<Attr, i32>;
    fn remove(&self, parent: u64, name: &OsStr) -> Result<(), i32>;
    fn rename(&self, from: u64, name: &OsStr, to: u64, new: &OsStr) -> Result<(), i32>;
    fn read(&self, ino: u64, from: u64, length: usize) -> Result<Vec<u8>, i32>;
    fn write(&self, ino: u64, at: u64, bytes: &[u8], synced: bool) -> Result<(), i32>;
    fn sync_file(&self, ino: u64) -> Result<(), i32>;
    fn sync_folder(&self, ino: u64) -> Result<(), i32>;
    fn list(&self, ino: u64) -> Result<Vec<(OsString, Attr)>, i32>;
}

/// A mounted file system; unmounted at the end.
pub(crate) struct Session {
    at: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Mounts at a folder, and answers the kernel from a thread of its own.
    pub(crate) fn mount(at: &Path, files: impl Files) -> std::io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        // The program that mounts has the device as its input.
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0"])
            .arg("forgetful")
            .arg(at)
            .stdin(Stdio::from(device.try_clone()?))
            .stderr(Stdio::null())
            .status()?;
        if !mounted.success() {
            return Err(std::io::Error::other("mount refuses"));
        }
        let thread = std::thread::spawn(move || serve(device, &files));
        Ok(Self { at: at.to_owned(), thread: Some(thread) })
    }

    pub(crate) fn unmount(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Whoever still has it open is refused from now on.
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "it is mounted");
        thread.join().expect("no panic");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// Answers until it is unmounted.
fn serve(mut device: File, files: &impl Files) {
    let mut buffer = vec![0; LARGEST_WRITE as usize + (64 << 10)];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            // The asking one was interrupted.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let question = Question(&buffer[..length]);
        let Some(answer) = question.answer(files) else { continue };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut bytes = Vec::with_capacity(16 + body.len());
        bytes.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&i32::to_ne_bytes(error));
        bytes.extend_from_slice(&question.u64(8).to_ne_bytes());
        bytes.extend_from_slice(&body);
        // Who asked may have gone.
        let _answered = device.write(&bytes);
    }
}

/// What the kernel asks: a header of 40 bytes, and what belongs to the call.
struct Question<'a>(&'a [u8]);

impl Question<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The names from a place on, each ended by a zero.
    fn names(&self, at: usize) -> Vec<&OsStr> {
        self.0[at..].split(|byte| *byte == 0).map(OsStr::from_bytes).collect()
    }

    /// `None` for what wants no answer.
    fn answer(&self, files: &impl Files) -> Option<Result<Vec<u8>, i32>> {
        let (call, ino) = (self.u32(4), self.u64(16));
        let nothing = |done: Result<(), i32>| done.map(|()| Vec::new());
        Some(match call {
            // forget, interrupt, batch_forget
            2 | 36 | 42 => return None,
            1 => files.find(ino, self.names(40)[0]).map(entry),
            3 => files.attr(ino).map(attributes),
            4 => self.set_attributes(files, ino),
            9 => files.make(ino, self.names(48)[0], Kind::Folder).map(entry),
            // unlink, rmdir
            10 | 11 => nothing(files.remove(ino, self.names(40)[0])),
            12 => nothing(self.rename(files, ino, 48)),
            45 => nothing(self.rename(files, ino, 56)),
            // open, opendir
            14 | 27 => Ok(vec![0; 16]),
            15 => files.read(ino, self.u64(48), self.u32(56) as usize),
            16 => self.write(files, ino),
            17 => Ok(statistics()),
            // release, flush, releasedir, destroy
            18 | 25 | 29 | 38 => Ok(Vec::new()),
            20 => nothing(files.sync_file(ino)),
            30 => nothing(files.sync_folder(ino)),
            26 => Ok(self.begin()),
            28 => self.list(files, ino),
            35 => self.create(files, ino),
            _ => Err(NOT_IMPLEMENTED),
        })
    }

    fn begin(&self) -> Vec<u8> {
        let mut answer = Vec::with_capacity(64);
        for number in [7, 31, self.u32(48), 0, 0, LARGEST_WRITE, 1] {
            answer.extend_from_slice(&u32::to_ne_bytes(number));
        }
        answer.resize(64, 0);
        answer
    }

    fn set_attributes(&self, files: &impl Files, ino: u64) -> Result<Vec<u8>, i32> {
        if self.u32(40) & LENGTH_IS_SET != 0 {
            files.set_length(ino, self.u64(56))?;
        }
        files.attr(ino).map(attributes)
    }

    fn rename(&self, files: &impl Files, from: u64, names: usize) -> Result<(), i32> {
        let found = self.names(names);
        files.rename(from, found[0], self.u64(40), found[1])
    }

    fn write(&self, files: &impl Files, ino: u64) -> Result<Vec<u8>, i32> {
        let size = self.u32(56);
        let bytes = &self.0[80..80 + size as usize];
        files.write(ino, self.u64(48), bytes, self.u32(72) & SYNCED != 0)?;
        Ok(u64::from(size).to_ne_bytes().to_vec())
    }

    fn create(&self, files: &impl Files, parent: u64) -> Result<Vec<u8>, i32> {
        let mut answer = entry(files.make(parent, self.names(56)[0], Kind::File)?);
        answer.extend_from_slice(&[0; 16]);
        Ok(answer)
    }

    fn list(&self, files: &impl Files, ino: u64) -> Result<Vec<u8>, i32> {
        let (from, room) = (self.u64(48), self.u32(56) as usize);
        let mut answer = Vec::new();
        for (number, (name, attr)) in (1_u64..).zip(files.list(ino)?).skip(from as usize) {
            let name = name.as_bytes();
            if answer.len() + 24 + name.len() + 8 > room {
                break;
            }
            answer.extend_from_slice(&attr.ino.to_ne_bytes());
            answer.extend_from_slice(&number.to_ne_bytes());
            answer.extend_from_slice(&(name.len() as u32).to_ne_bytes());
            answer.extend_from_slice(&(mode(attr.kind) >> 12).to_ne_bytes());
            answer.extend_from_slice(name);
            answer.resize(answer.len().next_multiple_of(8), 0);
        }
        Ok(answer)
    }
}

fn mode(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0o100_600,
        Kind::Folder => 0o040_700,
    }
}

/// The attributes as they stand in every answer.
fn attr(attr: Attr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(88);
    for number in [attr.ino, attr.size, attr.size.div_ceil(512), 0, 0, 0] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    for number in [0, 0, 0, mode(attr.kind), 1, 0, 0, 0, 4096, 0] {
        bytes.extend_from_slice(&u32::to_ne_bytes(number));
    }
    bytes
}

/// Good for a second.
fn attributes(of: Attr) -> Vec<u8> {
    let mut answer = 1_u64.to_ne_bytes().to_vec();
    answer.extend_from_slice(&[0; 8]);
    answer.extend_from_slice(&attr(of));
    answer
}

fn entry(of: Attr) -> Vec<u8> {
    let mut answer = Vec::with_capacity(128);
    for number in [of.ino, 0, 1, 1, 0] {
        answer.extend_from_slice(&u64::to_ne_bytes(number));
    }
    answer.extend_from_slice(&attr(of));
    answer
}

/// A disk with much room.
fn statistics() -> Vec<u8> {
    let mut answer = Vec::with_capacity(80);
    for number in [1 << 24, 1 << 24, 1 << 24, 1 << 20, 1 << 20] {
        answer.extend_from_slice(&u64::to_ne_bytes(number));
    }
    for number in [4096, 255, 4096] {
        answer.extend_from_slice(&u32::to_ne_bytes(number));
    }
    answer.resize(80, 0);
    answer
}
