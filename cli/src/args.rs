//! What can be said on the command line.

use std::fs::File;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Command, CommandFactory as _, Parser, Subcommand, ValueEnum};
use regex_lite::Regex;
use tracing_subscriber::EnvFilter;

use crate::dht::{DhtArgs, host_and_port};
use crate::on_complete;
use crate::output::Failure;
use crate::scrape::ScrapeArgs;
use crate::tracker::TrackerArgs;

/// Downloads and seeds torrents, makes and checks them.
#[derive(Debug, Parser)]
#[command(
    name = "taipei-cli",
    version,
    arg_required_else_help = true,
    infer_long_args = false,
    after_help = "Exit status: 0 done, 1 error, 2 wrong use, 3 gave up, 4 data not whole, 130 interrupted.\n\
                  Every setting that shows [env: NAME=] can be given by that variable too."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// The command line with a variable of the environment for every flag: `--max-peers` is `TAIPEI_MAX_PEERS` too.
///
/// Commands whose flags mean something of their own have them under their name: `TAIPEI_CREATE_OUTPUT`.
pub(crate) fn command_line() -> Command {
    Cli::command().mut_args(|arg| with_env(arg, "")).mut_subcommands(|command| {
        let prefix = match command.get_name() {
            own @ ("create" | "tracker" | "demo") => format!("{}_", own.to_uppercase()),
            _ => String::new(),
        };
        let command = command.mut_args(|arg| with_env(arg, &prefix));
        command.mut_subcommands(|question| question.mut_args(|arg| with_env(arg, "DHT_")))
    })
}

fn with_env(arg: clap::Arg, prefix: &str) -> clap::Arg {
    let Some(long) = arg.get_long().filter(|_| arg.get_env().is_none()) else { return arg };
    let prefix = if long == "json" { "" } else { prefix };
    // Names live as long as the program: there is one command line.
    let name: &'static str = format!("TAIPEI_{prefix}{}", long.replace('-', "_").to_uppercase()).leak();
    let arg = arg.env(name).hide_env_values(true);
    // `1` and `yes` mean yes, `0`, `no` and nothing mean no.
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        arg.value_parser(FalseyValueParser::new())
    } else {
        arg
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Download a torrent; ends when it is complete
    Download(DownloadArgs),
    /// Serve data that are already here
    Seed(SeedArgs),
    /// Make a torrent of a file or directory
    Create(CreateArgs),
    /// Show what a torrent file or magnet link says
    #[command(visible_alias = "show")]
    Info(InfoArgs),
    /// Print the magnet link of a torrent file, or show what a link says
    Magnet(MagnetArgs),
    /// Check data against a torrent; 0: whole, 4: not
    Verify(VerifyArgs),
    /// Run a tracker
    Tracker(TrackerArgs),
    /// Ask trackers how many there are in a swarm
    Scrape(ScrapeArgs),
    /// Ask the distributed hash table
    Dht(DhtArgs),
    /// Print a script that completes our commands in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Show a real download on this machine alone
    Demo(DemoArgs),
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LogArgs {
    /// Tell more: -v what happens, -vv what is decided, -vvv every message
    #[arg(short, long, global = true, display_order = 900, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Write the log to this file instead of standard error
    #[arg(
        long,
        global = true,
        display_order = 901,
        value_name = "FILE",
        env = "TAIPEI_LOG",
        hide_env_values = true
    )]
    pub(crate) log: Option<PathBuf>,
}

impl LogArgs {
    /// Begins logging. Warnings are always told; those of the engine are in what it tells us, too.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        let level = match (self.verbose, self.log.is_some()) {
            (0, false) => "warn,taipei_engine=error",
            (0, true) | (1, _) => "info",
            (2, _) => "debug",
            (3.., _) => "trace",
        };
        // Whoever reads standard error may have gone.
        let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).log_internal_errors(false);
        match &self.log {
            None => log.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).init(),
            Some(path) => {
                let failed = |error| Failure::File { path: path.clone(), error };
                let file = File::options().append(true).create(true).open(path).map_err(failed)?;
                log.with_ansi(false).with_writer(std::sync::Mutex::new(file)).init();
            }
        }
        Ok(())
    }

    /// Whether log lines would go through a display on the terminal.
    pub(crate) fn is_on_terminal(&self) -> bool {
        self.verbose > 0 && self.log.is_none()
    }
}

