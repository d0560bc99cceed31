//! `taipei-cli magnet`: the link of a torrent file, or what a link says.

use serde_json::json;
use taipei_engine::metainfo::Magnet;

use crate::args::MagnetArgs;
use crate::info;
use crate::output::{Exit, escape, fail, magnet, print, print_json, read_any_torrent};

/// Prints it.
pub(crate) fn run(args: &MagnetArgs) -> Exit {
    if let Some(given) = magnet(&args.source) {
        return match given {
            Ok(magnet) => info::show_link(&magnet, args.json),
            Err(failure) => fail(&failure, args.json),
        };
    }
    match read_any_torrent(&args.source, &args.bind) {
        Err(failure) => return fail(&failure, args.json),
        Ok((_, metainfo)) => {
            let link = Magnet::from(&metainfo).to_string();
            if args.json {
                print_json(&json!({ "name": metainfo.name, "magnet": link }));
            } else {
                print(escape(&link));
            }
        }
    }
    Exit::Done
}
