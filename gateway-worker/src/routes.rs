//! The API at a glance: one match over method and path.

#![expect(missing_docs, reason = "the variants are the API's own words; docs of the API are Chroma's")]

use http::Method;

/// What a request asks for. Strings are path segments, percent-decoded, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Heartbeat,
    Version,
    Healthcheck,
    PreFlightChecks,
    Identity,
    Reset,
    CreateTenant,
    GetTenant {
        tenant: String,
    },
    UpdateTenant {
        tenant: String,
    },
    ListDatabases {
        tenant: String,
    },
    CreateDatabase {
        tenant: String,
    },
    GetDatabase(Scope),
    DeleteDatabase(Scope),
    ListCollections(Scope),
    CountCollections(Scope),
    CreateCollection(Scope),
    GetCollection {
        scope: Scope,
        name: String,
    },
    GetCollectionById {
        scope: Scope,
        id: String,
    },
    UpdateCollection {
        scope: Scope,
        id: String,
    },
    DeleteCollection {
        scope: Scope,
        name: String,
    },
    /// An operation on the records of one collection.
    Records {
        scope: Scope,
        id: String,
        verb: Verb,
    },
    /// The first version of the API, which answers that it is gone.
    VersionOne,
}

/// A database of a tenant, as the path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub tenant: String,
    pub database: String,
}

/// What is done with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Add,
    Upsert,
    Update,
    Delete,
    Get,
    Query,
    Count,
    Search,
    IndexingStatus,
    Fork,
    ForkCount,
}

impl Verb {
    /// Whether it changes records.
    pub fn writes(self) -> bool {
        matches!(self, Verb::Add | Verb::Upsert | Verb::Update | Verb::Delete)
    }
}

