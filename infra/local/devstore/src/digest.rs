//! Checksums of bodies: which ones S3 knows, computing them while a body passes, comparing them with what was promised.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use serde::{Deserialize, Serialize};

/// A checksum algorithm of S3. Its serialised name is the one of the S3 API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// All of them.
    pub(crate) const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// Name in the S3 API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// Name of the header or trailer that carries it.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The algorithm that the S3 API calls `name`.
    pub(crate) fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The algorithm whose header is `header` (lower case).
    pub(crate) fn from_header(header: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.header() == header)
    }

    /// Whether a checksum of a whole object exists for multipart uploads (else only the checksum of its parts').
    pub(crate) fn is_crc(self) -> bool {
        matches!(self, Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Crc64nvme)
    }
}

/// Checksums by algorithm, in base64 as S3 writes them.
pub(crate) type Checksums = BTreeMap<Algorithm, String>;

/// What a multipart object's checksum was computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ChecksumKind {
    /// The bytes of the object.
    FullObject,
    /// The checksums of its parts; written with `-` and their number.
    Composite,
}

impl ChecksumKind {
    /// Name in the S3 API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ChecksumKind::FullObject => "FULL_OBJECT",
            ChecksumKind::Composite => "COMPOSITE",
        }
    }
}

/// What the client promised about a body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    /// Content-MD5, in base64.
    pub(crate) md5: Option<String>,
    /// Values that came before the body or after it.
    pub(crate) checksums: Checksums,
}

impl Promise {
    /// The first promise that `digests` breaks, by the name of its algorithm.
    pub(crate) fn broken_by(&self, digests: &Digests) -> Option<&'static str> {
        if self.md5.as_ref().is_some_and(|md5| *md5 != BASE64.encode(digests.md5)) {
            return Some("MD5");
        }
        let broken = self.checksums.iter().find(|(algorithm, value)| digests.checksums.get(algorithm) != Some(value));
        broken.map(|(algorithm, _)| algorithm.name())
    }
}

/// What a body turned out to be.
#[derive(Clone, Debug)]
pub(crate) struct Digests {
    pub(crate) md5: [u8; 16],
    pub(crate) checksums: Checksums,
}

/// Computes an MD5 and the wanted checksums in one pass.
pub(crate) struct Digester {
    md5: Md5,
    sums: ChecksumHasher,
}

impl Digester {
    /// A digester for an MD5 and these algorithms.
    pub(crate) fn new(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let mut sums = ChecksumHasher::default();
        for algorithm in algorithms {
            match algorithm {
                Algorithm::Crc32 => sums.crc32 = Some(Crc32::new()),
                Algorithm::Crc32c => sums.crc32c = Some(Crc32c::new()),
                Algorithm::Crc64nvme => sums.crc64nvme = Some(Crc64Nvme::new()),
                Algorithm::Sha1 => sums.sha1 = Some(Sha1::new()),
                Algorithm::Sha256 => sums.sha256 = Some(Sha256::new()),
            }
        }
        Self { md5: Md5::new(), sums }
    }

    /// Takes the next bytes of the body.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sums.update(bytes);
    }

    /// The digests of all bytes taken.
    pub(crate) fn finish(self) -> Digests {
        let sums = self.sums.finalize();
        let values = [
            (Algorithm::Crc32, sums.checksum_crc32),
            (Algorithm::Crc32c, sums.checksum_crc32c),
            (Algorithm::Crc64nvme, sums.checksum_crc64nvme),
            (Algorithm::Sha1, sums.checksum_sha1),
            (Algorithm::Sha256, sums.checksum_sha256),
        ];
        let checksums = values.into_iter().filter_map(|(algorithm, value)| Some((algorithm, value?))).collect();
        Digests { md5: self.md5.finalize(), checksums }
    }
}

/// ETag of a multipart object: the MD5 of its parts' MD5s and their number. `None` if a part's ETag is not an MD5.
pub(crate) fn multipart_etag<'a>(part_etags: impl ExactSizeIterator<Item = &'a str>) -> Option<String> {
    let parts = part_etags.len();
    let mut md5 = Md5::new();
    for etag in part_etags {
        md5.update(&from_hex(etag)?);
    }
    Some(format!("{}-{parts}", hex(&md5.finalize())))
}

/// Checksum over the parts' checksums, as S3 writes it. `None` if a part's checksum is not base64.
pub(crate) fn composite<'a>(
    algorithm: Algorithm,
    part_checksums: impl ExactSizeIterator<Item = &'a str>,
) -> Option<String> {
    let parts = part_checksums.len();
    let mut digester = Digester::new([algorithm]);
    for checksum in part_checksums {
        digester.update(&BASE64.decode(checksum).ok()?);
    }
    Some(format!("{}-{parts}", digester.finish().checksums.remove(&algorithm)?))
}

/// Whether `value` is the base64 of 16 bytes, as a Content-MD5 must be.
pub(crate) fn is_md5(value: &str) -> bool {
    BASE64.decode(value).is_ok_and(|bytes| bytes.len() == 16)
}

/// Lower case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of a hexadecimal string; `None` if it is not one.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests_of(body: &[u8]) -> Digests {
        let mut digester = Digester::new(Algorithm::ALL);
        for piece in body.chunks(4) {
            digester.update(piece);
        }
        digester.finish()
    }

    /// The values that the algorithms' definitions publish for `123456789`.
    #[test]
    fn check_values_are_met() {
        let digests = digests_of(b"123456789");
        let check = |algorithm, expect: &str| {
            let value = &digests.checksums[&algorithm];
            assert_eq!(hex(&BASE64.decode(value).unwrap()), expect, "{algorithm:?}");
        };
        check(Algorithm::Crc32, "cbf43926");
        check(Algorithm::Crc32c, "e3069283");
        check(Algorithm::Crc64nvme, "ae8b14860a799888");
        check(Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        check(Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
        assert_eq!(hex(&digests.md5), "25f9e794323b453885f5181f1b624d0b");
    }

    #[test]
    fn a_broken_promise_is_named() {
        let digests = digests_of(b"body");
        let kept = Promise { md5: Some(BASE64.encode(digests.md5)), checksums: digests.checksums.clone() };
        assert_eq!(kept.broken_by(&digests), None);
        for algorithm in Algorithm::ALL {
            let mut other = kept.clone();
            other.checksums.insert(algorithm, "AAAA".into());
            assert_eq!(other.broken_by(&digests), Some(algorithm.name()));
        }
        assert_eq!(Promise { md5: Some("AAAA".into()), ..kept }.broken_by(&digests), Some("MD5"));
    }

    #[test]
    fn multipart_etags_are_of_digests_not_of_bytes() {
        let parts = [hex(&digests_of(b"a").md5), hex(&digests_of(b"b").md5)];
        let raw: Vec<u8> = [digests_of(b"a").md5, digests_of(b"b").md5].concat();
        let expect = format!("{}-2", hex(&digests_of(&raw).md5));
        assert_eq!(multipart_etag(parts.iter().map(String::as_str)), Some(expect));
        assert_eq!(multipart_etag(["zz"].into_iter()), None);
    }
}
