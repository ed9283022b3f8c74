//! The object store port, its adapters, its decorators and its contract.