#[derive(Debug, Args)]
pub(crate) struct DownloadArgs {
    /// Torrent files, http(s) addresses of them, magnet links, or info-hashes
    #[arg(required = true, value_name = "TORRENT")]
    pub(crate) torrents: Vec<PathBuf>,
    /// Directory to download into
    #[arg(
        short,
        long,
        visible_short_alias = 'd',
        visible_alias = "dir",
        value_name = "DIR",
        default_value = ".",
        env = "TAIPEI_OUTPUT",
        hide_env_values = true
    )]
    pub(crate) output: PathBuf,
    /// Go on seeding when complete, until interrupted; --seed-ratio or --seed-time: until that is reached
    #[arg(long)]
    pub(crate) seed: bool,
    /// Give up with status 3 when there was no progress for so long, for example 90 or 5m
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) stop_timeout: Option<Duration>,
    /// Download only these files, by their numbers in --list, for example 1,3-5
    #[arg(short, long, value_name = "N,A-B", value_parser = numbers)]
    pub(crate) select: Option<Numbers>,
    /// Download only files whose path in --list this regular expression finds, and those of --select; (?i) first: upper
    /// and lower case are one
    #[arg(short = 'r', long, value_name = "RE", value_parser = pattern)]
    pub(crate) filename_re: Option<Regex>,
    /// Show the files and their numbers instead of downloading
    #[arg(short, long)]
    pub(crate) list: bool,
    /// Fetch pieces in order instead of rarest first
    #[arg(long)]
    pub(crate) sequential: bool,
    /// Make room for all files before the download begins
    #[arg(long)]
    pub(crate) preallocate: bool,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// Torrent files or http(s) addresses of them, or files and directories to make torrents of, in memory
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<PathBuf>,
    /// Directory that holds the data of torrent files (what `download` calls --output)
    #[arg(
        short,
        long,
        visible_alias = "output",
        value_name = "DIR",
        default_value = ".",
        env = "TAIPEI_OUTPUT",
        hide_env_values = true
    )]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) making: MakingArgs,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

/// How `seed` makes the torrent of what is no torrent file. With --tracker the trackers are in it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MakingArgs {
    /// Write the torrent that was made to this file, or into this directory
    #[arg(long, value_name = "FILE", help_heading = MAKING)]
    pub(crate) save_torrent: Option<PathBuf>,
    /// Only peers of its trackers (no DHT, PEX, LSD)
    #[arg(long, help_heading = MAKING)]
    pub(crate) private: bool,
    /// Bytes a piece, for example 256K or 1M [default: by size, at most 2,000 pieces]
    #[arg(short = 's', long, value_name = "SIZE", value_parser = piece_size, help_heading = MAKING)]
    pub(crate) piece_size: Option<u32>,
    /// Mark in the info dictionary, so that the info-hash differs from others of the same data
    #[arg(long, value_name = "TEXT", help_heading = MAKING)]
    pub(crate) source: Option<String>,
}

/// The way to everything outside.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BindArgs {
    /// Address or network interface to use for everything; nothing goes another way, but the system looks up names
    #[arg(long, value_name = "IP|IFACE", env = "TAIPEI_BIND", hide_env_values = true, help_heading = NETWORK)]
    pub(crate) bind: Option<String>,
}

