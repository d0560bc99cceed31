//! `taipei-cli dht get` and `put`: small values that the DHT keeps for two hours (BEP 44).

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Value, json};
use taipei_engine::dht::item::{Item, ItemName};
use taipei_engine::{Alert, Command, NodeId, bencode};
use taipei_net::Session;

use crate::output::{Exit, Failure, count, escape, print, print_json, tell};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// 40 hexadecimal digits: the hash of a value that cannot change; 64: the public key of who writes one that can
    #[arg(value_name = "HASH|KEY", value_parser = wanted)]
    name: ItemName,
    /// Which value of that writer
    #[arg(long, value_name = "TEXT")]
    salt: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// What is stored: text
    value: String,
    /// The value is bencoded already, and not text
    #[arg(long)]
    bencoded: bool,
    /// Let the value be changed later, by whoever has this secret key: a file with 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Which value of that writer
    #[arg(long, value_name = "TEXT", requires = "key")]
    salt: Option<String>,
    /// Its number [default: one more than is stored]
    #[arg(long, value_name = "N", requires = "key")]
    seq: Option<i64>,
    /// Only where this is the number stored now, or nothing is
    #[arg(long, value_name = "N", requires = "key")]
    cas: Option<i64>,
}

/// What is to be stored, before its number is known.
pub(crate) struct Draft {
    value: Vec<u8>,
    signed: Option<Signer>,
}

struct Signer {
    secret: [u8; 32],
    salt: Vec<u8>,
    sequence: Option<i64>,
    cas: Option<i64>,
}

impl GetArgs {
    /// What is asked for.
    ///
    /// # Errors
    /// When a hash comes with a salt, or the salt is too long.
    pub(crate) fn name(&self) -> Result<ItemName, Failure> {
        let Some(text) = &self.salt else { return Ok(self.name.clone()) };
        match self.name {
            ItemName::Immutable { .. } => Err(Failure::SaltOfHash),
            ItemName::Mutable { public_key, .. } => {
                let salt = text.clone().into_bytes();
                // Whatever is stored there has a salt that may be stored.
                Item::mutable(&[0; 32], salt.clone(), 0, b"le".to_vec())?;
                Ok(ItemName::Mutable { public_key, salt })
            }
        }
    }
}

impl PutArgs {
    /// What is to be stored, all of it judged.
    ///
    /// # Errors
    /// When the key cannot be read, or nobody would store the value.
    pub(crate) fn draft(&self) -> Result<Draft, Failure> {
        let value = match self.bencoded {
            true => self.value.clone().into_bytes(),
            false => bencode::encode(&bencode::Value::text(&self.value)),
        };
        let salt = self.salt.clone().unwrap_or_default().into_bytes();
        let signed = match &self.key {
            None => None,
            Some(path) => Some(Signer { secret: read_key(path)?, salt, sequence: self.seq, cas: self.cas }),
        };
        let draft = Draft { value, signed };
        draft.sign(0)?;
        Ok(draft)
    }
}

impl Draft {
    fn sign(&self, sequence: i64) -> Result<Item, Failure> {
        Ok(match &self.signed {
            None => Item::immutable(self.value.clone())?,
            Some(signer) => Item::mutable(&signer.secret, signer.salt.clone(), sequence, self.value.clone())?,
        })
    }
}

pub(crate) async fn get(as_json: bool, session: &mut Session, name: ItemName) -> Exit {
    let Some((item, asked)) = look_for(session, name.clone()).await else { return Exit::Failed };
    let is_found = item.is_some();
    if as_json {
        let mut said = describe(&name);
        said["asked"] = json!(asked);
        said["found"] = json!(is_found);
        if let Some(item) = item {
            said["value"] = json!(text_of(&item.value));
            said["bencoded"] = json!(HEXLOWER.encode(&item.value));
            said["seq"] = json!(item.sequence());
            said["signature"] = json!(item.signed.map(|signed| HEXLOWER.encode(&signed.signature)));
        }
        print_json(&said);
    } else {
        match item {
            Some(item) => {
                print(escape(&text_of(&item.value).unwrap_or_else(|| item.value.escape_ascii().to_string())));
                if let Some(sequence) = item.sequence() {
                    tell(format_args!("number {sequence}, signed as it should be"));
                }
            }
            None => tell(format_args!("{} asked, and none has such a value", count(asked.into(), "node"))),
        }
    }
    if is_found { Exit::Done } else { Exit::Failed }
}

