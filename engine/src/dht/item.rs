//! Items that anybody may store in the DHT (BEP 44): their names, what is signed of them, and whether they hold.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use crate::bencode;
use crate::limits::{DHT_ITEM_BYTES_MAX, DHT_SALT_BYTES_MAX};
use crate::node_id::NodeId;
pub use crate::wire::krpc::{Item, Signed};

/// What an item is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ItemName {
    /// By the hash of its value, which therefore never changes.
    Immutable {
        /// SHA-1 of the bencoded value.
        target: NodeId,
    },
    /// By who writes it.
    Mutable {
        /// Of the writer, ed25519.
        public_key: [u8; 32],
        /// Tells items of one writer apart; 64 bytes at most, often none.
        salt: Vec<u8>,
    },
}

/// Why there can be no such item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The value is no bencode.
    #[error("the value is not bencoded")]
    NotBencoded,
    /// The value is too long.
    #[error("the value has {0} bytes, and at most {DHT_ITEM_BYTES_MAX} can be stored")]
    TooLarge(usize),
    /// The salt is too long.
    #[error("the salt has {0} bytes, and at most {DHT_SALT_BYTES_MAX} are allowed")]
    SaltTooLarge(usize),
}

impl ItemName {
    /// Of an item; of a mutable one that is asked for and not an answer, which lacks the salt.
    pub fn of(item: &Item) -> Self {
        match &item.signed {
            None => Self::Immutable { target: NodeId(Sha1::digest(&item.value).into()) },
            Some(signed) => Self::Mutable { public_key: signed.public_key, salt: signed.salt.clone() },
        }
    }

    /// The point of the DHT near which it is stored.
    pub fn target(&self) -> NodeId {
        match self {
            Self::Immutable { target } => *target,
            Self::Mutable { public_key, salt } => {
                NodeId(Sha1::new().chain_update(public_key).chain_update(salt).finalize().into())
            }
        }
    }

    /// Whether this is an item of that name: the hash fits, or the signature does. What it says of its salt does not count.
    pub fn is_of(&self, item: &Item) -> bool {
        match (self, &item.signed) {
            (Self::Immutable { target }, None) => NodeId(Sha1::digest(&item.value).into()) == *target,
            (Self::Mutable { public_key, salt }, Some(signed)) => {
                let text = signed_text(salt, signed.sequence, &item.value);
                let signature = Signature::from_bytes(&signed.signature);
                let key = VerifyingKey::from_bytes(public_key);
                signed.public_key == *public_key
                    && key.is_ok_and(|key| key.verify_strict(&text, &signature).is_ok())
            }
            _ => false,
        }
    }
}

impl Item {
    /// One that never changes, of a bencoded value.
    ///
    /// # Errors
    /// When nobody would store it.
    pub fn immutable(value: Vec<u8>) -> Result<Self, ItemError> {
        judge(&value, &[])?;
        Ok(Self { value, signed: None })
    }

    /// One that only the holder of the secret key can change, of a bencoded value. `secret`: the 32 bytes (a *seed*) that
    /// an ed25519 key is made of.
    ///
    /// # Errors
    /// When nobody would store it.
    pub fn mutable(
        secret: &[u8; 32],
        salt: Vec<u8>,
        sequence: i64,
        value: Vec<u8>,
    ) -> Result<Self, ItemError> {
        judge(&value, &salt)?;
        let key = SigningKey::from_bytes(secret);
        let signature = key.sign(&signed_text(&salt, sequence, &value)).to_bytes();
        let signed = Signed { public_key: key.verifying_key().to_bytes(), salt, sequence, signature };
        Ok(Self { value, signed: Some(signed) })
    }
}

/// The public key of a secret one.
pub fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

fn judge(value: &[u8], salt: &[u8]) -> Result<(), ItemError> {
    if value.len() > DHT_ITEM_BYTES_MAX {
        return Err(ItemError::TooLarge(value.len()));
    }
    if salt.len() > DHT_SALT_BYTES_MAX {
        return Err(ItemError::SaltTooLarge(salt.len()));
    }
    match bencode::parse_prefix(value) {
        Ok((_, end)) if end == value.len() => Ok(()),
        _ => Err(ItemError::NotBencoded),
    }
}