/// What `download` and `seed` have in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct TransferArgs {
    /// Port to listen on, or ports to try in turn; 0 lets the system choose
    #[arg(short, long, value_name = "N|A-B", default_value = "6881-6999", value_parser = ports, env = "TAIPEI_PORT", hide_env_values = true, help_heading = NETWORK)]
    pub(crate) port: RangeInclusive<u16>,
    #[command(flatten)]
    pub(crate) bind: BindArgs,
    /// Connect to this peer as well; may be repeated
    #[arg(long, value_name = "IP:PORT", value_parser = address, help_heading = NETWORK)]
    pub(crate) peer: Vec<SocketAddr>,
    /// Ask this tracker as well; may be repeated
    #[arg(short, long, value_name = "URL", value_parser = tracker_urls, help_heading = NETWORK)]
    pub(crate) tracker: Vec<Tier>,
    /// Do not ask this tracker of the torrent's; may be repeated
    #[arg(long, value_name = "URL", help_heading = NETWORK)]
    pub(crate) exclude_tracker: Vec<String>,
    /// Ask none of the torrent's own trackers
    #[arg(long, help_heading = NETWORK)]
    pub(crate) no_trackers: bool,
    /// Peers per torrent at most
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000), env = "TAIPEI_MAX_PEERS", hide_env_values = true, help_heading = NETWORK)]
    pub(crate) max_peers: u32,
    /// Receive no faster than this, all torrents together: 500K, 2M, 1GiB, 10Mbit a second
    #[arg(short = 'D', long, visible_alias = "download-limit", value_name = "SPEED", value_parser = speed, help_heading = LIMITS)]
    pub(crate) max_download: Option<u64>,
    /// Send no faster than this, all torrents together
    #[arg(short = 'U', long, visible_alias = "upload-limit", value_name = "SPEED", value_parser = speed, help_heading = LIMITS)]
    pub(crate) max_upload: Option<u64>,
    /// Receive no faster than this for each torrent
    #[arg(long, value_name = "SPEED", value_parser = speed, help_heading = LIMITS)]
    pub(crate) torrent_max_download: Option<u64>,
    /// Send no faster than this for each torrent
    #[arg(long, value_name = "SPEED", value_parser = speed, help_heading = LIMITS)]
    pub(crate) torrent_max_upload: Option<u64>,
    /// Seeding is enough when so much of the size was sent, for example 1.5
    #[arg(long, value_name = "RATIO", value_parser = permille, help_heading = LIMITS)]
    pub(crate) seed_ratio: Option<u32>,
    /// Seeding is enough after so long, for example 90s, 5m or 1h
    #[arg(long, value_name = "DURATION", value_parser = seconds, help_heading = LIMITS)]
    pub(crate) seed_time: Option<Duration>,
    /// Torrents active at once; the others wait
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = LIMITS)]
    pub(crate) max_active: u32,
    /// Run this when a torrent becomes complete: a program and its arguments, without a shell; TORRENT_NAME, TORRENT_DIR
    /// and TORRENT_INFOHASH are in its environment
    #[arg(long, value_name = "COMMAND", value_parser = command_words)]
    pub(crate) on_complete: Option<Words>,
    #[command(flatten)]
    pub(crate) dht: DhtUse,
    /// No local service discovery: the local network is neither told nor asked
    #[arg(long, help_heading = NETWORK)]
    pub(crate) no_lsd: bool,
    /// No peer exchange
    #[arg(long, help_heading = NETWORK)]
    pub(crate) no_pex: bool,
    /// No port mapping by UPnP, NAT-PMP or PCP
    #[arg(long, help_heading = NETWORK)]
    pub(crate) no_upnp: bool,
    /// No uTP (not there yet)
    #[arg(long, help_heading = NETWORK)]
    pub(crate) no_utp: bool,
    /// Whether connections are encrypted (not there yet: `require` is refused)
    #[arg(long, value_enum, default_value_t = Encryption::Prefer, env = "TAIPEI_ENCRYPTION", hide_env_values = true, help_heading = NETWORK)]
    pub(crate) encryption: Encryption,
    /// Believe no earlier run and save nothing: hash what is there
    #[arg(long)]
    pub(crate) no_resume: bool,
    /// Hash what is there, whatever earlier runs say
    #[arg(long)]
    pub(crate) recheck: bool,
    /// Record what happens, without payload, for `taipei-sim replay` and for reports of bugs. The file holds addresses of
    /// peers and of trackers, passkeys too: only its owner may read it
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Stop recording at this size; the transfer goes on
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = record_size)]
    pub(crate) record_max: u64,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encryption {
    /// Never
    Off,
    /// Where the other side can
    Prefer,
    /// Always
    Require,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DisplayArgs {
    /// One JSON object a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto, value_name = "HOW", env = "TAIPEI_PROGRESS", hide_env_values = true)]
    pub(crate) progress: Progress,
    /// The same as --progress none: nothing but the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl DisplayArgs {
    /// Whether standard output is for programs.
    pub(crate) fn is_for_programs(self) -> bool {
        self.json || self.progress == Progress::Json
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Bars on a terminal, lines elsewhere, JSON with --json
    Auto,
    /// Bars
    Bar,
    /// Lines
    Plain,
    /// JSON objects
    Json,
    /// Nothing but the result
    None,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// File or directory
    pub(crate) path: PathBuf,
    /// Where to write the torrent file, or into which directory; `-` is standard output [default: NAME.torrent here]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Tracker; each is a tier of its own, those of one tier are joined by commas
    #[arg(short, long, alias = "announce", value_name = "URL[,URL]", value_parser = tracker_urls)]
    pub(crate) tracker: Vec<Tier>,
    /// Web seed; may be repeated
    #[arg(short, long, value_name = "URL")]
    pub(crate) webseed: Vec<String>,
    /// Only peers of its trackers (no DHT, PEX, LSD)
    #[arg(short, long)]
    pub(crate) private: bool,
    /// Bytes a piece, for example 256K or 1M [default: by size, at most 2,000 pieces]
    #[arg(short = 's', long, alias = "piece-length", value_name = "SIZE", value_parser = piece_size)]
    pub(crate) piece_size: Option<u32>,
    /// Free text
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Mark in the info dictionary, so that the info-hash differs from others of the same data
    #[arg(long, value_name = "TEXT")]
    pub(crate) source: Option<String>,
    /// Name of the torrent [default: that of the file or directory]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Say neither when nor by what it was made
    #[arg(long)]
    pub(crate) anonymize: bool,
    /// Replace a torrent file that is there already
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Torrent file, or its http(s) address, or a magnet link or info-hash
    pub(crate) torrent: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask peers what a link names, and show that; without it nobody is asked
    #[arg(long)]
    pub(crate) fetch: bool,
    /// Give up with status 3 after so long, for example 90 or 5m
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) stop_timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) bind: BindArgs,
    /// Ask this peer as well; may be repeated
    #[arg(long, value_name = "IP:PORT", value_parser = address, help_heading = NETWORK)]
    pub(crate) peer: Vec<SocketAddr>,
    /// Ask this tracker as well; may be repeated
    #[arg(short, long, value_name = "URL", value_parser = tracker_urls, help_heading = NETWORK)]
    pub(crate) tracker: Vec<Tier>,
    #[command(flatten)]
    pub(crate) dht: DhtUse,
    /// No local service discovery: the local network is neither told nor asked
    #[arg(long, help_heading = NETWORK)]
    pub(crate) no_lsd: bool,
}

