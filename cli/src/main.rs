//! taipei on the command line.

fn main() {}
