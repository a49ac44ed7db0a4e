//! Outputs: text, the live screen, JSON, the HTML page, and export formats for other programs.

pub mod document;
pub mod export;
pub mod html;
pub mod json_lines;
pub mod metrics;
pub mod text;
pub mod top;
