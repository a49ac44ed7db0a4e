//! The version text: the version of the package, the commit it was built from, and a hash of the
//! eBPF object.

use std::sync::LazyLock;

use crate::tracer::OBJECT;

/// The version text, such as "0.1.0 (commit abc, object 0123456789abcdef)".
pub(super) static TEXT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (commit {}, object {:016x})",
        env!("CARGO_PKG_VERSION"),
        env!("DIO_TRACE_COMMIT"),
        fnv1a(OBJECT)
    )
});

/// FNV-1a, 64 bits. Distinguishes objects; it is not a cryptographic hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(super::fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
