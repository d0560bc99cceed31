//! `taipei-cli create`: a torrent of a file or directory.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde_json::json;
use taipei_engine::metainfo::{
    Content, CreateError, CreateOptions, CreatePlan, Metainfo, STATE_DIRECTORY, SourceFile,
};

use crate::args::{CreateArgs, DisplayArgs};
use crate::hashing::hash_pieces;
use crate::output::{Exit, Failure, Shown, bytes, count, fail, path_rules, print, print_json, tell};
use crate::progress::HashProgress;

/// Makes it and writes it.
pub(crate) fn run(args: &CreateArgs) -> Exit {
    match make(args) {
        Ok(()) => Exit::Done,
        Err(failure) => fail(&failure, args.display.is_for_programs()),
    }
}

fn make(args: &CreateArgs) -> Result<(), Failure> {
    let options = CreateOptions {
        piece_length: args.piece_size,
        tracker_tiers: args.tracker.iter().map(|tier| tier.to_vec()).collect(),
        web_seeds: args.webseed.clone(),
        comment: args.comment.clone(),
        private: args.private,
        source: args.source.clone(),
        created_by: (!args.anonymize).then(|| format!("taipei {}", env!("CARGO_PKG_VERSION"))),
        creation_date: (!args.anonymize).then(now),
    };
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    // Said before the hashing, which may take long; looked at again when writing.
    if let Some(output) = args.output.as_deref().filter(|output| !to_stdout && !output.is_dir()) {
        may_write(output, args.force)?;
    }
    // There the torrent file itself is what programs wait for.
    let quiet = args.display.quiet || (to_stdout && args.display.is_for_programs());
    let display = DisplayArgs { quiet, ..args.display };
    let made = make_torrent(&args.path, args.name.as_deref(), options, display)?;
    let file_name = format!("{}.torrent", made.metainfo.name);
    let output = match &args.output {
        None => PathBuf::from(file_name),
        Some(directory) if directory.is_dir() => directory.join(file_name),
        Some(output) => output.clone(),
    };
    if to_stdout {
        let failed = |error| Failure::File { path: "standard output".into(), error };
        return io::stdout().lock().write_all(&made.torrent_file).map_err(failed);
    }
    write_file(&output, &made.torrent_file, args.force)?;
    report(args, &made.metainfo, &output);
    Ok(())
}

/// A torrent that was made.
pub(crate) struct Made {
    pub(crate) torrent_file: Vec<u8>,
    pub(crate) metainfo: Metainfo,
}

/// Hashes a file or directory.
pub(crate) fn make_torrent(
    path: &Path,
    name: Option<&str>,
    options: CreateOptions,
    display: DisplayArgs,
) -> Result<Made, Failure> {
    let failed = |error| Failure::File { path: path.to_owned(), error };
    let real = path.canonicalize().map_err(failed)?;
    let own_name = real.file_name().ok_or_else(|| Failure::NoFile(path.to_owned()))?;
    let name = match name {
        Some(name) => name,
        None => own_name.to_str().ok_or_else(|| Failure::NotUtf8(path.to_owned()))?,
    };
    let is_directory = real.is_dir();
    let content = if is_directory {
        Content::Directory(files_below(&real)?)
    } else {
        Content::File { length: real.metadata().map_err(failed)?.len() }
    };
    let plan = CreatePlan::new(name, content, options)
        .map_err(|error: CreateError| Failure::Create { path: path.to_owned(), error })?;
    // The first component is the torrent's name, which need not be the directory's.
    let paths: Vec<PathBuf> = plan
        .layout()
        .files()
        .iter()
        .map(|file| {
            real.components()
                .map(|part| part.as_os_str())
                .chain(file.path.components().skip(1).map(AsRef::as_ref))
                .collect()
        })
        .collect();
    let progress = HashProgress::new(name, plan.layout().total_bytes(), display);
    let hashes = hash_pieces(plan.layout(), &paths, &|bytes| progress.add(bytes));
    progress.finish();
    let mut piece_hashes = Vec::with_capacity(hashes.len());
    for hash in hashes {
        piece_hashes.push(hash.map_err(|unread| {
            let path = paths[unread.file.0 as usize].clone();
            match unread.error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => Failure::Changed(path),
                _ => Failure::File { path, error: unread.error },
            }
        })?);
    }
    for (file, path) in plan.layout().files().iter().zip(&paths) {
        if fs::metadata(path).ok().map(|now| now.len()) != Some(file.length) {
            return Err(Failure::Changed(path.clone()));
        }
    }
    let torrent_file = plan.encode(&piece_hashes);
    let metainfo = Metainfo::parse(&torrent_file, path_rules())
        .map_err(|error| Failure::Torrent { path: path.to_owned(), error })?;
    Ok(Made { torrent_file, metainfo })
}

/// All plain files below a directory. Links are not followed: what they point at may lie elsewhere.
fn files_below(root: &Path) -> Result<Vec<SourceFile>, Failure> {
    let mut files = Vec::new();
    let mut directories = vec![(root.to_owned(), Vec::<String>::new())];
    while let Some((directory, names)) = directories.pop() {
        let failed = |error| Failure::File { path: directory.clone(), error };
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|_| Failure::NotUtf8(path.clone()))?;
            if names.is_empty() && name == STATE_DIRECTORY {
                continue;
            }
            let metadata = entry.metadata().map_err(|error| Failure::File { path: path.clone(), error })?;
            let mut names = names.clone();
            names.push(name);
            if metadata.is_dir() {
                directories.push((path, names));
            } else if metadata.is_file() {
                files.push(SourceFile { path: names, length: metadata.len() });
            } else {
                tell(format_args!(
                    "warning: {} is left out: it is a link or a device, not a file",
                    Shown(&path)
                ));
            }
        }
    }
    Ok(files)
}

pub(crate) fn may_write(path: &Path, force: bool) -> Result<(), Failure> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let directory = directory.to_owned();
        return Err(if directory.exists() {
            Failure::NotADirectory(directory)
        } else {
            Failure::NoDirectory(directory)
        });
    }
    let is_there = fs::symlink_metadata(path).is_ok();
    if is_there && !force { Err(Failure::Exists(path.to_owned())) } else { Ok(()) }
}

/// Writes beside and renames, so that nobody ever sees half a file.
pub(crate) fn write_file(path: &Path, content: &[u8], force: bool) -> Result<(), Failure> {
    may_write(path, force)?;
    let failed = |error| Failure::File { path: path.to_owned(), error };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let beside = path.with_file_name(name);
    let written = fs::File::create_new(&beside)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}

fn report(args: &CreateArgs, metainfo: &Metainfo, output: &Path) {
    let layout = &metainfo.layout;
    let hash = metainfo.info_hashes.v1.map(|hash| hash.to_string()).unwrap_or_default();
    if args.display.is_for_programs() {
        print_json(&json!({
            "torrent": output.to_string_lossy(), "name": metainfo.name, "info_hash_v1": hash,
            "piece_length": layout.piece_length(), "num_pieces": layout.piece_count(),
            "total_size": layout.stored_bytes(), "num_files": layout.files().len(),
        }));
        return;
    }
    let size = format!("{} in {}", bytes(layout.stored_bytes()), count(layout.files().len() as u64, "file"));
    let pieces =
        format!("{} of {}", count(layout.piece_count().into(), "piece"), bytes(layout.piece_length().into()));
    print(format_args!("{}  {hash}\n{size}, {pieces}", Shown(output)));
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
