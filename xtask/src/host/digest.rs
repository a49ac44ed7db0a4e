//! SHA-256, as `sha256sum` writes it.
use sha2::{Digest as _, Sha256};

/// The digest of these bytes, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
