//! What is JSON, what is JSON of another shape, and which status says so.

use super::*;
use query::ReadLevel;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Body {
    name: String,
    #[serde(default)]
    rows: Vec<Vec<f32>>,
}

/// `expect` is the status and how the message begins.
#[track_caller]
fn check(body: &[u8], status: u16, expect: &str) {
    let error = parse::<Body>(None, body).expect_err("a body that is refused");
    assert_eq!(error.status.as_u16(), status, "{error:?}");
    assert!(error.message.starts_with(expect), "{error:?}");
}

#[test]
fn what_is_not_json_is_400() {
    check(b"", 400, "Failed to parse the request body as JSON: EOF while parsing a value at line 1 column 0");
    check(b"{", 400, "Failed to parse the request body as JSON: EOF while parsing an object at line 1 column 1");
    check(b"{\"name\":NaN}", 400, "Failed to parse the request body as JSON: name: expected value at line 1 column 9");
    check(
        b"{\"name\":\"a\"} x",
        400,
        "Failed to parse the request body as JSON: trailing characters at line 1 column 14",
    );
    check(b"{\"name\":\"\xff\"}", 400, "Failed to parse the request body as JSON: name: invalid unicode code point");
    check(b"\x1f\x8b\x08gzip", 400, "Failed to parse the request body as JSON: ");
    check(
        br#"{"name":"a","rows":[[1e999]]}"#,
        400,
        "Failed to parse the request body as JSON: rows[0][0]: number out of range",
    );
}

#[test]
fn json_of_another_shape_is_422() {
    let type_error = "Failed to deserialize the JSON body into the target type: ";
    check(b"{}", 422, &format!("{type_error}missing field `name` at line 1 column 2"));
    check(b"{\"name\":1}", 422, &format!("{type_error}name: invalid type: integer `1`, expected a string"));
    check(b"{\"name\":\"a\",\"name\":\"b\"}", 422, &format!("{type_error}duplicate field `name`"));
    check(br#"{"name":"a","rows":[[1],["x"]]}"#, 422, &format!("{type_error}rows[1][0]: invalid type: string"));
    check(b"null", 422, type_error);
    check(b"[]", 422, type_error);
}

#[test]
fn deep_nesting_is_refused_or_skipped_without_harm() {
    let nest = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    check(nest("[", "]").as_bytes(), 422, "Failed to deserialize");
    check(format!("{{\"rows\":{}}}", nest("[", "]")).as_bytes(), 422, "Failed to deserialize");
    let deep = parse::<serde_json::Value>(None, nest("{\"a\":", "}").as_bytes()).expect_err("too deep");
    assert_eq!(deep.status, 400);
    let ignored = format!("{{\"name\":\"a\",\"other\":{}}}", nest("[", "]"));
    let body = parse::<Body>(None, ignored.as_bytes()).expect("members that nobody reads are skipped");
    assert_eq!((body.name.as_str(), body.rows.len()), ("a", 0));
}

#[test]
fn the_longest_text_with_escapes_is_found() {
    for (body, expect) in [
        (r#"{"a":"plain","b":1}"#, 0),
        (r#"{"a":"x\ny","bcdefghijk":"z\""}"#, 5),
        (r#"["\\","\"\"\"",",,,,,,,,,,,,"]"#, 7),
        (r#"["does not end"#, 13),
    ] {
        assert_eq!(longest_escaped(body.as_bytes()), expect, "{body}");
    }
}

#[test]
fn only_json_content_types_are_read() {
    for good in
        [None, Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("application/vnd.api+json")]
    {
        assert!(parse::<Body>(good, b"{\"name\":\"a\"}").is_ok(), "{good:?}");
    }
    for bad in ["text/plain", "text/json", "application/jsonp", "", "application/x-www-form-urlencoded"] {
        assert_eq!(
            parse::<Body>(Some(bad), b"{\"name\":\"a\"}").expect_err("415"),
            ApiError::unsupported_media(),
            "{bad}"
        );
    }
}

#[test]
fn bodies_end_at_40_mib() {
    assert_eq!(check_size(limits::BODY_BYTES_MAX, "/api/v2/tenants"), Ok(()));
    for path in ["/api/v2/tenants", "/c/add"] {
        assert_eq!(check_size(limits::BODY_BYTES_MAX + 1, path), Err(ApiError::too_large(path)));
    }
}

#[track_caller]
fn check_page(query: &str, expect: Result<(Option<u64>, u64), &str>) {
    let got = page(Some(query)).map(|page| (page.limit, page.offset)).map_err(|error| error.message);
    assert_eq!(got, expect.map_err(|why| format!("Failed to deserialize query string: {why}")), "{query}");
}

#[test]
fn pages_are_two_unsigned_numbers() {
    assert_eq!(page(None), Ok(Page::default()));
    check_page("", Ok((None, 0)));
    check_page("foo=1", Ok((None, 0)));
    check_page("limit=0", Ok((Some(0), 0)));
    check_page("&&limit=%31&offset=7", Ok((Some(1), 7)));
    check_page("limit=-1", Err("limit: invalid digit found in string"));
    check_page("limit=1.5", Err("limit: invalid digit found in string"));
    check_page("limit=%ff", Err("limit: invalid digit found in string"));
    check_page("limit=", Err("limit: cannot parse integer from empty string"));
    check_page("limit", Err("limit: cannot parse integer from empty string"));
    check_page("limit=1&limit=2", Err("duplicate field `limit`"));
    check_page("offset=4294967296", Err("offset: number too large to fit in target type"));
}

#[test]
fn reads_have_a_level_and_may_be_explained() {
    let options = |level, explain| Ok(ReadOptions { level, explain });
    assert_eq!(read_options(None), options(ReadLevel::IndexAndWal, false));
    assert_eq!(read_options(Some("read_level=index_only")), options(ReadLevel::IndexOnly, false));
    let bounded = Some("a=b&read_level=index_and_bounded_wal&explain=true");
    assert_eq!(read_options(bounded), options(ReadLevel::IndexAndBoundedWal, true));
    let refused = |query| read_options(Some(query)).expect_err("no such option").message;
    assert_eq!(
        refused("read_level=x"),
        "Failed to deserialize query string: read_level: unknown variant `x`, \
         expected one of `index_and_wal`, `index_only`, `index_and_bounded_wal`"
    );
    assert!(refused("explain=1").starts_with("Failed to deserialize query string: explain: "));
}
