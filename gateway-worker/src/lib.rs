//! Chroma HTTP API v2 in front of log, catalog and executors.