/// Whether the DHT is used, and where it begins.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DhtUse {
    /// No distributed hash table: only trackers and given peers
    #[arg(long, help_heading = NETWORK)]
    pub(crate) no_dht: bool,
    /// Begin the distributed hash table with this node instead of the usual ones; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, help_heading = NETWORK)]
    pub(crate) dht_bootstrap: Vec<(String, u16)>,
}

impl TransferArgs {
    /// What `download` would have with no flags but how it is shown.
    pub(crate) fn plain(display: DisplayArgs) -> Self {
        // What the environment says may be wrong.
        let cli =
            Cli::try_parse_from(["taipei-cli", "download", "torrent"]).unwrap_or_else(|error| error.exit());
        let CliCommand::Download(args) = cli.command else { unreachable!("it was asked for") };
        Self { display, ..args.transfer }
    }
}

#[derive(Debug, Args)]
pub(crate) struct MagnetArgs {
    /// Torrent file, or its http(s) address, or a magnet link or info-hash
    pub(crate) source: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) bind: BindArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Torrent file, or its http(s) address
    pub(crate) torrent: PathBuf,
    /// Directory that holds the data, or the file itself
    #[arg(value_name = "DIR")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) bind: BindArgs,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How much to download, for example 64M or 1G
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = demo_size)]
    pub(crate) size: u64,
    /// How fast each of the three seeders sends, a second; 0: as fast as it goes
    #[arg(long, value_name = "SIZE", default_value = "24M", value_parser = demo_speed)]
    pub(crate) speed: u64,
    /// Keep what was made, and say where
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

