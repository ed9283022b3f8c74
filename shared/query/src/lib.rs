//! Reads as values: what the gateway asks an executor ([`plan`]), and how it is answered over rows in memory:
//! [`eval`] filters, [`kernel`] measures, [`top_k`] ranks, [`overlay`] lays the log over what is stored.
//!
//! It knows `model` only: no async, no clock, no randomness, no store.

pub mod eval;
pub mod kernel;
pub mod overlay;
pub mod plan;
pub mod top_k;

pub use eval::{CompiledFilter, FilterError, Fields};
pub use overlay::Overlay;
pub use plan::{Answer, Hit, Include, PlanError, QueryPlan, Read, Source};
pub use top_k::TopK;
