//! What lies between hosts, as pure machines: places and the time between them, what paths do to what passes, who is cut
//! off from whom, and boxes that translate addresses. They wait for nothing and know neither engine nor world.

pub mod cuts;
pub mod geography;
pub mod nat;
pub mod path;
