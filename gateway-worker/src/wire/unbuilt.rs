//! Bodies of search and fork, which this server does not have yet: what is malformed is told so first, as everywhere.

use super::{ApiError, body, where_clause};
use model::Filter;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct SearchBody {
    searches: Vec<Payload>,
}

#[derive(Deserialize)]
struct Payload {
    filter: Option<Value>,
    #[serde(default, rename = "limit")]
    _limit: Limit,
    #[serde(default, rename = "select")]
    _select: Select,
}

#[derive(Default, Deserialize)]
struct Limit {
    #[serde(rename = "limit")]
    _limit: Option<u32>,
    #[serde(default, rename = "offset")]
    _offset: u32,
}

#[derive(Default, Deserialize)]
struct Select {
    #[serde(default, rename = "keys")]
    _keys: Vec<String>,
}

/// The filters of a search, whose ranks and groups are not looked at. Errors: as [`body::parse`]; 422 (not 400) for
/// filters.
pub fn search(content_type: Option<&str>, body: &[u8]) -> Result<Vec<Filter>, ApiError> {
    let request: SearchBody = body::parse_values(content_type, body)?;
    let filters = request.searches.iter().filter_map(|payload| payload.filter.as_ref());
    // Here an empty object is no filter.
    let filters = filters.filter(|filter| filter.as_object().is_none_or(|members| !members.is_empty()));
    let parsed = filters.filter_map(|filter| where_clause::parse(Some(filter), None).transpose());
    parsed.collect::<Result<_, _>>().map_err(|error| {
        let why = format!("Failed to deserialize the JSON body into the target type: filter: {}", error.message);
        ApiError::unprocessable(why)
    })
}

/// Checks a fork. Errors: as [`body::parse`].
pub fn fork(content_type: Option<&str>, body: &[u8]) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct ForkBody {
        #[serde(rename = "new_name")]
        _new_name: String,
    }
    body::parse_values(content_type, body).map(|ForkBody { .. }| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expect: u16) {
        let got = search(None, body.as_bytes()).map_or_else(|error| error.status.as_u16(), |_| 200);
        assert_eq!(got, expect, "{body}");
    }

    #[test]
    fn a_search_is_read_before_it_is_refused() {
        for payload in ["{}", r#"{"filter":null}"#, r#"{"filter":{}}"#, r#"{"filter":{"k":1},"rank":{"$val":1}}"#] {
            check(&format!(r#"{{"searches":[{payload}]}}"#), 200);
        }
        check(r#"{"searches":[{"limit":{"limit":0,"offset":3},"select":{"keys":["k"]},"other":1}]}"#, 200);
        check(r#"{"searches":[]}"#, 200);
        check("{}", 422);
        for payload in [
            r#"{"filter":{"k":{"$bad":1}}}"#,
            r#"{"filter":5}"#,
            r#"{"limit":null}"#,
            r#"{"limit":{"limit":-1}}"#,
            r#"{"select":null}"#,
            "5",
        ] {
            check(&format!(r#"{{"searches":[{payload}]}}"#), 422);
        }
        check(r#"{"searches":["#, 400);
    }

    #[test]
    fn a_fork_needs_a_name_of_whatever_form() {
        assert_eq!(fork(None, br#"{"new_name":"a b"}"#), Ok(()));
        assert_eq!(fork(None, b"{}").map_err(|error| error.status.as_u16()), Err(422));
    }
}