/// Why a request has no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No such path (404).
    Path,
    /// The path is there, for these methods (405).
    Method(Vec<Method>),
}

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The route of a request; a path that ends in a slash is another path.
pub fn route(method: &Method, path: &str) -> Result<Route, NoRoute> {
    let segments: Option<Vec<String>> =
        path.strip_prefix('/').map(|path| path.split('/').map(percent_decoded).collect()).unwrap_or_default();
    let segments = segments.ok_or(NoRoute::Path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if segments.contains(&"") {
        return Err(NoRoute::Path);
    }
    // Whoever sends the answer to a HEAD leaves its body out.
    let asked = if method == Method::HEAD { &Method::GET } else { method };
    if let Some(route) = matched(asked, &segments) {
        return Ok(route);
    }
    let allowed: Vec<Method> = METHODS.into_iter().filter(|method| matched(method, &segments).is_some()).collect();
    Err(if allowed.is_empty() { NoRoute::Path } else { NoRoute::Method(allowed) })
}

fn matched(method: &Method, segments: &[&str]) -> Option<Route> {
    let method = method.as_str();
    let path = match segments {
        ["api", "v2", path @ ..] => path,
        ["api", "v1", ..] => return (method != "POST").then_some(Route::VersionOne),
        _ => return None,
    };
    let scope = |tenant: &str, database: &str| Scope { tenant: tenant.to_owned(), database: database.to_owned() };
    Some(match (method, path) {
        ("GET", [] | ["heartbeat"]) => Route::Heartbeat,
        ("GET", ["version"]) => Route::Version,
        ("GET", ["healthcheck"]) => Route::Healthcheck,
        ("GET", ["pre-flight-checks"]) => Route::PreFlightChecks,
        ("GET", ["auth", "identity"]) => Route::Identity,
        ("POST", ["reset"]) => Route::Reset,
        ("POST", ["tenants"]) => Route::CreateTenant,
        ("GET", ["tenants", t]) => Route::GetTenant { tenant: (*t).to_owned() },
        ("PATCH", ["tenants", t]) => Route::UpdateTenant { tenant: (*t).to_owned() },
        ("GET", ["tenants", t, "databases"]) => Route::ListDatabases { tenant: (*t).to_owned() },
        ("POST", ["tenants", t, "databases"]) => Route::CreateDatabase { tenant: (*t).to_owned() },
        ("GET", ["tenants", t, "databases", d]) => Route::GetDatabase(scope(t, d)),
        ("DELETE", ["tenants", t, "databases", d]) => Route::DeleteDatabase(scope(t, d)),
        (_, ["tenants", t, "databases", d, rest @ ..]) => return in_database(method, scope(t, d), rest),
        _ => return None,
    })
}

fn in_database(method: &str, scope: Scope, path: &[&str]) -> Option<Route> {
    Some(match (method, path) {
        ("GET", ["collections"]) => Route::ListCollections(scope),
        ("POST", ["collections"]) => Route::CreateCollection(scope),
        ("GET", ["collections_count"]) => Route::CountCollections(scope),
        ("GET", ["collections", name]) => Route::GetCollection { scope, name: (*name).to_owned() },
        ("PUT", ["collections", id]) => Route::UpdateCollection { scope, id: (*id).to_owned() },
        ("DELETE", ["collections", name]) => Route::DeleteCollection { scope, name: (*name).to_owned() },
        ("GET", ["collections", "by-id", id]) => Route::GetCollectionById { scope, id: (*id).to_owned() },
        (_, ["collections", id, verb]) => {
            Route::Records { scope, id: (*id).to_owned(), verb: record_verb(method, verb)? }
        }
        _ => return None,
    })
}

fn record_verb(method: &str, verb: &str) -> Option<Verb> {
    Some(match (method, verb) {
        ("POST", "add") => Verb::Add,
        ("POST", "upsert") => Verb::Upsert,
        ("POST", "update") => Verb::Update,
        ("POST", "delete") => Verb::Delete,
        ("POST", "get") => Verb::Get,
        ("POST", "query") => Verb::Query,
        ("GET", "count") => Verb::Count,
        ("POST", "search") => Verb::Search,
        ("GET", "indexing_status") => Verb::IndexingStatus,
        ("POST", "fork") => Verb::Fork,
        ("GET", "fork_count") => Verb::ForkCount,
        _ => return None,
    })
}

/// `text` with `%xx` resolved; `None` if that is not UTF-8 or a `%` stands alone.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => (hex_byte(after.get(..2)?)?, &after[2..]),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &str = "/api/v2/tenants/t/databases/d";

    #[track_caller]
    fn check(method: &str, path: &str, expect: Result<Route, NoRoute>) {
        assert_eq!(route(&method.parse().unwrap(), path), expect, "{method} {path}");
    }

    fn scope() -> Scope {
        Scope { tenant: "t".into(), database: "d".into() }
    }

    #[test]
    fn paths_lead_to_routes() {
        check("GET", "/api/v2", Ok(Route::Heartbeat));
        check("GET", "/api/v2/heartbeat", Ok(Route::Heartbeat));
        check(
            "GET",
            &format!("{DATABASE}/collections/by-id"),
            Ok(Route::GetCollection { scope: scope(), name: "by-id".into() }),
        );
        check(
            "GET",
            &format!("{DATABASE}/collections/by-id/x"),
            Ok(Route::GetCollectionById { scope: scope(), id: "x".into() }),
        );
        check(
            "POST",
            &format!("{DATABASE}/collections/x/add"),
            Ok(Route::Records { scope: scope(), id: "x".into(), verb: Verb::Add }),
        );
        check("GET", "/api/v1/heartbeat", Ok(Route::VersionOne));
        check("HEAD", "/api/v2/version", Ok(Route::Version));
    }

    #[test]
    fn segments_are_decoded_one_by_one() {
        check("GET", "/api/v2/tenants/a%2Fb", Ok(Route::GetTenant { tenant: "a/b".into() }));
        check("GET", "/api/v2/tenants/%C3%A9", Ok(Route::GetTenant { tenant: "é".into() }));
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            check("GET", &format!("/api/v2/tenants/{bad}"), Err(NoRoute::Path));
        }
    }

    #[test]
    fn other_paths_are_unknown_and_other_methods_not_allowed() {
        for path in [
            "/",
            "",
            "/api",
            "/api/v2/",
            "/api/v3",
            "/api/v2/heartbeat/",
            "/api/v2/tenants/",
            "/api/v2/tenants/t/databases/d/collections/x/y",
        ] {
            check("GET", path, Err(NoRoute::Path));
        }
        check("GET", "/api/v2/reset", Err(NoRoute::Method(vec![Method::POST])));
        check("DELETE", "/api/v2/tenants", Err(NoRoute::Method(vec![Method::POST])));
        check("OPTIONS", &format!("{DATABASE}/collections"), Err(NoRoute::Method(vec![Method::GET, Method::POST])));
        check(
            "POST",
            "/api/v1/collections",
            Err(NoRoute::Method(METHODS.into_iter().filter(|m| m != Method::POST).collect())),
        );
    }
}
