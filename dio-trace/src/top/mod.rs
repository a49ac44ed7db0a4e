//! The state of the live screen: what was counted and found, and what a person asked to see of it.
//!
//! Nothing here draws, reads a clock or a keyboard: `ui/top` draws it, `cli/top` feeds it.

mod findings;
mod keys;
mod model;
mod rates;
mod table;

pub use findings::{Finding, Findings, MAX_FINDINGS, What};
pub use keys::{Command, command};
pub use model::{About, Bys, Model, Page, Status, Step};
pub use rates::Rates;
pub use table::{HISTORY, MAX_ROWS, Row, Sort, Table};
