//! Text: a line per finding, a closing summary, and the pages of `explain`, `check` and `doctor`.

mod causes;
mod check;
pub(crate) mod columns;
mod doctor;
mod gate;
mod nothing;
pub(crate) mod report;
pub(crate) mod screen;

pub use causes::{cause_list, cause_page};
pub use check::check_page;
pub use doctor::doctor_page;
pub use gate::gate_page;
pub use report::{groups, recording, times};
pub use screen::{Screen, Style};

#[cfg(test)]
pub(crate) use causes::cause_document;
