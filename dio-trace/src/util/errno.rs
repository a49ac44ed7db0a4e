//! Names of errno values.

/// Largest errno (include/linux/err.h: MAX_ERRNO): no kernel result is below `-MAX`.
pub const MAX: i64 = 4_095;

/// The name of a positive errno, or its number.
#[must_use]
pub fn name(errno: i64) -> String {
    let known = NAMES.iter().find(|(number, _)| i64::from(*number) == errno);
    known.map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name)),)*] };
}

/// Errors that a read or write of a file may return (EOPNOTSUPP and ENOTSUP have the same number).
const NAMES: &[(i32, &str)] = names! {
    EPERM ENOENT EINTR EIO ENXIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EINVAL ENFILE EFBIG
    ENOSPC EROFS EPIPE EDOM ERANGE ENODATA ETIME ENOLINK EPROTO EBADMSG EOVERFLOW EILSEQ
    EOPNOTSUPP ESTALE EDQUOT ECANCELED EREMOTEIO EUCLEAN ETIMEDOUT EHWPOISON ENOTCONN
    ECONNRESET ENOSYS EMSGSIZE ETXTBSY EISDIR ENODEV
};

#[cfg(test)]
mod tests {
    #[test]
    fn names_and_numbers() {
        assert_eq!(super::name(22), "EINVAL");
        assert_eq!(super::name(95), "EOPNOTSUPP");
        assert_eq!(super::name(512), "512");
    }
}
