//! Forecasts, without a request, whether direct I/O on a file will fall back.

use crate::cause::{Case, Certainty, Explanation, rules::LASTING};

/// The reason that will certainly keep a request from being direct. A reason that is only likely
/// is left out: trying shows. `case` is a made-up request that went through the page cache.
#[must_use]
pub fn forecast(case: &Case<'_>) -> Option<Explanation> {
    // If statx says that the file takes direct I/O, no attribute of the file forbids it.
    let allowed = case.attrs.takes_direct() == Some(true) && !case.is_write();
    if allowed || is_zoned_read(case) {
        return None;
    }
    LASTING
        .iter()
        .filter_map(|rule| Explanation::by(rule, case))
        .find(|explanation| explanation.certainty == Certainty::Proven)
}

/// f2fs on a zoned device reports in statx what holds for writes (fs/f2fs/file.c:f2fs_getattr).
fn is_zoned_read(case: &Case<'_>) -> bool {
    case.on(&["f2fs"]) && !case.is_write() && case.attrs.device.zoned == Some(true)
}
