//! The catalog's database by the crate `libsql`, as a remote one.
//!
//! Cost in round trips, behind those that open the connection: 1 for a command; 2 for a query, which the crate has described
//! before it asks for rows; a transaction of several statements has 2 more, and holds the write lock all the while. So what
//! compaction asks for are single statements; the few transactions are migrations and calls that only gateways make.
//!
//! Each call has a connection of its own: it is one stream of statements with a state on the server, which calls at the same
//! time, or one given up half-way, must not share. Dropping it ends the stream, and whatever transaction was open.

use catalog::database::{Database, Failure, Outcome, SqlValue, Statement};
use catalog::{CatalogError, HranaConfig, SqlCatalog};
use libsql::{Builder, Connection, Error, Row, Value, params::Params};
use runtime::Runtime;
use std::rc::Rc;

/// The catalog at `config.url`. Sends nothing. `Refused` if that is not a URL as described there, or this machine knows
/// no certificate authorities.
pub async fn catalog<R: Runtime>(
    config: HranaConfig,
    runtime: R,
) -> Result<SqlCatalog<LibsqlDatabase, R>, CatalogError> {
    let token = config.token.clone().unwrap_or_default();
    let database = Builder::new_remote(config.base_url()?, token).build().await.map_err(failure)?;
    Ok(SqlCatalog::over(LibsqlDatabase { database: Rc::new(database), token: config.token }, runtime))
}

/// A remote libSQL database. Clones are handles to the same one.
#[derive(Clone)]
pub struct LibsqlDatabase {
    database: Rc<libsql::Database>,
    token: Option<String>,
}

impl Database for LibsqlDatabase {
    async fn run(&self, statements: &[Statement]) -> Result<Vec<Outcome>, Failure> {
        let outcomes = match self.database.connect() {
            Ok(connection) => transaction(&connection, statements).await,
            Err(error) => Err(error),
        };
        outcomes.map_err(|error| failure(error).hiding(self.token.as_deref()))
    }
}

async fn transaction(connection: &Connection, statements: &[Statement]) -> libsql::Result<Vec<Outcome>> {
    if let [lone] = statements {
        return Ok(vec![outcome(connection, lone).await?]);
    }
    connection.execute("BEGIN IMMEDIATE", ()).await?;
    let mut outcomes = Vec::with_capacity(statements.len());
    for statement in statements {
        outcomes.push(outcome(connection, statement).await?);
    }
    // By hand: the crate's own commit succeeds without a word where the server has ended the stream.
    connection.execute("COMMIT", ()).await?;
    Ok(outcomes)
}

async fn outcome(connection: &Connection, statement: &Statement) -> libsql::Result<Outcome> {
    let args = Params::Positional(statement.args.iter().map(sent).collect());
    if !statement.is_query {
        let changed = connection.execute(&statement.sql, args).await?;
        return Ok(Outcome { rows: Vec::new(), changed });
    }
    let mut rows = connection.query(&statement.sql, args).await?;
    let mut outcome = Outcome::default();
    while let Some(row) = rows.next().await? {
        let values = (0..row.column_count()).map(|column_idx| value(&row, column_idx));
        outcome.rows.push(values.collect::<libsql::Result<_>>()?);
    }
    Ok(outcome)
}

fn sent(value: &SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(value) => Value::Integer(*value),
        SqlValue::Text(text) => Value::Text(text.clone()),
    }
}

fn value(row: &Row, column_idx: i32) -> libsql::Result<SqlValue> {
    match row.get_value(column_idx)? {
        Value::Null => Ok(SqlValue::Null),
        Value::Integer(value) => Ok(SqlValue::Integer(value)),
        Value::Text(text) => Ok(SqlValue::Text(text)),
        Value::Real(_) | Value::Blob(_) => Err(Error::InvalidColumnType),
    }
}

/// The crate keeps the kinds of its remote errors to itself, so their texts decide: a reply of another status than 200 is
/// told as `status=503 Service Unavailable, body=…`, what the database says as an error of a stream or of a step.
fn failure(error: Error) -> Failure {
    let text = error.to_string();
    let says = |part: &str| text.contains(part);
    match error {
        Error::Hrana(_) => match status_and_body(&text) {
            Some((status, body)) => Failure::of_reply(status, body),
            None if says("stream error: ") || says("error at step ") => Failure::of_database(text),
            None if says("json error: ") || says("unexpected response: ") => Failure::Refused(text),
            None => Failure::Lost(text),
        },
        Error::ConnectionFailed(_) => Failure::Lost(text),
        _ => Failure::Refused(text),
    }
}

