//! Runs the port contracts and kernel comparisons inside workerd.
