//! The floors of the house: which crate may see which, and what never comes into the engine's tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What each crate may see of ours. Nothing sees `taipei-tests`.
const ARROWS: &[(&str, &[&str])] = &[
    ("taipei-engine", &[]),
    ("taipei-net", &["taipei-engine"]),
    ("taipei-sim", &["taipei-engine"]),
    ("taipei-cli", &["taipei-engine", "taipei-net"]),
    ("taipei-tests", &["taipei-engine", "taipei-net", "taipei-sim", "taipei-cli"]),
];

/// A dependency and the only crates that may name it.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("turmoil", &["taipei-sim"]),
    ("igd", &["taipei-net"]),
    ("igd-next", &["taipei-net"]),
    ("rustls", &["taipei-net"]),
    ("tokio-rustls", &["taipei-net"]),
    ("socket2", &["taipei-net"]),
    ("rustix", &["taipei-net"]),
    ("if-addrs", &["taipei-net"]),
    ("clap", &["taipei-cli", "taipei-sim"]),
    ("bendy", &["taipei-engine"]),
];

/// Dependencies for tests alone.
const DEV_ONLY: &[&str] = &["insta", "proptest", "criterion"];

/// Features of tokio that reach the world; the engine's driver has doors for that.
const WORLDLY: &[&str] = &["full", "net", "fs", "time", "process", "signal", "rt-multi-thread", "io-std"];

/// What a machine without a world has no use for: runtimes, sockets, threads, clocks, randomness of the system.
const NEVER_IN_ENGINE: &[&str] = &[
    "tokio",
    "tokio-util",
    "async-std",
    "smol",
    "futures",
    "futures-executor",
    "hyper",
    "hyper-util",
    "reqwest",
    "mio",
    "polling",
    "socket2",
    "rustix",
    "nix",
    "rayon",
    "crossbeam-channel",
    "crossbeam-utils",
    "parking_lot",
    "dashmap",
    "rand",
    "getrandom",
    "fastrand",
    "ahash",
    "uuid",
    "chrono",
    "time",
    "jiff",
    "turmoil",
    "clap",
    "igd",
    "igd-next",
    "rustls",
    "ring",
    "memmap2",
];

#[test]
fn arrows_point_down() {
    let allowed = BTreeMap::from_iter(ARROWS.iter().copied());
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, allowed.keys().copied().collect(), "the crates of the workspace");
    for package in &packages {
        for dependency in &package.dependencies {
            // A crate may name itself to give its tests more features.
            if dependency.name.starts_with("taipei-") && dependency.name != package.name {
                assert!(
                    allowed[package.name.as_str()].contains(&dependency.name.as_str()),
                    "{} must not see {}",
                    package.name,
                    dependency.name
                );
            }
        }
    }
}

#[test]
fn each_door_to_the_world_is_in_one_crate() {
    let packages = packages();
    for (dependency, owners) in ONLY_IN {
        for package in packages.iter().filter(|package| package.depends_on(dependency)) {
            assert!(owners.contains(&package.name.as_str()), "{} must not name {dependency}", package.name);
        }
    }
}

#[test]
fn test_tools_are_in_dev_dependencies_alone() {
    for package in packages() {
        for dependency in &package.dependencies {
            assert!(
                !DEV_ONLY.contains(&dependency.name.as_str()) || dependency.kind == "dev",
                "{} names {} outside dev-dependencies",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn real_sockets_are_in_net_alone() {
    for package in packages() {
        let features = package.features_of("tokio");
        if package.name != "taipei-net" {
            assert!(
                !features.contains("net") && !features.contains("full"),
                "{} has tokio's sockets",
                package.name
            );
        }
        if package.name == "taipei-engine" {
            for feature in WORLDLY {
                assert!(!features.contains(*feature), "the engine's driver has tokio's {feature}");
            }
        }
    }
}

#[test]
fn engine_without_driver_has_no_world_in_its_tree() {
    let tree = tree_of_engine(&["--no-default-features"]);
    assert!(tree.contains("bendy") && tree.contains("sha1"), "the tree was not understood: {tree:?}");
    for banned in NEVER_IN_ENGINE {
        assert!(!tree.contains(*banned), "{banned} is in the engine's tree without its driver");
    }
}

/// The test above would pass on an empty tree or a wrong flag: with the driver, tokio must be seen.
#[test]
fn engine_with_driver_has_tokio_in_its_tree() {
    assert!(tree_of_engine(&[]).contains("tokio"));
}

/// A file that others cut while it is mapped ends the process (`reliability.md` E2), and what is not checked wraps (A7).
#[test]
fn nothing_maps_files_into_memory_and_arithmetic_is_checked_in_release() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("a file of the workspace");
    let locked = read("Cargo.lock");
    for mapper in ["memmap", "memmap2", "mmap-rs", "vmap", "mmap"] {
        assert!(!locked.contains(&format!("name = \"{mapper}\"")), "{mapper} is in the tree");
    }
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).expect("TOML");
    let checks = &manifest["profile"]["release"]["overflow-checks"];
    assert_eq!(checks.as_bool(), Some(true));
}

struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    /// `normal`, `dev` or `build`.
    kind: String,
    features: BTreeSet<String>,
}

impl Package {
    fn depends_on(&self, name: &str) -> bool {
        self.dependencies.iter().any(|dependency| dependency.name == name)
    }

    fn features_of(&self, name: &str) -> BTreeSet<String> {
        let named =
            self.dependencies.iter().filter(|dependency| dependency.name == name && dependency.kind != "dev");
        named.flat_map(|dependency| dependency.features.iter().cloned()).collect()
    }
}

/// The crates of the workspace as their manifests have them.
fn packages() -> Vec<Package> {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&text).expect("cargo metadata prints JSON");
    let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: text_of(&package["name"]),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency {
                    name: text_of(&dependency["name"]),
                    kind: dependency["kind"].as_str().unwrap_or("normal").to_owned(),
                    features: list(&dependency["features"]).iter().map(text_of).collect(),
                })
                .collect(),
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Names of all that is compiled for the engine, features resolved as if it were built alone.
fn tree_of_engine(flags: &[&str]) -> BTreeSet<String> {
    let always = [
        "tree",
        "--locked",
        "-p",
        "taipei-engine",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    cargo(&[&always[..], flags].concat())
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// What cargo prints when run in the workspace.
fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(program).args(arguments).current_dir(root).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}
