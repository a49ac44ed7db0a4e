//! The answer to a question of docs/questions.md.
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Answer {
    /// The commands, as a user types them.
    pub(crate) commands: Vec<String>,
    /// The first lines of the last command's output.
    pub(crate) lines: Vec<String>,
}
