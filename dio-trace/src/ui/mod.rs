//! The screen: a line per finding, and a closing summary; the live screen; the pages of `explain`.

mod causes;
mod check;
mod columns;
mod doctor;
mod gate;
mod nothing;
mod report;
mod screen;
mod top;

pub use causes::{cause_list, cause_page};
pub use check::check_page;
pub use doctor::doctor_page;
pub use gate::gate_page;
pub use report::{groups, recording, times};
pub use screen::{Screen, Style};
pub use top::{Theme, draw_top};

#[cfg(test)]
pub(crate) use causes::cause_document;
#[cfg(test)]
pub(crate) use top::tests::drawn as drawn_top;
