//! The native adapters of the ports, on the services of a stack.

use catalog::HranaConfig;
use compactor_job::bucket::{AwsStore, BucketConfig, Keys};
use compactor_job::database::{self, LibsqlDatabase};
use runtime::NativeRuntime;
use stack::Stack;

/// What runs futures to their end.
pub(crate) fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The bucket, as the compactor reaches it.
pub(crate) async fn aws_store(stack: &Stack) -> AwsStore<NativeRuntime> {
    let config = BucketConfig {
        endpoint: Some(stack.store_url()),
        bucket: stack::BUCKET.to_owned(),
        region: stack::REGION.to_owned(),
        keys: Some(Keys {
            access_key_id: stack::ACCESS_KEY_ID.to_owned(),
            secret_access_key: stack::SECRET_ACCESS_KEY.to_owned(),
            session_token: None,
        }),
    };
    AwsStore::new(config, NativeRuntime::new()).await
}

/// The catalog, as the compactor reaches it.
pub(crate) async fn libsql_catalog(stack: &Stack) -> catalog::SqlCatalog<LibsqlDatabase, NativeRuntime> {
    let config = HranaConfig { url: stack.catalog_url(), token: None };
    database::catalog(config, NativeRuntime::new()).await.unwrap()
}
