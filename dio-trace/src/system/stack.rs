//! A program's stack, as it is shown and kept.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Frames that the kernel takes (PERF_MAX_STACK_DEPTH).
pub const MAX_FRAMES: usize = 127;

/// The functions a program was in when it made a request, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// The same number for the same stack, as long as the tracer runs or in one recording.
    pub id: u32,
    pub frames: Vec<Frame>,
}

/// A function on a stack. Names are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Demangled; `None`: not known.
    pub symbol: Option<String>,
    /// Bytes from the symbol's start.
    pub offset: u64,
    /// The file that the code is from, as its process sees it.
    pub module: Option<String>,
    /// In the process's memory.
    pub address: u64,
}

impl Frame {
    /// As a line: `symbol+0x1f (libc.so.6)`.
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

    /// As flame graphs name it; a function has one name wherever in it the call is.
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
    /// Frames with `;` between them, the outermost first.
    #[must_use]
    pub fn folded(&self) -> String {
        let names: Vec<String> =
            self.frames.iter().rev().map(|frame| one_frame(&frame.name())).collect();
        names.join(";")
    }
}

/// A name in which nothing ends a frame of a folded line.
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
