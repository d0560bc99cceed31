//! Unix: files by descriptor, one path component at a time, never through a symbolic link.

use std::fs::{File, Metadata, Permissions, TryLockError};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::time::ClockId;
use taipei_engine::disk::{Stat, StorageErrorKind};
use taipei_engine::input::NetError;
use taipei_engine::metainfo::StoragePath;

use super::{Access, LockOutcome};

/// Whether a port whose last connections are not forgotten yet may be listened on at once. Here that is all it means.
pub(crate) const REUSE_ADDRESS: bool = true;

/// Whether names on disk follow the rules of Windows.
pub(crate) const WINDOWS_PATHS: bool = false;

/// Whether a socket can be bound to an interface by its name.
pub(crate) const BIND_BY_NAME: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Lets a socket use one interface alone.
pub(crate) fn bind_to_interface(socket: &impl std::os::fd::AsFd, name: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        socket2::SockRef::from(socket).bind_device(Some(name.as_bytes()))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (socket, name);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Whether a socket can be bound to a multicast group, and then hears nothing else.
pub(crate) const BIND_TO_GROUP: bool = true;

/// Lets a socket hear groups on those interfaces alone where it has joined them, not where another socket has.
pub(crate) fn hear_joined_only(socket: &socket2::Socket, ipv6: bool) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        if ipv6 { socket.set_multicast_all_v6(false) } else { socket.set_multicast_all_v4(false) }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, ipv6);
        Ok(())
    }
}

/// Opens a plain file below `root`; one that is to be written to is made when missing.
pub(crate) fn open(root: &str, path: &StoragePath, access: Access) -> io::Result<File> {
    let (parents, name) = split(path);
    let (directory, mode) = match access {
        Access::Read => (open_directory(root, parents)?, OFlags::RDONLY),
        Access::Write => (make_directory(root, parents)?, OFlags::RDWR),
    };
    // Opening a pipe or a device must not wait or become our terminal.
    let flags = mode | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::openat(&directory, name, flags, FILE_MODE) {
        Err(Errno::NOENT) if access == Access::Write => {
            match rustix::fs::openat(&directory, name, flags | OFlags::CREATE | OFlags::EXCL, FILE_MODE) {
                // Another thread of ours was first.
                Err(Errno::EXIST) => rustix::fs::openat(&directory, name, flags, FILE_MODE)?,
                made => made?,
            }
        }
        opened => opened?,
    };
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
        return Err(Errno::ISDIR.into());
    }
    Ok(file.into())
}

/// Makes a file that nobody but its owner reads or writes, or empties one that is there and makes it so.
///
/// # Errors
/// What the system said.
pub fn create_private(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).mode(PRIVATE_MODE).open(path)?;
    // A device or a pipe stays as it is.
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(PRIVATE_MODE))?;
        file.set_len(0)?;
    }
    Ok(file)
}

/// Reads once.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

/// Reads once what the system holds in memory; fails where it would wait for a disk.
pub(crate) fn read_at_once(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut buffers = [io::IoSliceMut::new(buffer)];
        Ok(rustix::io::preadv2(file, &mut buffers, offset, rustix::io::ReadWriteFlags::NOWAIT)?)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, buffer, offset);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Writes once; maybe less than all.
pub(crate) fn write_vectored_at(file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwritev(file, &parts[..parts.len().min(SLICES_MAX)], offset)?)
}

/// Makes room on disk without changing the length.
pub(crate) fn allocate(file: &File, length: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::FallocateFlags;
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, length);
        Ok(())
    }
}

/// Whether a file that is open has no name any more.
pub(crate) fn is_unlinked(file: &Metadata) -> bool {
    file.nlink() == 0
}

/// The figures of what is at a path, without following a link.
pub(crate) fn stat(root: &str, path: &StoragePath) -> io::Result<Stat> {
    let (parents, name) = split(path);
    let stat = rustix::fs::statat(open_directory(root, parents)?, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Stat {
        length: u64::try_from(stat.st_size).unwrap_or(0),
        modified_ns: modified_ns(&stat),
        is_file: FileType::from_raw_mode(stat.st_mode).is_file(),
        // Always in units of 512 bytes, whatever the file system's blocks are.
        allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
    })
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the widths differ between systems")]
fn modified_ns(stat: &rustix::fs::Stat) -> i64 {
    (stat.st_mtime as i64).saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64)
}

