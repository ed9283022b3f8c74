//! Request bodies and query strings: bytes to typed values, or the status that says why not.

use super::ApiError;
use crate::reads::ReadOptions;
use catalog::Page;
use model::bounded::{self, NoRoom};
use model::limits;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::str::FromStr;

#[cfg(test)]
mod tests;

/// 413 if a body of `bytes` bytes, sent to `path`, is too large. Ask before reading it, by its declared length, and
/// again afterwards.
pub fn check_size(bytes: usize, path: &str) -> Result<(), ApiError> {
    if bytes <= limits::BODY_BYTES_MAX { Ok(()) } else { Err(ApiError::too_large(path)) }
}

/// Reads a JSON body.
///
/// Errors: 415 for a content type that is not JSON (none at all is taken for JSON), 400 for what is not JSON (nesting
/// beyond the parser's 128 included), 422 for JSON of another shape than `T`, 413 for what takes more memory than there
/// is. Messages name the place in the body.
pub fn parse<T: DeserializeOwned>(content_type: Option<&str>, body: &[u8]) -> Result<T, ApiError> {
    if !content_type.is_none_or(is_json) {
        return Err(ApiError::unsupported_media());
    }
    if body.len() > LONG_TEXT_BYTES {
        // The parser unescapes a text in a buffer that doubles, and does not ask.
        bounded::check_room_for(4 * longest_escaped(body)).map_err(|_| ApiError::out_of_memory())?;
    }
    serde_json::from_slice(body).map_err(|error| match error.to_string().contains(NoRoom::TEXT) {
        true => ApiError::out_of_memory(),
        false => refusal::<T>(body, error),
    })
}

/// In bodies up to this length, in bytes, no text is too long.
const LONG_TEXT_BYTES: usize = 4 << 20;

/// Length in bytes of the longest text in `body` that has escapes, in a body that is JSON.
fn longest_escaped(body: &[u8]) -> usize {
    let (mut longest, mut start, mut escaped) = (0, None, false);
    let mut bytes = body.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (byte, start) {
            (b'"', None) => (start, escaped) = (Some(at), false),
            (b'"', Some(from)) => {
                longest = if escaped { longest.max(at - from) } else { longest };
                start = None;
            }
            (b'\\', Some(_)) => {
                escaped = true;
                bytes.next();
            }
            _ => {}
        }
    }
    // A text that does not end is read to the end of the body.
    start.map_or(longest, |from| longest.max(body.len() - from))
}

/// As [`parse`], for a body with members of any shape: filters, configurations. JSON's own types do not ask before they
/// grow, so there must be memory for the worst case first (else 413).
pub fn parse_values<T: DeserializeOwned>(content_type: Option<&str>, body: &[u8]) -> Result<T, ApiError> {
    /// A map of one entry, and the clause that is made of it.
    const OBJECT_BYTES: usize = 512;
    /// A value in a list that has just grown, and the operand that is made of it.
    const VALUE_BYTES: usize = 96;
    let count = |byte: u8| body.iter().filter(|b| **b == byte).count();
    let bytes = count(b'{').saturating_mul(OBJECT_BYTES).saturating_add(count(b',').saturating_mul(VALUE_BYTES));
    bounded::check_room_for(bytes).map_err(|_| ApiError::out_of_memory())?;
    parse(content_type, body)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Only a body that was refused is read again, to find where: good ones do not pay for the search.
fn refusal<T: DeserializeOwned>(body: &[u8], error: serde_json::Error) -> ApiError {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let message = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(located) => located.to_string(),
        Ok(_) => error.to_string(), // whole, but something follows it
    };
    match error.classify() {
        Category::Data => {
            ApiError::unprocessable(format!("Failed to deserialize the JSON body into the target type: {message}"))
        }
        Category::Syntax | Category::Eof | Category::Io => {
            ApiError::invalid_argument(format!("Failed to parse the request body as JSON: {message}"))
        }
    }
}

/// `limit` and `offset` of a listing.
///
/// - `query`: what follows the `?`, undecoded; other parameters are ignored.
///
/// Errors: 400 if one is given twice or is not a number of 32 bits.
pub fn page(query: Option<&str>) -> Result<Page, ApiError> {
    let (limit, offset) = (parameter::<u32>(query, "limit")?, parameter::<u32>(query, "offset")?);
    Ok(Page { limit: limit.map(u64::from), offset: offset.map_or(0, u64::from) })
}

/// `read_level`, which Chroma knows of a count, and `explain` of the query string; 400 if they are none.
pub fn read_options(query: Option<&str>) -> Result<ReadOptions, ApiError> {
    let level = parameter(query, "read_level")?.unwrap_or_default();
    Ok(ReadOptions { level, explain: parameter(query, "explain")?.unwrap_or_default() })
}

fn parameter<T: FromStr>(query: Option<&str>, name: &str) -> Result<Option<T>, ApiError>
where
    T::Err: std::fmt::Display,
{
    let refuse = |why: String| ApiError::invalid_argument(format!("Failed to deserialize query string: {why}"));
    let mut values = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).filter(|(key, _)| key == name);
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse(format!("duplicate field `{name}`")));
    }
    value.parse().map(Some).map_err(|error| refuse(format!("{name}: {error}")))
}