/// `6881` or `6881-6999`.
fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("give a port, or two with a dash between, from 0 to 65535".to_owned()),
    }
}

/// `192.0.2.1:6881`, `[2001:db8::1]:6881`.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "give an IP address and a port, for example 192.0.2.1:6881 or [2001:db8::1]:6881".to_owned()
    })
}

/// `90`, `90s`, `5m`, `1h`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("give seconds from 1, or a number with s, m or h".to_owned()),
    }
}

/// The words of a command.
pub(crate) type Words = std::sync::Arc<[String]>;

fn command_words(text: &str) -> Result<Words, String> {
    on_complete::words(text).map(Words::from)
}

/// Numbers of files, from 1: ranges with both ends.
pub(crate) type Numbers = std::sync::Arc<[RangeInclusive<u32>]>;

/// URLs of trackers that stand for each other.
pub(crate) type Tier = std::sync::Arc<[String]>;

/// `URL` or `URL,URL`.
fn tracker_urls(text: &str) -> Result<Tier, String> {
    let url = |url: &str| match is_tracker_url(url.trim()) {
        true => Ok(url.trim().to_owned()),
        false => Err("it should begin with http://, https:// or udp://".to_owned()),
    };
    text.split(',').map(url).collect()
}

/// Whether it could be the address of a tracker.
pub(crate) fn is_tracker_url(text: &str) -> bool {
    let scheme = text.split_once("://").filter(|(_, rest)| !rest.is_empty()).map(|(scheme, _)| scheme);
    scheme
        .is_some_and(|scheme| ["http", "https", "udp"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}

/// `1,3-5`.
fn numbers(text: &str) -> Result<Numbers, String> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => Ok(first..=last),
            _ => Err("give numbers from 1 and ranges, for example 1,3-5".to_owned()),
        }
    };
    text.split(',').map(range).collect()
}

/// `500K`, `2M`, `1GiB`: bytes a second; `10Mbit`: bits a second, in powers of 1000.
fn speed(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let bytes = match lower.strip_suffix("bit") {
        None => size(text),
        Some(bits) => {
            let digits = bits.trim_end_matches(['k', 'm', 'g']);
            let unit = match &bits[digits.len()..] {
                "" => Some(1),
                "k" => Some(1_000),
                "m" => Some(1_000_000),
                "g" => Some(1_000_000_000),
                _ => None,
            };
            unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit)).map(|bits| bits / 8)
        }
    };
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "give a speed such as 500K, 2M, 1GiB or 10Mbit".to_owned())
}

/// `1`, `1.5`, `0.125`: in thousandths, exactly.
fn permille(text: &str) -> Result<u32, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(whole) && is_number(part) && part.len() <= 3)
        .then(|| format!("{whole}{part:0<3}").parse().ok())
        .flatten()
        .ok_or_else(|| "give a number such as 1 or 1.5, with three decimals at most".to_owned())
}

/// `16384`, `16K`, `16KiB`, `1M`: always powers of 1024.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn piece_size(text: &str) -> Result<u32, String> {
    let bytes = size(text).and_then(|bytes| u32::try_from(bytes).ok());
    bytes
        .filter(|bytes| bytes.is_power_of_two() && (1 << 14..=1 << 28).contains(bytes))
        .ok_or_else(|| "give a power of two from 16K to 256M".to_owned())
}

fn record_size(text: &str) -> Result<u64, String> {
    size(text)
        .filter(|bytes| *bytes >= 1 << 10)
        .ok_or_else(|| "give a size from 1K, for example 1G".to_owned())
}

