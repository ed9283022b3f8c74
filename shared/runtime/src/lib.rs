//! Ports for time, randomness and outgoing HTTP.
