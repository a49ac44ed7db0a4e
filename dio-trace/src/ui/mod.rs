//! The screen: a line per finding, and a closing summary; and the pages of `explain`.

mod causes;
mod check;
mod columns;
mod doctor;
mod gate;
mod report;
mod screen;

pub use causes::{cause_list, cause_page};
pub use check::check_page;
pub use doctor::doctor_page;
pub use gate::gate_page;
pub use report::{groups, recording, times};
pub use screen::{Screen, Style};

#[cfg(test)]
pub(crate) use causes::cause_document;
