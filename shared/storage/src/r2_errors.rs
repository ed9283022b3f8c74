//! What the errors of an R2 binding mean. Their messages end in R2's own code: `put: … (10058)`.
//!
//! Source: Cloudflare, "R2: error codes". A code that is not named here, or none at all (the network, a deadline), says
//! nothing about what happened.

use crate::{PutError, ReadError};

/// A condition does not hold (a binding answers null instead; the code is what the service itself says).
const PRECONDITION_FAILED: u32 = 10_031;
/// Too many requests, most often to one and the same key.
const TOO_MANY_REQUESTS: u32 = 10_058;
/// Unauthorized, access denied, bucket name, no such bucket, too large, object name, digest, not entitled, locked by the
/// bucket's policy: nothing was written, and trying again is useless.
const REFUSED: [u32; 9] = [10_002, 10_003, 10_005, 10_006, 10_012, 10_020, 10_037, 10_042, 10_069];

/// What a failed read means.
pub(crate) fn read_error(text: &str) -> ReadError {
    match code(text) {
        Some(code) if REFUSED.contains(&code) => ReadError::Refused(text.to_owned()),
        _ => ReadError::Unavailable(text.to_owned()),
    }
}

/// What a failed put or delete means.
pub(crate) fn put_error(text: &str) -> PutError {
    match code(text) {
        Some(PRECONDITION_FAILED) => PutError::Precondition,
        Some(TOO_MANY_REQUESTS) => PutError::Busy(text.to_owned()),
        Some(code) if REFUSED.contains(&code) => PutError::Refused(text.to_owned()),
        _ => PutError::Indeterminate(text.to_owned()),
    }
}

/// The number in the parentheses that end the message.
fn code(text: &str) -> Option<u32> {
    text.trim_end().strip_suffix(')')?.rsplit_once('(')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_put(text: &str, expect: fn(String) -> PutError) {
        assert_eq!(put_error(text), expect(text.to_owned()));
    }

    #[test]
    fn only_what_surely_wrote_nothing_is_told_so() {
        check_put("put: At least one of the pre-conditions did not hold. (10031)", |_| PutError::Precondition);
        check_put("put: Reduce your concurrent request rate for the same object. (10058)", PutError::Busy);
        check_put("put: The specified bucket does not exist. (10006)", PutError::Refused);
        check_put("put: The MD5 checksum you specified did not match what we received. (10037)", PutError::Refused);
        check_put("put: We encountered an internal error. Please try again. (10001)", PutError::Indeterminate);
        check_put("put: The service is unavailable. (10043)", PutError::Indeterminate);
        check_put("put: Something new. (10999)", PutError::Indeterminate);
        check_put("Network connection lost.", PutError::Indeterminate);
        check_put("no reply within 8000 ms", PutError::Indeterminate);
    }

    #[test]
    fn reads_are_repeated_unless_that_is_useless() {
        let read = |text: &str| matches!(read_error(text), ReadError::Unavailable(_));
        assert!(read("get: We encountered an internal error. Please try again. (10001)"));
        assert!(read("get: Reduce your request rate. (10058)"));
        assert!(read("Network connection lost."));
        assert!(read("get: We counted (10003) objects. (10001)"));
        assert!(!read("get: Access denied. (10003)"));
    }
}