/// Makes all durable that was written to these files, by one call; false where none is known to do that.
pub(crate) fn sync_together<'a>(
    root: &str,
    files: impl Iterator<Item = &'a StoragePath>,
) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let top = open_directory(root, "")?;
        let file_system = rustix::fs::fstat(&top)?.st_dev;
        let directories: std::collections::BTreeSet<&str> = files.map(|file| split(file).0).collect();
        for directory in directories {
            match open_directory(root, directory) {
                // Another one may be mounted there.
                Ok(directory) if rustix::fs::fstat(&directory)?.st_dev != file_system => return Ok(false),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        rustix::fs::syncfs(&top)?;
        Ok(true)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (root, files);
        Ok(false)
    }
}

/// Makes names in the directory of `path` durable.
pub(crate) fn sync_dir(root: &str, path: &StoragePath) -> io::Result<()> {
    let (parents, _) = split(path);
    Ok(rustix::fs::fsync(open_directory(root, parents)?)?)
}

/// Makes a directory and those above it.
pub(crate) fn create_dir(root: &str, path: &StoragePath) -> io::Result<()> {
    make_directory(root, path.as_str()).map(drop)
}

/// Renames over what is there.
pub(crate) fn rename(root: &str, from: &StoragePath, to: &StoragePath) -> io::Result<()> {
    let (from_parents, from_name) = split(from);
    let (to_parents, to_name) = split(to);
    let from_directory = open_directory(root, from_parents)?;
    let to_directory = open_directory(root, to_parents)?;
    Ok(rustix::fs::renameat(from_directory, from_name, to_directory, to_name)?)
}

/// Removes a file.
pub(crate) fn remove(root: &str, path: &StoragePath) -> io::Result<()> {
    let (parents, name) = split(path);
    Ok(rustix::fs::unlinkat(open_directory(root, parents)?, name, AtFlags::empty())?)
}