pub(crate) async fn put(as_json: bool, session: &mut Session, draft: Draft) -> Result<Exit, Failure> {
    let (mut sequence, mut cas) = (0, None);
    if let Some(signer) = &draft.signed {
        (sequence, cas) = (signer.sequence.unwrap_or_default(), signer.cas);
        if signer.sequence.is_none() {
            let name = ItemName::of(&draft.sign(0)?);
            let stored = look_for(session, name).await.and_then(|(item, _)| item?.sequence());
            sequence = stored.map_or(1, |stored| stored.saturating_add(1));
            // Who writes at the same time is not overwritten.
            cas = cas.or(stored);
        }
    }
    let item = draft.sign(sequence)?;
    let name = ItemName::of(&item);
    let _ = session.handle.command(Command::DhtPut { item: Box::new(item), cas }).await;
    while let Some(alert) = session.alerts.next().await {
        let Alert::DhtStored { nodes, refused, newer, asked, .. } = alert else { continue };
        let newer = newer.and_then(|item| item.sequence());
        if as_json {
            let mut said = describe(&name);
            said["seq"] = json!(draft.signed.is_some().then_some(sequence));
            said["asked"] = json!(asked);
            said["stored"] = json!(nodes);
            said["refused"] = json!(refused);
            said["newer"] = json!(newer);
            print_json(&said);
        } else if nodes > 0 {
            print(match &name {
                ItemName::Immutable { target } => target.to_string(),
                ItemName::Mutable { public_key, .. } => HEXLOWER.encode(public_key),
            });
            tell(format_args!("stored by {} of {asked} asked", count(nodes.into(), "node")));
        } else {
            tell(format_args!("error: {}", reason(refused, newer, asked)));
        }
        return Ok(if nodes > 0 { Exit::Done } else { Exit::Failed });
    }
    Ok(Exit::Failed)
}

async fn look_for(session: &mut Session, name: ItemName) -> Option<(Option<Item>, u32)> {
    let _ = session.handle.command(Command::DhtGet { name }).await;
    while let Some(alert) = session.alerts.next().await {
        if let Alert::DhtGot { item, asked, .. } = alert {
            return Some((item.map(|item| *item), asked));
        }
    }
    None
}

/// Why nobody stored it.
fn reason(refused: Option<i64>, newer: Option<i64>, asked: u32) -> String {
    match (newer, refused) {
        (Some(number), _) => format!("number {number} is stored already: give a higher one with --seq"),
        (None, Some(301)) => {
            "the number stored now is another than --cas says, or changed meanwhile".to_owned()
        }
        (None, Some(302)) => "another value is stored under this number, or a higher one".to_owned(),
        (None, Some(code)) => format!("refused with code {code}"),
        (None, None) => format!("{} asked, and none stored it", count(asked.into(), "node")),
    }
}

fn describe(name: &ItemName) -> Value {
    let target = name.target().to_string();
    match name {
        ItemName::Immutable { .. } => json!({ "target": target }),
        ItemName::Mutable { public_key, salt } => json!({
            "target": target,
            "public_key": HEXLOWER.encode(public_key),
            "salt": String::from_utf8_lossy(salt),
        }),
    }
}

/// Of a value that is a string and text, that.
fn text_of(value: &[u8]) -> Option<String> {
    bencode::parse(value).ok()?.as_str().map(str::to_owned)
}

fn read_key(path: &Path) -> Result<[u8; 32], Failure> {
    let file = fs::read(path).map_err(|error| Failure::File { path: path.to_owned(), error })?;
    let bytes = HEXLOWER_PERMISSIVE.decode(file.trim_ascii()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Failure::Key(path.to_owned()))
}

fn wanted(text: &str) -> Result<ItemName, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
    if let Ok(target) = bytes.as_slice().try_into() {
        return Ok(ItemName::Immutable { target: NodeId(target) });
    }
    let key = bytes.as_slice().try_into().ok();
    key.map(|public_key| ItemName::Mutable { public_key, salt: Vec::new() })
        .ok_or_else(|| "give 40 hexadecimal digits of a hash, or 64 of a public key".to_owned())
}
