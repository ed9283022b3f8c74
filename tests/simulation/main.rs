//! Gateways, executors, compactors and garbage collection, as they are, in a simulated world: whatever store, catalog,
//! network and machines do to them, no acknowledged write may be lost or doubled, no answer may differ from what the log
//! says, nothing that is named may be missing, and in the end nothing may be left that nobody names.
//!
//! One number decides everything that happens in a world. `cargo xtask sim --seeds 0..1000` looks at worlds of your
//! choice, `--seed 7` lives through one again and says what happened there. In reading order: `world`, who lives there;
//! `housekeeping`, who compacts and collects; `client`, what is asked; `ledger` and `history`, what really happened and what clients were told; `check`, whether the
//! two go together; `catalog`, the catalog behind a network; `tests`, what must never be seen, and what must be seen as
//! soon as a safeguard is left out.

mod catalog;
mod check;
mod client;
mod history;
mod housekeeping;
mod ledger;
mod tests;
mod world;
