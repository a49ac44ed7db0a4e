//! The live screen of `top`: its state (counts, findings, and what is selected) and how it is
//! drawn.
//!
//! The state reads neither clock nor keyboard: `cli/top` feeds it, and `draw` draws it.

mod draw;
mod findings;
mod keys;
mod model;
mod rates;
mod table;

#[cfg(test)]
pub(crate) use draw::tests::drawn as drawn_top;
pub use draw::{Theme, draw_top};
pub use findings::{Finding, Findings, MAX_FINDINGS, What};
pub use keys::{Command, command};
pub use model::{About, Bys, Model, Page, Status, Step};
pub use rates::Rates;
pub use table::{HISTORY, MAX_ROWS, Row, Sort, Table};
