//! What is shown and written: text, the live screen, the page, tables for other programs.

pub mod document;
pub mod export;
pub mod html;
pub mod json_lines;
pub mod text;
pub mod top;
