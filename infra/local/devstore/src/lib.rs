//! S3 for the local stack: one file per object, atomic conditional puts.
