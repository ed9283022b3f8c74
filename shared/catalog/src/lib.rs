//! The catalog port: tenants, databases, collections.
