//! What several tests begin with.

use catalog::{DEFAULT_DATABASE, DEFAULT_TENANT, NewCollection};
use model::{CollectionId, Configuration};

/// A collection to be made, with what a client that says nothing gets.
pub(crate) fn new_collection(id: CollectionId) -> NewCollection {
    NewCollection {
        id,
        tenant: DEFAULT_TENANT.to_owned(),
        database: DEFAULT_DATABASE.to_owned(),
        name: "c".to_owned(),
        metadata: None,
        configuration: Configuration::default(),
        schema: serde_json::json!({}),
        get_or_create: false,
    }
}
