//! The flags of Taipei-Torrent, which had no commands: `-fileDir DIR x.torrent` is taken as `download --output DIR
//! x.torrent`, and a line says so.
//!
//! What cannot be done as it was asked for is refused where something else would happen otherwise: nothing goes around a
//! proxy, no data go to another place. What is not needed any more, or only makes a download slower while it is missing,
//! is left out, with a word.

use std::ffi::OsString;

/// What came of a command line with old flags.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Translated {
    /// The same in the words of today, the program's name first.
    pub(crate) args: Vec<OsString>,
    /// For the user.
    pub(crate) hint: String,
}

/// What an old flag is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    /// The same with a value, under this name.
    Value(&'static str),
    /// A switch: what it is when on, and when off; nothing: as it is anyway.
    Switch(&'static str, &'static str),
    /// Left out, because it is not needed.
    Ignored { has_value: bool, why: &'static str },
    /// Not to be left out, because ...
    Refused(&'static str),
    /// `-seedRatio`, which went on seeding.
    SeedRatio,
    /// A command of its own.
    Create,
    /// A command of its own.
    Tracker,
}

/// Translates, if there are old flags. None: there are none.
///
/// # Errors
/// In words, when a flag asks for what cannot be had.
pub(crate) fn translate(args: &[OsString]) -> Result<Option<Translated>, String> {
    let mut old = Old::default();
    let mut given = args.iter().skip(1);
    while let Some(arg) = given.next() {
        let flag = arg.to_str().filter(|_| !old.only_names_follow).and_then(find);
        let Some((name, now, value)) = flag else {
            old.only_names_follow |= arg == "--";
            old.rest.push(arg.clone());
            continue;
        };
        old.found = true;
        let mut value_or_next = || {
            let value = value.map(OsString::from).or_else(|| given.next().cloned());
            value.ok_or_else(|| format!("-{name} needs a value"))
        };
        match now {
            Now::Value(new) => old.flags.extend([new.into(), value_or_next()?]),
            Now::Switch(on, off) => {
                let new = if is_on(name, value)? { on } else { off };
                old.flags.extend((!new.is_empty()).then(|| OsString::from(new)));
            }
            Now::Ignored { has_value, why } => {
                if has_value {
                    value_or_next()?;
                }
                if has_value || is_on(name, value)? {
                    old.notes.push(format!("-{name} is left out: {why}"));
                }
            }
            Now::Refused(why) => return Err(format!("-{name}: {why}")),
            Now::SeedRatio => {
                let ratio = value_or_next()?;
                old.flags.push("--seed".into());
                if !ratio.to_string_lossy().to_lowercase().contains("inf") {
                    old.flags.extend(["--seed-ratio".into(), ratio]);
                }
            }
            Now::Create => old.create = Some(value_or_next()?),
            Now::Tracker => old.tracker = Some(value_or_next()?),
        }
    }
    Ok(old.found.then(|| old.into_new(args.first())))
}

/// A command line taken apart.
#[derive(Default)]
struct Old {
    found: bool,
    only_names_follow: bool,
    flags: Vec<OsString>,
    /// What was no old flag.
    rest: Vec<OsString>,
    create: Option<OsString>,
    tracker: Option<OsString>,
    notes: Vec<String>,
}

impl Old {
    fn into_new(self, program: Option<&OsString>) -> Translated {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let first_word = self.rest.iter().position(|arg| !arg.to_string_lossy().starts_with('-'));
        let command = first_word.filter(|at| COMMANDS.iter().any(|command| self.rest[*at] == **command));
        let mut args = Vec::new();
        match (self.create, self.tracker) {
            (Some(root), address) => {
                args.extend(words(&["create"]));
                args.push(root);
                args.extend(words(&["--output", "-"]));
                if let Some(address) = address {
                    args.push("--tracker".into());
                    args.push(format!("http://{}/announce", address.to_string_lossy()).into());
                }
            }
            (None, Some(address)) => {
                let address = address.to_string_lossy();
                let any = if address.starts_with(':') { "0.0.0.0" } else { "" };
                args.extend(words(&["tracker", "--listen"]));
                args.push(format!("{any}{address}").into());
                if !self.rest.is_empty() {
                    args.push("--allow".into());
                    args.extend(self.rest);
                }
            }
            (None, None) => {
                // Flags go before what may be `--` and names alone.
                let (before, after) = self.rest.split_at(command.map_or(0, |at| at + 1));
                args.extend(command.is_none().then(|| "download".into()));
                args.extend_from_slice(before);
                args.extend(self.flags);
                args.extend_from_slice(after);
            }
        }
        let quoted: Vec<String> = args.iter().map(|arg| quoted(&arg.to_string_lossy())).collect();
        let notes: String = self.notes.iter().map(|note| format!("; {note}")).collect();
        let hint = format!("these are flags of Taipei-Torrent; now: taipei-cli {}{notes}", quoted.join(" "));
        args.insert(0, program.cloned().unwrap_or_else(|| "taipei-cli".into()));
        Translated { args, hint }
    }
}

/// The old flag in an argument, and the value after its `=`.
fn find(arg: &str) -> Option<(&'static str, Now, Option<&str>)> {
    let (flag, value) = arg.split_once('=').map_or((arg, None), |(flag, value)| (flag, Some(value)));
    let (name, dashes) = match flag.strip_prefix("--") {
        Some(name) => (name, 2),
        None => (flag.strip_prefix('-')?, 1),
    };
    OLD.iter().find_map(|(old, now)| {
        // With two dashes what has the same name today is the flag of today.
        let is_it = *old == name && (dashes == 1 || *old != kebab(old)) || dashes == 2 && kebab(old) == name;
        (is_it && !(dashes == 2 && is_todays(name))).then_some((*old, *now, value))
    })
}

/// Whether a flag of today has this name.
fn is_todays(name: &str) -> bool {
    ["port", "seed-ratio", "max-active"].contains(&name)
}

/// `fileDir`: `file-dir`; `useDHT`: `use-dht`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    let mut was_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && was_lower {
            kebab.push('-');
        }
        was_lower = c.is_ascii_lowercase();
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

fn is_on(name: &str, value: Option<&str>) -> Result<bool, String> {
    match value.unwrap_or("true").to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Ok(true),
        "false" | "f" | "0" => Ok(false),
        _ => Err(format!("-{name} is a switch: give true or false")),
    }
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", crate::output::escape(&word.replace('\'', r"'\''"))),
    }
}