/// What the signature is over: a bencoded dictionary without its frame.
fn signed_text(salt: &[u8], sequence: i64, value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len() + salt.len() + 48);
    if !salt.is_empty() {
        text.extend(format!("4:salt{}:", salt.len()).bytes());
        text.extend(salt);
    }
    text.extend(format!("3:seqi{sequence}e1:v").bytes());
    text.extend(value);
    text
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn bytes<const N: usize>(entry: &toml::Value, key: &str) -> [u8; N] {
        HEXLOWER.decode(entry[key].as_str().unwrap().as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_items_of_bep_44_and_46_have_their_names_and_hold() {
        let vectors = include_str!("../../../tests/fixtures/torrents/vectors/bep44-items.toml");
        let table: toml::Table = vectors.parse().unwrap();
        let text = |entry: &toml::Value, key: &str| {
            entry.get(key).map_or_else(Vec::new, |text| text.as_str().unwrap().as_bytes().to_vec())
        };
        for entry in table["mutable"].as_array().unwrap() {
            let (value, salt) = (text(entry, "value"), text(entry, "salt"));
            let sequence = entry["seq"].as_integer().unwrap();
            assert_eq!(signed_text(&salt, sequence, &value), text(entry, "signed"));
            let (public_key, signature) = (bytes(entry, "public_key"), bytes(entry, "signature"));
            let item = Item { value, signed: Some(Signed { public_key, salt, sequence, signature }) };
            let name = ItemName::of(&item);
            assert_eq!(name.target(), NodeId(bytes(entry, "target")));
            assert!(name.is_of(&item));
        }
        for entry in table["immutable"].as_array().unwrap() {
            let item = Item::immutable(text(entry, "value")).unwrap();
            assert_eq!(ItemName::of(&item), ItemName::Immutable { target: NodeId(bytes(entry, "target")) });
        }
        for entry in table["bep46"].as_array().unwrap() {
            let salt = HEXLOWER.decode(&text(entry, "salt_hex")).unwrap();
            let name = ItemName::Mutable { public_key: bytes(entry, "public_key"), salt };
            assert_eq!(name.target(), NodeId(bytes(entry, "target")));
        }
    }

    #[test]
    fn an_item_that_was_changed_on_the_way_does_not_hold() {
        let good = Item::mutable(&[7; 32], b"salt".to_vec(), 3, b"i5e".to_vec()).unwrap();
        let name = ItemName::of(&good);
        let changed = |change: fn(&mut Item, &mut Signed)| {
            let (mut item, mut signed) = (good.clone(), good.signed.clone().unwrap());
            change(&mut item, &mut signed);
            name.is_of(&Item { signed: Some(signed), ..item })
        };
        assert!(changed(|_, _| {}) && changed(|_, signed| signed.salt.clear()), "answers have no salt");
        assert!(!changed(|item, _| item.value = b"i6e".to_vec()));
        assert!(!changed(|_, signed| signed.sequence = 4));
        assert!(!changed(|_, signed| signed.signature[0] ^= 1));
        assert!(!changed(|_, signed| signed.public_key = public_key(&[8; 32])));
        assert!(!name.is_of(&Item { signed: None, ..good.clone() }));
        let other_salt = ItemName::Mutable { public_key: public_key(&[7; 32]), salt: b"other".to_vec() };
        assert!(!other_salt.is_of(&good));
        let fixed = Item::immutable(b"i5e".to_vec()).unwrap();
        assert!(ItemName::of(&fixed).is_of(&fixed));
        assert!(!ItemName::of(&fixed).is_of(&Item { value: b"i6e".to_vec(), signed: None }));
        assert!(!ItemName::of(&fixed).is_of(&Item { value: b"i5e".to_vec(), ..good }));
    }

    #[test]
    fn what_nobody_would_store_is_refused_before_it_is_sent() {
        let text = |length: usize| format!("{length}:{}", "x".repeat(length)).into_bytes();
        assert!(Item::immutable(text(996)).is_ok());
        assert_eq!(Item::immutable(text(997)), Err(ItemError::TooLarge(1001)));
        for wrong in ["", "i5", "i5ei6e", "i5e ", "hello"] {
            assert_eq!(Item::immutable(wrong.into()), Err(ItemError::NotBencoded), "{wrong:?}");
        }
        let salted = |length| Item::mutable(&[7; 32], vec![1; length], 1, b"i5e".to_vec());
        assert!(salted(64).is_ok());
        assert_eq!(salted(65), Err(ItemError::SaltTooLarge(65)));
    }
}
