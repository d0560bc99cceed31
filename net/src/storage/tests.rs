use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use taipei_engine::metainfo::StoragePath;

use super::*;

/// A directory of its own, removed at the end.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("taipei-storage-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn root(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn path(text: &str) -> StoragePath {
    StoragePath::from_names(text.split('/'))
}

fn read(
    storage: &mut FileStorage,
    at: At<'_>,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, StorageErrorKind> {
    let mut buffer = vec![0; length];
    let bytes = storage.read_at(at, offset, &mut buffer).map_err(|error| error.kind)?;
    buffer.truncate(bytes);
    Ok(buffer)
}

#[test]
fn a_write_makes_directories_and_leaves_a_hole() {
    let root = Root::new();
    let below = format!("{}/not/there/yet", root.root());
    let name = path("a/b/c");
    let at = At { root: &below, path: &name };
    let mut storage = FileStorage::new();
    assert_eq!(read(&mut storage, at, 0, 1), Err(StorageErrorKind::NotFound));
    assert_eq!(storage.stat(at), Ok(None));
    storage.write_at(at, 1 << 20, &[b"he", b"", b"llo"]).unwrap();
    assert_eq!(read(&mut storage, at, (1 << 20) - 2, 100), Ok(b"\0\0hello".to_vec()));
    let stat = storage.stat(at).unwrap().unwrap();
    assert_eq!((stat.length, stat.is_file), ((1 << 20) + 5, true));
    assert!(stat.modified_ns > 1_600_000_000_000_000_000);
    storage.set_len(at, 3).unwrap();
    assert_eq!(read(&mut storage, at, 0, 100), Ok(vec![0; 3]));
    storage.allocate(at, 100_000).unwrap();
    assert_eq!(storage.stat(at).unwrap().unwrap().length, 3);
    storage.sync(at).unwrap();
    storage.sync_dir(at).unwrap();
}

#[test]
fn more_slices_than_one_call_takes_are_written() {
    let root = Root::new();
    let name = path("f");
    let at = At { root: root.root(), path: &name };
    let content: Vec<u8> = (0..5000_u32).map(|byte| byte as u8).collect();
    let parts: Vec<&[u8]> = content.chunks(2).collect();
    let mut storage = FileStorage::new();
    storage.write_at(at, 7, &parts).unwrap();
    assert_eq!(read(&mut storage, at, 7, 5000), Ok(content));
}

#[test]
fn a_small_pool_serves_many_files() {
    let root = Root::new();
    let names: Vec<StoragePath> = (0..20).map(|n| path(&format!("d/{n}"))).collect();
    let mut storage = FileStorage::with_open_files_max(3);
    for round in 0..3_u8 {
        for name in &names {
            let at = At { root: root.root(), path: name };
            storage.write_at(at, u64::from(round), &[&[round]]).unwrap();
            assert_eq!(read(&mut storage, at, 0, 9), Ok((0..=round).collect()));
        }
    }
    assert_eq!(storage.pool().count, 3);
}

#[test]
fn the_pool_is_a_quarter_of_what_the_process_may_have_open() {
    let sizes = [64, 256, 512, 1024, 1 << 20, u64::MAX].map(pool_size);
    assert_eq!(sizes, [16, 64, 128, 128, 128, 128]);
    let own = FileStorage::new().pool().open_files_max;
    assert!((1..=OPEN_FILES_MAX).contains(&own));
}

#[test]
fn a_file_opened_for_reading_can_be_written_later() {
    let root = Root::new();
    fs::write(root.0.join("f"), b"abc").unwrap();
    let name = path("f");
    let at = At { root: root.root(), path: &name };
    let mut storage = FileStorage::new();
    assert_eq!(read(&mut storage, at, 0, 9), Ok(b"abc".to_vec()));
    storage.clone().write_at(at, 1, &[b"X"]).unwrap();
    assert_eq!(read(&mut storage, at, 0, 9), Ok(b"aXc".to_vec()));
    assert_eq!(storage.pool().count, 1);
}

