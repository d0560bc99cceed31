//! The real world for `taipei-engine`.
