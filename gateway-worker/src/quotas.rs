//! What a deployment allows one request to ask for.

use crate::Settings;
use crate::wire::ApiError;
use model::{DocumentTest, Filter};

/// Errors: 422 "Quota exceeded: …" if a text or a regular expression that documents are looked through for is longer than
/// [`Settings::pattern_chars_max`]. `action`: what was asked for, as the message has it.
pub(crate) fn check_patterns(settings: &Settings, filter: &Filter, action: &str) -> Result<(), ApiError> {
    let Some(max) = settings.pattern_chars_max else { return Ok(()) };
    match longest_pattern(filter) {
        longest if longest > max => Err(ApiError::unprocessable(format!(
            "Quota exceeded: 'Full text search pattern length' exceeded quota limit for action '{action}': \
             current usage of {longest} exceeds limit of {max}"
        ))),
        _ => Ok(()),
    }
}

/// Characters of the longest pattern; 0 if there is none.
fn longest_pattern(filter: &Filter) -> usize {
    match filter {
        Filter::And(filters) | Filter::Or(filters) => filters.iter().map(longest_pattern).max().unwrap_or(0),
        Filter::Document(
            DocumentTest::Contains(pattern)
            | DocumentTest::NotContains(pattern)
            | DocumentTest::Regex(pattern)
            | DocumentTest::NotRegex(pattern),
        ) => pattern.chars().count(),
        Filter::Metadata { .. } => 0,
    }
}