/// Bytes free for us below a directory that may not be there yet.
pub(crate) fn free_bytes(root: &str) -> io::Result<u64> {
    let mut directory = Path::new(root);
    loop {
        let at = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        match rustix::fs::statvfs(at) {
            Ok(figures) => return Ok(figures.f_bavail.saturating_mul(figures.f_frsize)),
            Err(Errno::NOENT) if directory.parent().is_some() => {
                directory = directory.parent().unwrap_or(Path::new("."));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes an exclusive lock on a file and writes our process number into it.
pub(crate) fn lock(root: &str, path: &StoragePath) -> io::Result<LockOutcome> {
    for _ in 0..LOCK_TRIES {
        let mut file = open(root, path, Access::Write)?;
        match file.try_lock() {
            Ok(()) => {
                let holder = std::process::id().to_string();
                // Never cut to nothing: ext4 takes that for the old way to replace a file, and writes it out when it is closed.
                if file.metadata()?.len() > holder.len() as u64 {
                    file.set_len(holder.len() as u64)?;
                }
                file.write_all(holder.as_bytes())?;
                return Ok(LockOutcome::Taken(file));
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.take(16).read_to_string(&mut text)?;
                if let Ok(holder) = text.trim().parse() {
                    return Ok(LockOutcome::HeldBy(holder));
                }
                // It has not written its number yet.
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(LockOutcome::HeldBy(0))
}

/// Files that this process may have open.
pub(crate) fn open_files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets this process have as many files open as it may allow itself. Every torrent has one, which is its lock, and systems
/// begin with a thousand for programs of long ago.
pub fn raise_open_files_max() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES_WANTED).min(OPEN_FILES_WANTED);
    if limit.current.is_some_and(|current| current < wanted) {
        // What it is now does as well, for fewer torrents.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

/// Nanoseconds of a clock that goes on while the machine sleeps.
pub(crate) fn boot_clock_ns() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The system's own name for this boot, where it has one: hexadecimal digits and dashes.
pub(crate) fn boot_id_text() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// The system's table of IPv4 routes as Linux writes it, where it does.
pub(crate) fn ipv4_routes() -> Option<String> {
    let mut text = String::new();
    File::open("/proc/net/route").ok()?.take(ROUTES_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether the system ran out of descriptors or buffers.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Whether an address, its family or its interface is missing on this machine.
pub(crate) fn is_not_ours(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::NODEV)
    )
}

/// What an error of a socket is called in the engine.
pub(crate) fn net_error(error: &io::Error) -> NetError {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => NetError::Exhausted,
        // A dial is refused like this by a firewall, or where there is no such family or interface.
        Some(Errno::ACCESS | Errno::PERM | Errno::AFNOSUPPORT | Errno::NODEV) => NetError::Unreachable,
        _ => taipei_engine::driver::net_error(error),
    }
}

/// What an error of a file is called in the engine.
pub(crate) fn storage_error(error: &io::Error) -> StorageErrorKind {
    let Some(errno) = Errno::from_io_error(error) else {
        return if error.kind() == io::ErrorKind::WriteZero {
            StorageErrorKind::Full
        } else {
            StorageErrorKind::Io
        };
    };
    match errno {
        Errno::NOENT => StorageErrorKind::NotFound,
        Errno::NOSPC | Errno::DQUOT => StorageErrorKind::Full,
        Errno::ACCESS | Errno::PERM => StorageErrorKind::Denied,
        Errno::ROFS => StorageErrorKind::ReadOnly,
        Errno::MFILE | Errno::NFILE => StorageErrorKind::Exhausted,
        Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::MLINK | Errno::EXIST | Errno::NXIO => {
            StorageErrorKind::WrongKind
        }
        Errno::IO => StorageErrorKind::Io,
        other => StorageErrorKind::Other(other.raw_os_error()),
    }
}

/// The directories of a path, joined, and its last component.
fn split(path: &StoragePath) -> (&str, &str) {
    path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()))
}

/// Opens a directory below the root, through no link below it.
fn open_directory(root: &str, directories: &str) -> io::Result<OwnedFd> {
    let root = if root.is_empty() { "." } else { root };
    let root = rustix::fs::openat(CWD, root, DIRECTORY, Mode::empty())?;
    if directories.is_empty() {
        return Ok(root);
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&root, directories, DIRECTORY, Mode::empty(), resolve) {
            // An old system, or a container that lets nobody call it.
            Err(Errno::NOSYS | Errno::PERM) => {}
            opened => return Ok(opened?),
        }
    }
    walk(root, directories)
}

/// Opens directories one after the other, for systems that do not do so at once.
fn walk(mut directory: OwnedFd, directories: &str) -> io::Result<OwnedFd> {
    for name in components(directories) {
        directory = rustix::fs::openat(&directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(directory)
}

/// The same, and makes those that are missing, the root too.
fn make_directory(root: &str, directories: &str) -> io::Result<OwnedFd> {
    match open_directory(root, directories) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        outcome => return outcome,
    }
    std::fs::create_dir_all(root)?;
    let mut directory = open_directory(root, "")?;
    for name in components(directories) {
        match rustix::fs::mkdirat(&directory, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        directory = rustix::fs::openat(&directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(directory)
}

fn components(directories: &str) -> impl Iterator<Item = &str> {
    directories.split('/').filter(|name| !name.is_empty())
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Narrowed by the user's umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
/// Its owner reads and writes it.
const PRIVATE_MODE: u32 = 0o600;
/// Narrowed by the user's umask.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);
/// Slices in one call; Linux and the BSDs take 1024.
const SLICES_MAX: usize = 1024;
/// More of them are of no use.
const OPEN_FILES_WANTED: u64 = 1 << 16;
/// Times to look again at a lock that changes hands.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// What is read of the table of routes: some ten thousand lines.
const ROUTES_BYTES_MAX: u64 = 1 << 20;

/// Signals that ask a process to end: SIGINT and SIGTERM. While this lives they do nothing else.
#[derive(Debug)]
pub struct EndSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl EndSignals {
    /// Listens from now on. Needs a running tokio with I/O.
    ///
    /// # Errors
    /// What the system said.
    pub fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns when one came. Cancel safe.
    pub async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_walked_where_the_system_does_not_do_it() {
        let root = std::env::temp_dir().join(format!("taipei-walk-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).expect("directories");
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).expect("a link");
        let text = root.to_str().expect("UTF-8");
        for (path, is_there) in [("a/b", true), ("a/c", false), ("link", false), ("link/b", false)] {
            let at_once = open_directory(text, path).map_err(|error| storage_error(&error));
            let walked = walk(open_directory(text, "").expect("the root"), path)
                .map_err(|error| storage_error(&error));
            assert_eq!(at_once.as_ref().err(), walked.as_ref().err(), "{path}");
            assert_eq!(walked.is_ok(), is_there, "{path}");
        }
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn a_private_file_is_its_owners_alone_whatever_was_there() {
        let path = std::env::temp_dir().join(format!("taipei-private-{}", std::process::id()));
        std::fs::write(&path, "what was there").expect("a file");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode");
        for _ in 0..2 {
            let figures = create_private(&path).and_then(|file| file.metadata()).expect("made");
            assert_eq!((figures.mode() & 0o7777, figures.len()), (0o600, 0));
            std::fs::remove_file(&path).expect("removed");
        }
        assert!(create_private(Path::new("/dev/null")).is_ok(), "a device stays as it is");
    }
}
