//! Starts and stops the local stack: devstore, sqld, workerd.
