//! What tenants, databases, collections and metadata keys may be called, in the words of Chroma's server.

use super::ApiError;
use std::net::Ipv4Addr;

/// Longest name, in bytes: Chroma's, for collections and databases; ours for tenants, which it leaves unbounded.
const NAME_BYTES_MAX: usize = 512;
/// Shortest tenant and database name, in characters.
const NAME_CHARS_MIN: usize = 3;

/// Why a name for a collection or database is refused; the caller puts the member before it.
///
/// One prefix `topology+` is tolerated; both parts keep the same rule.
pub fn check_name(name: &str) -> Result<(), String> {
    let mut parts = name.split('+');
    match (parts.next(), parts.next(), parts.next()) {
        (_, _, Some(_)) => Err("Expected a name to contain at most one topology:  Got two `+` characters.".into()),
        (topology, rest, None) => topology.into_iter().chain(rest).try_for_each(check_part),
    }
}

fn check_part(name: &str) -> Result<(), String> {
    let of_charset = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if !(NAME_CHARS_MIN..=NAME_BYTES_MAX).contains(&bytes.len())
        || !bytes.iter().all(of_charset)
        || !edge(bytes.first())
        || !edge(bytes.last())
    {
        return Err(format!(
            "Expected a name containing 3-512 characters from [a-zA-Z0-9._-], \
             starting and ending with a character in [a-zA-Z0-9]. Got: {name}"
        ));
    }
    if name.contains("..") {
        return Err(format!("Expected a name that does not contains two consecutive periods (..). Got {name}"));
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return Err(format!("Expected a name that is not a valid ip address. Got {name}"));
    }
    Ok(())
}

/// 400 if no database may be called so.
pub fn check_new_database(name: &str) -> Result<(), ApiError> {
    check_name(name).map_err(ApiError::invalid_argument)
}

/// 400 if the name of the database to get is too short to be one.
pub fn check_database_to_get(name: &str) -> Result<(), ApiError> {
    if name.chars().count() < NAME_CHARS_MIN {
        return Err(ApiError::invalid_argument("database name must be at least 3 characters"));
    }
    Ok(())
}

/// 400 if no tenant may be called so: any text of at least three characters may.
pub fn check_new_tenant(name: &str) -> Result<(), ApiError> {
    let bound = match name.chars().count() {
        ..NAME_CHARS_MIN => format!("\"min\": Number({NAME_CHARS_MIN})"),
        _ if name.len() > NAME_BYTES_MAX => format!("\"max\": Number({NAME_BYTES_MAX})"),
        _ => return Ok(()),
    };
    let message =
        format!("Validation error: name: Validation error: length [{{{bound}, \"value\": String({name:?})}}]");
    Err(ApiError::invalid_argument(message))
}

/// Why a metadata key is refused.
pub fn check_metadata_key(key: &str) -> Result<(), String> {
    match key.chars().next() {
        None => Err("Metadata key cannot be empty".into()),
        Some('#' | '$') => Err(format!("Metadata key cannot start with '#' or '$': {key}")),
        Some(_) => Ok(()),
    }
}

/// 400 with every complaint of the validation of a body, a line each; `Ok` if there is none.
///
/// - `complaints`: member and reason, for each member that is wrong.
pub fn refuse_if_any(complaints: &[(&str, String)]) -> Result<(), ApiError> {
    if complaints.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = complaints.iter().map(|(member, why)| format!("{member}: {why}")).collect();
    Err(ApiError::invalid_argument(format!("Validation error: {}", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expect: &str) {
        let got = check_name(name).err().unwrap_or_default();
        assert!(if expect.is_empty() { got.is_empty() } else { got.contains(expect) }, "{name}: {got}");
    }

    #[test]
    fn names_of_collections_and_databases() {
        let charset = "Expected a name containing 3-512 characters from [a-zA-Z0-9._-], \
                       starting and ending with a character in [a-zA-Z0-9]. Got: ";
        check("abc", "");
        check("a.b_c-d", "");
        check("topology+name", "");
        check(&"a".repeat(512), "");
        check(&"a".repeat(513), charset);
        for name in ["", "ab", "-ab", "ab-", "a b", "éééé", "::1", "abc\n", ".ab"] {
            check(name, &format!("{charset}{name}"));
        }
        for (name, part) in [("a+bcd", "a"), ("top+", ""), ("+abc", ""), ("top+ab", "ab")] {
            assert_eq!(check_name(name), Err(format!("{charset}{part}")));
        }
        check("a..b", "Expected a name that does not contains two consecutive periods (..). Got a..b");
        check("1.2.3.4", "Expected a name that is not a valid ip address. Got 1.2.3.4");
        check("1.2.3", "");
        check("a+b+cde", "Expected a name to contain at most one topology:  Got two `+` characters.");
    }

    #[test]
    fn tenants_are_any_text_of_three_characters() {
        for name in ["abc", "a b", "aéb"] {
            assert_eq!(check_new_tenant(name), Ok(()));
        }
        let error = check_new_tenant("éé").expect_err("two characters");
        let expect = r#"Validation error: name: Validation error: length [{"min": Number(3), "value": String("éé")}]"#;
        assert_eq!(error, ApiError::invalid_argument(expect));
        assert!(check_new_tenant(&"a".repeat(513)).is_err());
    }

    #[test]
    fn short_databases_cannot_be_asked_for() {
        assert_eq!(check_database_to_get("abc"), Ok(()));
        let error = check_database_to_get("ab").expect_err("too short");
        assert_eq!(error.message, "database name must be at least 3 characters");
    }

    #[test]
    fn metadata_keys_are_not_empty_and_leave_two_characters_to_the_system() {
        for key in ["a", " ", "chroma:document", "a#", "é"] {
            assert_eq!(check_metadata_key(key), Ok(()));
        }
        assert_eq!(check_metadata_key(""), Err("Metadata key cannot be empty".into()));
        assert_eq!(check_metadata_key("#a"), Err("Metadata key cannot start with '#' or '$': #a".into()));
        assert_eq!(check_metadata_key("$"), Err("Metadata key cannot start with '#' or '$': $".into()));
    }

    #[test]
    fn complaints_are_lines() {
        assert_eq!(refuse_if_any(&[]), Ok(()));
        let error = refuse_if_any(&[("a", "x".into()), ("b", "y".into())]).expect_err("two complaints");
        assert_eq!(error, ApiError::invalid_argument("Validation error: a: x\nb: y"));
    }
}