fn demo_size(text: &str) -> Result<u64, String> {
    size(text)
        .filter(|bytes| (1 << 20..=1 << 35).contains(bytes))
        .ok_or_else(|| "give a size from 1M to 32G".to_owned())
}

fn demo_speed(text: &str) -> Result<u64, String> {
    size(text)
        .filter(|bytes| *bytes == 0 || *bytes >= 1 << 16)
        .ok_or_else(|| "give 0, or a size from 64K".to_owned())
}

const NETWORK: &str = "Network";
const LIMITS: &str = "Limits";
const MAKING: &str = "Making a torrent";

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn values_are_read_with_their_units() {
        assert_eq!(ports("6881"), Ok(6881..=6881));
        assert_eq!(ports("0-65535"), Ok(0..=65535));
        assert!(["", "-", "7-6", "65536", "a"].iter().all(|text| ports(text).is_err()));
        assert_eq!(
            ["90", "90s", "5m", "1h"].map(|text| seconds(text).map(|s| s.as_secs())),
            [Ok(90), Ok(90), Ok(300), Ok(3600)]
        );
        assert!(["0", "", "s", "5x", "-1"].iter().all(|text| seconds(text).is_err()));
        assert_eq!(
            ["16384", "16K", "1MiB", "256m"].map(piece_size),
            [Ok(1 << 14), Ok(1 << 14), Ok(1 << 20), Ok(1 << 28)]
        );
        assert!(
            ["1K", "48K", "1G", "x", "99999999999999999999G"].iter().all(|text| piece_size(text).is_err())
        );
    }

    #[test]
    fn arguments_fit_together() {
        command_line().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_of_the_environment() {
        fn walk(command: &Command, seen: &mut u32) {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let id = arg.get_id().as_str();
                if !matches!(id, "help" | "version") {
                    let name = arg.get_env().and_then(|name| name.to_str());
                    assert!(
                        name.is_some_and(|name| name.starts_with("TAIPEI_")),
                        "{}: {id}",
                        command.get_name()
                    );
                    *seen += 1;
                }
            }
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| walk(sub, seen));
        }
        let mut command = command_line();
        command.build();
        let mut seen = 0;
        walk(&command, &mut seen);
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn create_understands_the_names_that_other_makers_use() {
        let words = ["taipei-cli", "create", "x", "--announce", "http://t/a", "--piece-length", "1M"];
        let matches = command_line().try_get_matches_from(words).unwrap();
        let cli = Cli::from_arg_matches(&matches).unwrap();
        let CliCommand::Create(create) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!((create.tracker.len(), create.piece_size), (1, Some(1 << 20)));
    }

    #[test]
    fn speeds_ratios_and_file_numbers_are_read() {
        assert_eq!(
            ["500K", "2M", "1GiB", "10Mbit", "7"].map(speed),
            [Ok(512_000), Ok(2 << 20), Ok(1 << 30), Ok(1_250_000), Ok(7)]
        );
        assert!(["0", "", "bit", "1Tbit", "-1", "7bit"].iter().all(|text| speed(text).is_err()));
        assert_eq!(["1", "1.5", "0.125", "2.05"].map(permille), [Ok(1000), Ok(1500), Ok(125), Ok(2050)]);
        assert!(["", ".", "1.", "-1", "1.2345", "x", "99999999"].iter().all(|text| permille(text).is_err()));
        assert_eq!(numbers("1,3-5").as_deref(), Ok([1..=1, 3..=5].as_slice()));
        assert!(["", "0", "5-3", "1,", "a"].iter().all(|text| numbers(text).is_err()));
    }

    #[test]
    fn help_texts() {
        let mut cli = command_line().term_width(100).max_term_width(100);
        cli.build();
        let mut all = cli.render_long_help().to_string();
        for name in [
            "download",
            "seed",
            "create",
            "info",
            "magnet",
            "verify",
            "tracker",
            "scrape",
            "completions",
            "demo",
        ] {
            let command = cli.find_subcommand_mut(name).expect("it exists");
            all += &format!("\n==== {name}\n{}", command.clone().term_width(100).render_help());
        }
        insta::assert_snapshot!(all);
    }
}
