//! One request: opened at its issue, finished at its completion.

pub mod finish;
pub mod open;
