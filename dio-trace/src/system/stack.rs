//! The user-space call stack of a request, as shown and recorded.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Most frames that the kernel captures (PERF_MAX_STACK_DEPTH).
pub const MAX_FRAMES: usize = 127;

/// The call stack of a program when it issued a request, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stack {
    /// Identifies the stack while the tracer runs, or within one recording.
    pub id: u32,
    pub frames: Vec<Frame>,
}

/// A frame of a stack. Names are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Frame {
    /// Demangled function name; `None` if unknown.
    pub symbol: Option<String>,
    /// Bytes from the start of the function.
    pub offset: u64,
    /// Path of the file that contains the code, as the process sees it.
    pub module: Option<String>,
    /// Virtual address in the process.
    pub address: u64,
}

impl Frame {
    /// The frame as one line: `symbol+0x1f (libc.so.6)`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = match &self.symbol {
            Some(symbol) => format!("{symbol}+{:#x}", self.offset),
            None => format!("{:#x}", self.address),
        };
        if let Some(module) = &self.module {
            let _ = write!(out, " ({})", file_name(module));
        }
        out
    }

    /// The frame's name in flame graphs. It does not contain the offset, so that all calls made by
    /// one function are merged.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.symbol, &self.module) {
            (Some(symbol), _) => symbol.clone(),
            (None, Some(module)) => format!("[{}]", file_name(module)),
            (None, None) => "[unknown]".to_owned(),
        }
    }
}

impl Stack {
    /// The stack in folded form: names separated by `;`, outermost frame first.
    #[must_use]
    pub fn folded(&self) -> String {
        let names: Vec<String> =
            self.frames.iter().rev().map(|frame| one_frame(&frame.name())).collect();
        names.join(";")
    }
}

/// Escapes `;`, which separates the frames of a folded stack.
pub(crate) fn one_frame(name: &str) -> String {
    name.replace(';', "\\x3b")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(symbol: Option<&str>, module: Option<&str>) -> Frame {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Frame { symbol: owned(symbol), offset: 31, module: owned(module), address: 0x1000 }
    }

    #[test]
    fn frames_have_a_line_and_a_name() {
        let known = frame(Some("pread64"), Some("/usr/lib/libc.so.6"));
        assert_eq!(
            (known.text(), known.name()),
            ("pread64+0x1f (libc.so.6)".into(), "pread64".into())
        );
        let module = frame(None, Some("/srv/app"));
        assert_eq!((module.text(), module.name()), ("0x1000 (app)".into(), "[app]".into()));
        let nothing = frame(None, None);
        assert_eq!((nothing.text(), nothing.name()), ("0x1000".into(), "[unknown]".into()));
        let odd = frame(Some("a;b"), None);
        let stack = Stack { id: 1, frames: vec![known, odd, nothing] };
        assert_eq!(stack.folded(), "[unknown];a\\x3bb;pread64");
    }
}
