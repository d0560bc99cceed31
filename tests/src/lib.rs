//! Helpers of the tests that see all of taipei.
