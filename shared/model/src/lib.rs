//! The values of Opal: ids, records, metadata, filters, keys and limits.
