//! Every error as it goes over the wire: status, body, headers.

use super::*;
use model::CollectionId;

const TRACE: &str = "0123456789abcdef0123456789abcdef";

#[track_caller]
fn check(error: impl Into<ApiError>, status: u16, body: &str) {
    let response = error.into().into_response(TRACE);
    assert_eq!((response.status().as_u16(), std::str::from_utf8(response.body()).unwrap()), (status, body));
    assert_eq!(response.headers()[TRACE_HEADER], TRACE);
}

#[test]
fn errors_are_a_name_and_a_message() {
    check(ApiError::invalid_argument("a \"b\""), 400, r#"{"error":"InvalidArgumentError","message":"a \"b\""}"#);
    check(ApiError::reset_disabled(), 403, r#"{"error":"ChromaError","message":"Reset is disabled by config"}"#);
    check(ApiError::tenant_not_found("x"), 404, r#"{"error":"NotFoundError","message":"Tenant [x] not found"}"#);
    check(ApiError::tenant_exists("x"), 409, r#"{"error":"ChromaError","message":"Tenant [x] already exists"}"#);
    check(ApiError::unprocessable("x"), 422, r#"{"error":"ChromaError","message":"x"}"#);
    check(ApiError::unimplemented("x"), 501, r#"{"error":"ChromaError","message":"x"}"#);
    check(
        ApiError::collection_id_not_found(CollectionId::from_u128(1)),
        404,
        r#"{"error":"NotFoundError","message":"Collection [00000000-0000-0000-0000-000000000001] does not exist."}"#,
    );
    check(
        ApiError::v1_is_gone(),
        410,
        r#"{"error":"Unimplemented","message":"The v1 API is deprecated. Please use /v2 apis"}"#,
    );
}

#[test]
fn routes_with_vectors_say_too_large_in_plain_text() {
    let collection = "/api/v2/tenants/t/databases/d/collections/c";
    for verb in ["add", "update", "upsert", "query", "search"] {
        check(ApiError::too_large(&format!("{collection}/{verb}")), 413, "Payload too large");
    }
    let text = ApiError::too_large("/add").into_response(TRACE);
    assert_eq!(text.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    let expect = r#"{"error":"ChromaError","message":"Failed to buffer the request body: length limit exceeded"}"#;
    for path in [collection, "/api/v2/tenants", &format!("{collection}/get"), &format!("{collection}/delete")] {
        check(ApiError::too_large(path), 413, expect);
    }
}

#[test]
fn executor_errors_become_statuses() {
    check(PlanError::Invalid("why".into()), 400, r#"{"error":"InvalidArgumentError","message":"why"}"#);
    check(
        PlanError::UnknownId,
        500,
        r#"{"error":"InternalError","message":"Error executing plan: Internal error: Error finding id"}"#,
    );
    assert_eq!(ApiError::from(PlanError::Unavailable("s".into())).status, 503);
    assert_eq!(ApiError::from(PlanError::TooLarge("s".into())).status, 503);
    assert_eq!(ApiError::from(PlanError::Corrupt("s".into())).status, 500);
}

#[test]
fn the_cause_is_for_the_log_only() {
    let secret = "token abc at db.internal";
    let shown = ApiError::unavailable("try again").because(secret).to_string();
    assert_eq!(shown, "503 try again (token abc at db.internal)");
    let errors = [
        ApiError::internal(secret),
        ApiError::indeterminate(secret),
        CatalogError::Unavailable(secret.into()).into(),
        CatalogError::Refused(secret.into()).into(),
        PlanError::Corrupt(secret.into()).into(),
        PlanError::Unavailable(secret.into()).into(),
    ];
    for error in errors {
        assert!(error.cause.as_ref().is_some_and(|cause| cause.contains(secret)), "{error:?} has lost its cause");
        let body = error.into_response(TRACE).into_body();
        assert!(!String::from_utf8_lossy(&body).contains("token"), "{body:?}");
    }
}

#[test]
fn unknown_routes_and_methods_have_no_body() {
    check(ApiError::no_such_route(), 404, "");
    let error = ApiError::method_not_allowed(&[Method::POST, Method::GET]);
    check(error.clone(), 405, "");
    let response = error.into_response(TRACE);
    assert_eq!(response.headers()[ALLOW], "POST,GET,HEAD");
    assert!(!response.headers().contains_key(CONTENT_TYPE));
}

#[test]
fn a_valid_traceparent_gives_the_trace_id() {
    let theirs = "4BF92F3577B34DA6A3CE929D0E0E4736";
    assert_eq!(trace_id(Some(&format!("00-{theirs}-00f067aa0ba902b7-01")), 7), theirs.to_lowercase());
    for header in [None, Some(""), Some("00-xyz-1-01"), Some("00-00000000000000000000000000000000-1-01"), Some("é-é")]
    {
        assert_eq!(trace_id(header, 7), "00000000000000000000000000000007");
    }
    let response = ApiError::no_such_route().into_response("line\nbreak");
    assert_eq!(response.headers()[TRACE_HEADER], "0".repeat(32));
}

#[test]
fn megabytes_are_not_echoed() {
    let body = ApiError::invalid_argument("é".repeat(1 << 20)).into_response(TRACE).into_body();
    assert!(body.len() < MESSAGE_BYTES_MAX + 100);
}
