//! What the rule table says before there is a request.

use crate::cause::{Case, Explanation, rules::LASTING};

/// What will keep a request like this one from being direct, for certain: what is only likely is
/// left to be tried. `case` is one that did go through the page cache.
#[must_use]
pub fn forecast(case: &Case<'_>) -> Option<Explanation> {
    if is_zoned_read(case) {
        return None;
    }
    // None of its properties forbids it then.
    let allowed = case.attrs.takes_direct() == Some(true);
    LASTING.iter().find_map(|rule| {
        let why = (rule.test)(case).filter(|why| !why.starts_with("likely"))?;
        (!allowed || case.is_write()).then(|| Explanation {
            id: rule.id,
            why,
            fix: rule.fix.to_owned(),
        })
    })
}

/// f2fs on a zoned device says of its files what holds for writes (fs/f2fs/file.c:f2fs_getattr).
fn is_zoned_read(case: &Case<'_>) -> bool {
    case.on(&["f2fs"]) && !case.is_write() && case.attrs.device.zoned == Some(true)
}
