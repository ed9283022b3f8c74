//! Bodies that create and change tenants and databases.

use super::{ApiError, body, names};
use serde::Deserialize;

#[derive(Deserialize)]
struct NameBody {
    name: String,
}

/// The name of a new tenant. Errors: as [`body::parse`]; 400 if it is too short or too long.
pub fn create_tenant(content_type: Option<&str>, body: &[u8]) -> Result<String, ApiError> {
    let request: NameBody = body::parse(content_type, body)?;
    names::check_new_tenant(&request.name)?;
    Ok(request.name)
}

/// The name of a new database. Errors: as [`body::parse`]; 400 if none may be called so.
pub fn create_database(content_type: Option<&str>, body: &[u8]) -> Result<String, ApiError> {
    let request: NameBody = body::parse(content_type, body)?;
    names::check_new_database(&request.name)?;
    Ok(request.name)
}

/// Checks the update of a tenant, which, as on Chroma's single-node server, changes nothing. Errors: as [`body::parse`].
pub fn update_tenant(content_type: Option<&str>, body: &[u8]) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct UpdateBody {
        #[serde(rename = "resource_name")]
        _resource_name: String,
    }
    body::parse(content_type, body).map(|UpdateBody { .. }| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_their_own_rules() {
        assert_eq!(create_tenant(None, br#"{"name":"a b"}"#), Ok("a b".into()));
        assert_eq!(create_tenant(None, br#"{"name":"ab"}"#).map_err(|e| e.status.as_u16()), Err(400));
        assert_eq!(create_tenant(None, b"{}").map_err(|e| e.status.as_u16()), Err(422));
        assert_eq!(create_database(None, br#"{"name":"abc","other":1}"#), Ok("abc".into()));
        let error = create_database(None, br#"{"name":"a b"}"#).expect_err("a space");
        assert!(error.message.starts_with("Expected a name"), "{error:?}");
        assert_eq!(update_tenant(None, br#"{"resource_name":"x"}"#), Ok(()));
        assert_eq!(update_tenant(None, b"{}").map_err(|e| e.status.as_u16()), Err(422));
    }
}
