//! Runs query plans over segments and log.
