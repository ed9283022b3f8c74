//! What the catalog asks of a SQL database: to run a transaction. Its SQL is SQLite's.

use crate::CatalogError;

/// Longest excerpt of a reply that a message quotes, in characters.
const EXCERPT_CHARS_MAX: usize = 200;

/// A SQLite database somewhere else. It is asked once for each call: who repeats, waits and migrates is
/// [`crate::SqlCatalog`].
pub trait Database {
    /// Runs `statements` as one transaction, in their order, and returns the outcome of each. A transaction of several
    /// holds the write lock from its beginning.
    async fn run(&self, statements: &[Statement]) -> Result<Vec<Outcome>, Failure>;
}

/// A SQL statement with its arguments `?1`, `?2`, ….
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// A single one.
    pub sql: String,
    /// By number, from `?1`.
    pub args: Vec<SqlValue>,
    /// Whether its rows are asked for, or how many it changed.
    pub is_query: bool,
}

impl Statement {
    /// A statement whose rows are asked for: it reads, or says `RETURNING`.
    pub fn query(sql: impl Into<String>, args: impl IntoIterator<Item = SqlValue>) -> Self {
        Statement { sql: sql.into(), args: args.into_iter().collect(), is_query: true }
    }

    /// A statement that is asked how many rows it changed.
    pub fn command(sql: impl Into<String>, args: impl IntoIterator<Item = SqlValue>) -> Self {
        Statement { is_query: false, ..Statement::query(sql, args) }
    }
}

/// What the catalog's columns hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SqlValue {
    /// Nothing.
    #[default]
    Null,
    /// A number, a time or a truth.
    Integer(i64),
    /// Anything else.
    Text(String),
}

/// A row that a query gave, by column.
pub type Row = Vec<SqlValue>;

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of a query: its rows.
    pub rows: Vec<Row>,
    /// Of a command: how many rows it changed, those not counted that triggers changed.
    pub changed: u64,
}

/// Why a transaction gave no outcome, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Another writer was in the way, or too many requests: nothing was changed. Try again after a pause.
    Busy(String),
    /// No reply, or one of a gateway in between: what was changed is unknown. Try again only what may happen twice.
    Lost(String),
    /// A table or column is missing: nothing was changed. Run the migrations and try once more.
    Outdated(String),
    /// A UNIQUE constraint: nothing was changed.
    Taken,
    /// The rows asked for are more than one reply holds: ask for fewer.
    TooLarge(String),
    /// Everything else: trying again is useless.
    Refused(String),
}

impl Failure {
    /// What a database's error says. Only codes are contractual, but sqld gives one code to all constraints and none to
    /// missing tables, so their messages (SQLite's own, which hold names from our SQL and never a user's text) decide.
    pub fn of_database(error: String) -> Failure {
        let says = |part: &&str| error.contains(*part);
        // The last two: the write lock was taken from our transaction, which is rolled back with it.
        let busy = ["SQLITE_BUSY", "SQLITE_LOCKED", "database is locked", "TRANSACTION_BUSY", "TRANSACTION_TIMEOUT"];
        let outdated = ["no such table", "no such column", "has no column named"];
        match error {
            _ if busy.iter().any(says) => Failure::Busy(error),
            _ if says(&"PROXY_ERROR") => Failure::Lost(error),
            _ if says(&"RESPONSE_TOO_LARGE") => Failure::TooLarge(error),
            _ if says(&"UNIQUE constraint failed") => Failure::Taken,
            _ if outdated.iter().any(says) => Failure::Outdated(error),
            _ => Failure::Refused(error),
        }
    }

    /// What a reply says that has this HTTP status, and not that of success.
    pub fn of_reply(status: u16, body: &str) -> Failure {
        let excerpt: String = body.chars().take(EXCERPT_CHARS_MAX).collect();
        let text = format!("status {status}: {excerpt}");
        match status {
            429 => Failure::Busy(text),
            500..=599 => Failure::Lost(text),
            _ => Failure::Refused(text),
        }
    }

    /// The failure as it may be logged, whatever the other side quoted.
    #[must_use]
    pub fn hiding(self, token: Option<&str>) -> Failure {
        let clean = |text: String| match token {
            Some(token) if !token.is_empty() => text.replace(token, "(hidden)"),
            _ => text,
        };
        match self {
            Failure::Busy(text) => Failure::Busy(clean(text)),
            Failure::Lost(text) => Failure::Lost(clean(text)),
            Failure::Outdated(text) => Failure::Outdated(clean(text)),
            Failure::TooLarge(text) => Failure::TooLarge(clean(text)),
            Failure::Refused(text) => Failure::Refused(clean(text)),
            Failure::Taken => Failure::Taken,
        }
    }
}

impl From<Failure> for CatalogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Busy(text) | Failure::Lost(text) => CatalogError::Unavailable(text),
            Failure::Taken => CatalogError::AlreadyExists,
            Failure::Outdated(text) | Failure::TooLarge(text) | Failure::Refused(text) => CatalogError::Refused(text),
        }
    }
}