/// The commands there are, which Taipei-Torrent had none of.
const COMMANDS: [&str; 9] =
    ["download", "seed", "create", "info", "show", "verify", "tracker", "scrape", "demo"];

const NOT_NEEDED: &str = "what it was for needs no setting any more";

/// The flags of Taipei-Torrent.
const OLD: [(&str, Now); 23] = [
    ("port", Now::Value("--port")),
    ("fileDir", Now::Value("--output")),
    ("seedRatio", Now::SeedRatio),
    ("initialCheck", Now::Switch("--recheck", "")),
    ("quickResume", Now::Switch("", "--no-resume")),
    ("maxActive", Now::Value("--max-active")),
    ("memoryPerTorrent", Now::Ignored { has_value: true, why: NOT_NEEDED }),
    ("useDHT", Now::Switch("", "--no-dht")),
    ("trackerlessMode", Now::Switch("--no-trackers", "")),
    ("useLPD", Now::Switch("", "--no-lsd")),
    ("useUPnP", Now::Switch("", "--no-upnp")),
    // Without it UPnP could still be used; now they are one.
    ("useNATPMP", Now::Switch("", "")),
    ("gateway", Now::Ignored { has_value: true, why: "the router is found by itself" }),
    (
        "proxyAddress",
        Now::Refused("proxies come with a later version, and nothing goes around one that was asked for"),
    ),
    ("useSFTP", Now::Refused("data are stored on this machine alone: mount the other one and give --output")),
    ("useRamCache", Now::Ignored { has_value: true, why: NOT_NEEDED }),
    ("useHdCache", Now::Ignored { has_value: true, why: NOT_NEEDED }),
    ("execOnSeeding", Now::Value("--on-complete")),
    ("createTorrent", Now::Create),
    ("createTracker", Now::Tracker),
    ("useDeadlockDetector", Now::Ignored { has_value: false, why: NOT_NEEDED }),
    ("cpuprofile", Now::Refused("there is no profiler inside: use one of the system, such as perf")),
    ("memprofile", Now::Refused("there is no profiler inside: use one of the system, such as heaptrack")),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Option<String>, String> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        translate(&args).map(|done| {
            done.map(|done| {
                done.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
            })
        })
    }

    #[test]
    fn every_old_flag_is_taken_or_refused_in_words() {
        let ok = |line: &str, want: &str| {
            assert_eq!(check(line).as_ref().map(Option::as_deref), Ok(Some(want)), "{line}");
        };
        ok("t -port 7777 x", "t download --port 7777 x");
        ok("t -port=7777 x", "t download --port 7777 x");
        for file_dir in ["-fileDir d", "--fileDir d", "--file-dir d", "--file-dir=d"] {
            ok(&format!("t {file_dir} x"), "t download --output d x");
            ok(&format!("t download x {file_dir}"), "t download --output d x");
        }
        ok("t -seedRatio 1.5 x", "t download --seed --seed-ratio 1.5 x");
        ok("t -seedRatio +Inf x", "t download --seed x");
        ok("t -initialCheck x", "t download --recheck x");
        ok("t -initialCheck=false -quickResume=true x", "t download x");
        ok("t -maxActive 3 -trackerlessMode x", "t download --max-active 3 --no-trackers x");
        ok("t -useDHT -useLPD -useUPnP -useNATPMP -gateway 10.0.0.1 x", "t download x");
        ok("t --use-dht --use-lpd --max-active 2 x", "t download --max-active 2 x");
        ok("t -useDHT=false -useLPD=0 -useUPnP=f x", "t download --no-dht --no-lsd --no-upnp x");
        ok("t -memoryPerTorrent -1 -useRamCache 5 -useHdCache=7 -useDeadlockDetector x", "t download x");
        ok("t -execOnSeeding true x", "t download --on-complete true x");
        ok("t -createTorrent d", "t create d --output -");
        ok("t -createTorrent d -createTracker h:1", "t create d --output - --tracker http://h:1/announce");
        ok("t -createTracker :80 x y", "t tracker --listen 0.0.0.0:80 --allow x y");
        for refused in ["proxyAddress h:1", "useSFTP u@h/", "cpuprofile f", "memprofile f"] {
            let words = check(&format!("t -{refused} x")).unwrap_err();
            assert!(words.starts_with(&format!("-{}: ", refused.split(' ').next().unwrap())), "{words}");
        }
        assert!(check("t x -fileDir").is_err() && check("t -useDHT=maybe x").is_err());
    }

    #[test]
    fn flags_of_today_and_names_are_left_alone() {
        for line in [
            "t download x --port 1 --seed-ratio 2 --max-active 3",
            "t download -- -fileDir",
            "t create x -o y -p",
            "t",
            "t --gatewayx",
        ] {
            assert_eq!(check(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn the_hint_is_a_command_line_and_says_what_was_left_out() {
        let args = ["t", "-fileDir", "my files", "-useRamCache", "5", "x.torrent"].map(OsString::from);
        let hint = translate(&args).unwrap().unwrap().hint;
        assert_eq!(
            hint,
            "these are flags of Taipei-Torrent; now: taipei-cli download --output 'my files' x.torrent; -useRamCache is \
             left out: what it was for needs no setting any more"
        );
    }
}
