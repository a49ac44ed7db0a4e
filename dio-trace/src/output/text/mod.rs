//! Text output: findings and the closing summary of a run, and the pages of `report`, `explain`,
//! `check`, `doctor` and the gate.

mod cause_blocks;
mod causes;
mod check;
pub(crate) mod columns;
mod doctor;
mod gate;
pub(crate) mod groups;
mod kernels;
mod page_cache;
pub(crate) mod report;
mod said;
pub(crate) mod screen;

pub use causes::{cause_list, cause_page};
pub use check::check_page;
pub use doctor::doctor_page;
pub use gate::gate_page;
pub use groups::{MAX_ROWS, groups};
pub(crate) use kernels::history;
pub use kernels::kernel_changes;
pub use page_cache::{CachePage, Lately, page_cache};
pub use report::{labelled, recording, times};
pub use screen::{Screen, Style, answer};

#[cfg(test)]
pub(crate) use causes::cause_document;
#[cfg(test)]
pub(crate) use kernels::kernel_document;