#[test]
fn renamed_and_removed_files_are_not_read_through_old_handles() {
    let root = Root::new();
    let (old, new) = (path("s/old"), path("s/new"));
    let (old, new) = (At { root: root.root(), path: &old }, At { root: root.root(), path: &new });
    let mut storage = FileStorage::new();
    storage.write_at(new, 0, &[b"before"]).unwrap();
    storage.write_at(old, 0, &[b"after!"]).unwrap();
    storage.rename(old, new.path).unwrap();
    assert_eq!(read(&mut storage, new, 0, 9), Ok(b"after!".to_vec()));
    assert_eq!(read(&mut storage, old, 0, 9), Err(StorageErrorKind::NotFound));
    storage.remove(new).unwrap();
    storage.remove(new).unwrap();
    assert_eq!(read(&mut storage, new, 0, 9), Err(StorageErrorKind::NotFound));
    storage.sync(new).unwrap();
}

#[test]
fn a_file_removed_by_others_is_noticed_when_synced() {
    let root = Root::new();
    let name = path("f");
    let at = At { root: root.root(), path: &name };
    let mut storage = FileStorage::new();
    storage.write_at(at, 0, &[b"x"]).unwrap();
    fs::remove_file(root.0.join("f")).unwrap();
    storage.sync(at).unwrap();
    assert_eq!(read(&mut storage, at, 0, 1), Err(StorageErrorKind::NotFound));
}

#[test]
fn a_file_that_somebody_cut_or_removed_does_not_reach_as_far_as_we_left_it() {
    let root = Root::new();
    let name = path("f");
    let at = At { root: root.root(), path: &name };
    let mut storage = FileStorage::new();
    let reaches = |storage: &mut FileStorage, length| storage.reaches(at, length).unwrap();
    assert!(reaches(&mut storage, 0) && !reaches(&mut storage, 1), "it is not there");
    assert!(!root.0.join("f").exists(), "nor was it made");
    storage.write_at(at, 100, &[b"new"]).unwrap();
    assert!(reaches(&mut storage, 103) && !reaches(&mut storage, 104));
    File::options().write(true).open(root.0.join("f")).unwrap().set_len(50).unwrap();
    assert!(!reaches(&mut storage, 0), "somebody cut it");
    storage.forget(at);
    assert!(reaches(&mut storage, 50) && !reaches(&mut storage, 51), "and that is known");
    storage.write_at(at, 0, &[b"cut"]).unwrap();
    assert!(reaches(&mut storage, 50), "from now on this is all");
    fs::remove_file(root.0.join("f")).unwrap();
    assert!(!reaches(&mut storage, 0), "somebody removed it");
    storage.write_at(at, 7, &[b"again"]).unwrap();
    assert!(reaches(&mut storage, 12));
    assert_eq!(fs::read(root.0.join("f")).unwrap(), b"\0\0\0\0\0\0\0again", "and it has a name again");
    let mut other = FileStorage::new();
    assert!(reaches(&mut other, 12) && !reaches(&mut other, 13), "of what it did not write it knows nothing");
    assert_eq!(other.read_at(at, 0, &mut [0]), Ok(1));
}

#[test]
fn directories_are_made_and_are_no_files() {
    let root = Root::new();
    let name = path("a/b");
    let at = At { root: root.root(), path: &name };
    let mut storage = FileStorage::new();
    storage.create_dir(at).unwrap();
    storage.create_dir(at).unwrap();
    assert!(!storage.stat(at).unwrap().unwrap().is_file);
    assert_eq!(read(&mut storage, at, 0, 1), Err(StorageErrorKind::WrongKind));
    let error = storage.write_at(at, 0, &[b"x"]).unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::WrongKind);
    assert_eq!(error.path, format!("{}/a/b", root.root()));
    storage.write_at(At { root: root.root(), path: &path("f") }, 0, &[b"x"]).unwrap();
    let below_file = storage.write_at(At { root: root.root(), path: &path("f/g") }, 0, &[b"x"]);
    assert_eq!(below_file.unwrap_err().kind, StorageErrorKind::WrongKind);
}

#[test]
fn free_space_is_that_of_the_nearest_directory_above() {
    let root = Root::new();
    let mut storage = FileStorage::new();
    assert!(storage.free_bytes(&format!("{}/not/yet", root.root())).unwrap() > 0);
}

