//! The resume journal and snapshot, as bytes.
