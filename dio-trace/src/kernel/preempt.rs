//! Determines whether the kernel may preempt a task while it runs a probe.

use std::fs;

/// True unless the kernel is known not to preempt kernel code. This is read from the preemption
/// model in debugfs or, if debugfs cannot be read, from the build configuration in the version
/// string.
#[must_use]
pub fn preemptible() -> bool {
    let model = fs::read_to_string("/sys/kernel/debug/sched/preempt").ok();
    let build = fs::read_to_string("/proc/sys/kernel/version").ok();
    judge(model.as_deref(), build.as_deref())
}

/// `model` lists the models with the current one in parentheses: "none (voluntary) full"
/// (kernel/sched/debug.c:sched_dynamic_show); `build` is `uname -v`.
fn judge(model: Option<&str>, build: Option<&str>) -> bool {
    match model.and_then(|text| text.split(['(', ')']).nth(1)) {
        Some(current) => matches!(current, "full" | "lazy"),
        None => build.is_none_or(|build| build.contains("PREEMPT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_in_parentheses_counts() {
        assert!(judge(Some("full (lazy)\n"), Some("#1 SMP PREEMPT_DYNAMIC")));
        assert!(judge(Some("none voluntary (full)\n"), None));
        assert!(!judge(Some("none (voluntary) full\n"), Some("#1 SMP PREEMPT_DYNAMIC")));
    }

    #[test]
    fn without_it_the_build_does() {
        assert!(judge(None, Some("#1 SMP PREEMPT_DYNAMIC Debian")));
        assert!(!judge(None, Some("#1 SMP Debian")));
        assert!(!judge(Some("something else"), Some("#1 SMP Debian")));
        assert!(judge(None, None));
    }
}
