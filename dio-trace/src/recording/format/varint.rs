//! Variable-length integers (LEB128): seven bits per byte, lowest first.

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Removes a number from the front; `None` if the bytes end, or the number has more than 64 bits.
#[inline]
pub(super) fn get(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

/// Zigzag encoding: maps signed integers of small magnitude to small unsigned ones.
pub(super) const fn fold(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Decodes [`fold`].
pub(super) const fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(get(&mut &bytes[..]), Some(value));
            assert_eq!(get(&mut &bytes[..bytes.len() - 1]), None);
            assert_eq!(fold(unfold(value)), value);
        }
        assert_eq!(get(&mut &[0xff; 11][..]), None);
        assert_eq!((fold(-1), fold(1), fold(i64::MIN)), (1, 2, u64::MAX));
    }
}
