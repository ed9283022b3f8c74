//! Plans and their evaluation: filters, distances, ranking, log overlay.