fn status_and_body(text: &str) -> Option<(u16, &str)> {
    let (_, reply) = text.split_once("api error: `status=")?;
    let (status, body) = reply.split_once(", body=")?;
    let (number, _) = status.split_at_checked(3)?;
    Some((number.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::{Catalog, Maintenance, PublishFrom};
    use model::{CollectionId, Manifest};
    use runtime::NativeRuntime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers every request with `reply`, or by closing the connection. Returns where, and counts the requests.
    async fn server(reply: &'static str) -> (String, Rc<std::cell::Cell<u32>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let requests = Rc::new(std::cell::Cell::new(0));
        let count = requests.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                // One read holds a request as short as these.
                if connection.read(&mut [0; 16_384]).await.is_ok_and(|bytes| bytes > 0) {
                    count.set(count.get() + 1);
                    connection.write_all(reply.as_bytes()).await.expect("the client listens");
                }
            }
        });
        (url, requests)
    }

    /// What `publish` and `ping` answer, and with how many requests, where every reply is `reply`.
    async fn asked(reply: &'static str) -> [(Result<(), CatalogError>, u32); 2] {
        let asked = async {
            let (url, requests) = server(reply).await;
            let config = HranaConfig { url, token: Some("s3cret".to_owned()) };
            let catalog = catalog(config, NativeRuntime::new()).await.expect("a valid configuration");
            let from = PublishFrom { generation: 0, gc_epoch: 0 };
            let published = catalog.publish(CollectionId::from_u128(7), from, &Manifest::default()).await.map(drop);
            let publish = (published, requests.take());
            [publish, (catalog.ping().await, requests.take())]
        };
        tokio::task::LocalSet::new().run_until(asked).await
    }

    #[tokio::test]
    async fn a_lost_reply_is_asked_for_again_only_if_that_is_harmless() {
        let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 6\r\nconnection: close\r\n\r\ns3cret";
        for reply in ["", unavailable] {
            for (requests_min, (outcome, requests)) in [1, 2].into_iter().zip(asked(reply).await) {
                let Err(CatalogError::Unavailable(text)) = outcome else { panic!("{outcome:?}") };
                assert!(!text.contains("s3cret"), "{text}");
                assert_eq!(requests.min(2), requests_min, "{text}");
            }
        }
    }

    #[tokio::test]
    async fn too_many_requests_are_repeated_and_refusals_reported_at_once_without_the_token() {
        let slow_down = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        for (outcome, requests) in asked(slow_down).await {
            assert!(matches!(outcome, Err(CatalogError::Unavailable(_))), "{outcome:?}");
            assert_eq!(requests, model::limits::CATALOG_ATTEMPTS_MAX);
        }
        let expired = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 17\r\nconnection: close\r\n\r\nthe token s3cret!";
        let nonsense = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\ns3cret";
        for reply in [expired, nonsense] {
            for (outcome, requests) in asked(reply).await {
                let Err(CatalogError::Refused(text)) = outcome else { panic!("{outcome:?}") };
                assert!(!text.contains("s3cret"), "{text}");
                assert_eq!(requests, 1);
            }
        }
    }

    #[test]
    fn what_the_database_says_decides_what_to_do() {
        let failure = |text: &str| failure(Error::Hrana(text.into()));
        let said = |code: &str, message: &str| {
            failure(&format!("stream error: `Error {{ message: {message:?}, code: {code:?} }}`"))
        };
        assert!(matches!(said("SQLITE_BUSY", "SQLite error: database is locked"), Failure::Busy(_)));
        assert!(matches!(said("TRANSACTION_TIMEOUT", "timed out"), Failure::Busy(_)));
        assert!(matches!(said("SQLITE_UNKNOWN", "SQLite error: no such table: tenants"), Failure::Outdated(_)));
        assert_eq!(said("SQLITE_CONSTRAINT", "UNIQUE constraint failed: tenants.name"), Failure::Taken);
        assert!(matches!(said("SQLITE_AUTH", "not authorized"), Failure::Refused(_)));
        let at_step =
            "cursor error: `error at step 0: (error code: SQLITE_CONSTRAINT) `UNIQUE constraint failed: a.b``";
        assert_eq!(failure(at_step), Failure::Taken);
        assert!(matches!(failure("cursor error: `cursor stream ended prematurely`"), Failure::Lost(_)));
        assert!(matches!(failure("http error: `connection closed`"), Failure::Lost(_)));
    }
}
