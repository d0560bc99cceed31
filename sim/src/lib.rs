//! Simulated worlds for `taipei-engine`.
