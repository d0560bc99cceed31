//! `scenario` and `trace`: what is otherwise inside, written out.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use taipei_sim::plan::settle;
use taipei_sim::trace::TraceFile;

use super::RunOf;

#[derive(Args)]
pub(crate) struct ScenarioArgs {
    #[command(flatten)]
    run: RunOf,
}

pub(crate) fn scenario(args: &ScenarioArgs) -> Result<u8, String> {
    let (seed, materials, _) = args.run.load_one()?;
    print!("{}", settle(&materials.scenario, seed).to_toml());
    Ok(0)
}

#[derive(Args)]
pub(crate) struct TraceArgs {
    /// What `run --trace` wrote
    file: PathBuf,
}

pub(crate) fn trace(args: &TraceArgs) -> Result<u8, String> {
    let shown = args.file.display();
    let bytes = std::fs::read(&args.file).map_err(|error| format!("{shown}: {error}"))?;
    let file = TraceFile::parse(&bytes).ok_or_else(|| format!("{shown}: not a trace file"))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for event in &file.events {
        let host = (event.host as usize).checked_sub(1).and_then(|host| file.hosts.get(host));
        let line = json!({
            "at_ns": event.at,
            "host": host.map_or("", String::as_str),
            "kind": format!("{:?}", event.kind).to_lowercase(),
            "fields": event.fields,
        });
        match writeln!(out, "{line}") {
            Ok(()) => {}
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => return Err(error.to_string()),
        }
    }
    out.flush().map_err(|error| error.to_string()).map(|()| 0)
}