#[test]
fn many_files_are_synced_at_once_where_the_system_can() {
    let root = Root::new();
    let names: Vec<_> = (0..SYNC_TOGETHER_MIN).map(|at| path(&format!("d{}/f{at}", at % 3))).collect();
    let files: Vec<_> = names.iter().map(|path| At { root: root.root(), path }).collect();
    let mut storage = FileStorage::new();
    // One is missing, and a directory as well.
    for at in files.iter().filter(|at| !at.path.as_str().starts_with("d2/")).skip(1) {
        storage.write_at(*at, 0, &[b"x"]).unwrap();
    }
    assert_eq!(storage.sync_together(&files).unwrap(), cfg!(target_os = "linux"));
    assert!(!storage.sync_together(&files[1..]).unwrap(), "few are synced by themselves");
}

#[test]
fn a_lock_is_held_once() {
    let root = Root::new();
    let name = path(".taipei/lock");
    let at = At { root: root.root(), path: &name };
    let ours = StorageErrorKind::Locked(std::process::id());
    let mut storage = FileStorage::new();
    storage.lock(at).unwrap();
    assert_eq!(storage.clone().lock(at).unwrap_err().kind, ours);
    // As another process would see it.
    let mut other = FileStorage::new();
    assert_eq!(other.lock(at).unwrap_err().kind, ours);
    storage.unlock(at);
    other.lock(at).unwrap();
    other.unlock(at);
    // Nothing is left of a longer number.
    fs::write(root.0.join(".taipei/lock"), "12345678901").unwrap();
    storage.lock(at).unwrap();
    assert_eq!(fs::read_to_string(root.0.join(".taipei/lock")).unwrap(), std::process::id().to_string());
}

#[cfg(unix)]
#[test]
fn no_link_below_the_root_is_followed() {
    use std::os::unix::fs::symlink;
    let root = Root::new();
    let outside = Root::new();
    fs::write(outside.0.join("f"), b"secret").unwrap();
    symlink(&outside.0, root.0.join("dir")).unwrap();
    symlink(outside.0.join("f"), root.0.join("file")).unwrap();
    symlink(outside.0.join("new"), root.0.join("dangling")).unwrap();
    let mut storage = FileStorage::new();
    for (name, is_final) in [("dir/f", false), ("file", true), ("dangling", true), ("dir/sub/f", false)] {
        let name = path(name);
        let at = At { root: root.root(), path: &name };
        assert_eq!(read(&mut storage, at, 0, 1), Err(StorageErrorKind::WrongKind), "{name}");
        assert_eq!(storage.write_at(at, 0, &[b"x"]).unwrap_err().kind, StorageErrorKind::WrongKind, "{name}");
        if is_final {
            assert!(!storage.stat(at).unwrap().unwrap().is_file);
        } else {
            storage.stat(at).unwrap_err();
        }
    }
    assert_eq!(fs::read(outside.0.join("f")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&outside.0).unwrap().count(), 1);
    // The root itself may be one: the user named it.
    let linked = root.0.join("dir");
    let at = At { root: linked.to_str().unwrap(), path: &path("f") };
    assert_eq!(read(&mut storage, at, 0, 6), Ok(b"secret".to_vec()));
}

#[cfg(unix)]
#[test]
fn a_pipe_where_a_file_should_be_does_not_block() {
    let root = Root::new();
    let pipe = root.0.join("p");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let name = path("p");
    let at = At { root: root.root(), path: &name };
    let mut storage = FileStorage::new();
    assert_eq!(read(&mut storage, at, 0, 1), Err(StorageErrorKind::WrongKind));
    assert_eq!(storage.write_at(at, 0, &[b"x"]).unwrap_err().kind, StorageErrorKind::WrongKind);
}

#[test]
fn who_must_not_wait_reads_what_is_open_and_in_memory() {
    let root = Root::new();
    let name = path("a");
    let at = At { root: root.root(), path: &name };
    let mut storage = FileStorage::new();
    let mut at_once = storage.without_waiting();
    storage.write_at(at, 0, &[b"hello"]).unwrap();
    // Not every system and file system says what is in memory.
    let told = read(&mut at_once, at, 1, 9);
    assert!(told.is_err() || told == Ok(b"ello".to_vec()), "{told:?}");
    let closed = path("b");
    fs::write(root.0.join("b"), "hello").unwrap();
    assert!(
        read(&mut at_once, At { root: root.root(), path: &closed }, 0, 5).is_err(),
        "it would have to be opened"
    );
    assert_eq!(read(&mut storage, At { root: root.root(), path: &closed }, 0, 5), Ok(b"hello".to_vec()));
}
