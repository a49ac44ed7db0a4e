//! Tests of the live screen at various sizes.

use ratatui::{Terminal, backend::TestBackend};

use crate::{
    flow::group::By,
    output::top::{Command, command, draw::*},
    testing::golden::top_model,
};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

const PLAIN: Theme = Theme { colour: false };

/// The screen as text, one string per line.
pub(crate) fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw_top(frame, model, PLAIN)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn press(model: &mut Model, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        };
        let key = KeyEvent::new(code, KeyModifiers::NONE);
        model.obey(command(key, model.typing).unwrap());
    }
}

#[test]
fn rows_findings_and_help_at_80x24() {
    let mut model = top_model();
    let rows = drawn(&model, 80, 24).join("\n");
    for part in [
        "-- findings of postgres/42: 6 --",
        "data-journal",
        "REQ/S",
        "BYTES/S",
        "DIRECT",
        "FIND/S",
        "P99<",
        "postgres/42",
        "? help",
        "█",
    ] {
        assert!(rows.contains(part), "{part}: {rows}");
    }
    press(&mut model, "2");
    let files = drawn(&model, 80, 24).join("\n");
    assert!(files.contains("wal.log") && files.contains("FILE"), "{files}");
    press(&mut model, "/journal\n\n");
    let found = drawn(&model, 80, 24).join("\n");
    for part in
        ["fallback", "cause:  data-journal", "why:", "fix:", "dio-trace explain", "-- 1 of 1"]
    {
        assert!(found.contains(part), "{part}: {found}");
    }
    press(&mut model, "?");
    let help = drawn(&model, 80, 24).join("\n");
    assert!(help.contains("Ctrl-C") && help.contains("2 attached by fentry"), "{help}");
}

#[test]
fn a_small_window_shows_less_and_a_tiny_one_says_so() {
    let mut model = top_model();
    let rows = drawn(&model, 40, 10).join("\n");
    assert!(rows.contains("REQ/S") && rows.contains("stgres/42"), "{rows}");
    assert!(!rows.contains("HISTORY") && !rows.contains("BYTES"), "{rows}");
    press(&mut model, "2/journal\n\n");
    let found = drawn(&model, 40, 10).join("\n");
    assert!(found.contains("fallback") && found.contains("larger window"), "{found}");
    for (width, height) in [(1, 1), (29, 24), (80, 6), (7, 3)] {
        let text = drawn(&model, width, height).concat();
        assert!(!text.contains("REQ/S"), "{text}");
    }
    assert!(drawn(&model, 29, 24).concat().contains("too small"));
}

#[test]
fn a_large_window_shows_whole_paths() {
    let mut model = top_model();
    press(&mut model, "2");
    let files = drawn(&model, 200, 50).join("\n");
    assert!(files.contains("/journal/with/a/rather/long/path/to/the/table.db"), "{files}");
}

#[test]
fn every_page_fits_every_size() {
    let mut model = top_model();
    for keys in ["", "?", "?2", "\n", "?", "?\x1b3", "4", "\n", "5", "/zzz", "\x1b/", "\x1b"] {
        press(&mut model, keys);
        for (width, height) in [(80, 24), (40, 10), (200, 50), (30, 7), (65, 9), (2, 2)] {
            let lines = drawn(&model, width, height);
            let text = lines.concat();
            assert!(!text.chars().any(char::is_control), "{text:?}");
            let last = lines.last().unwrap();
            let whole = width >= LEAST.0 && height >= LEAST.1;
            assert!(!whole || last.contains("quit") || last.contains("Esc clear"), "{lines:?}");
        }
    }
}

#[test]
fn keys_lead_where_they_should() {
    let mut model = top_model();
    press(&mut model, "2s/ODD");
    assert!(model.typing && model.sort == crate::output::top::Sort::P50);
    assert!(drawn(&model, 80, 24)[3].contains("filter: ODD_"));
    assert_eq!(model.rows().len(), 1);
    press(&mut model, "\x08\x08\x08\n");
    assert!(!model.typing && model.rows().len() > 5);
    press(&mut model, "G");
    let last = model.rows().len() - 1;
    assert_eq!(model.selected(&model.rows()), Some(last));
    press(&mut model, "r");
    assert_eq!(model.selected(&model.rows()), Some(0), "the selection moves with its row");
    press(&mut model, "j?");
    assert!(model.help);
    press(&mut model, "\x1b\n");
    assert!(model.page == Page::Findings && !model.help);
    press(&mut model, "\x1b");
    assert_eq!((model.page, model.by), (Page::Rows, By::File));
    press(&mut model, "\t\t");
    assert_eq!(model.by, By::Cause);
    assert_eq!(model.obey(Command::Back), crate::output::top::Step::Stay, "Esc never quits");
    assert_eq!(model.obey(Command::Quit), crate::output::top::Step::Quit);
}

#[test]
fn sums_follow_the_filter() {
    let mut model = top_model();
    press(&mut model, "2/journal");
    let lines = drawn(&model, 80, 24);
    let [row] = &model.rows()[..] else { panic!("{lines:?}") };
    let (requests, findings) = (row.requests, row.findings);
    assert!(requests < model.status.all.requests.values().sum());
    let sums = format!("{requests} requests in these rows; {findings} findings");
    assert!(lines[2].starts_with(&sums), "{lines:?}");
    assert!(lines[3].contains("1 of 10 rows"), "{lines:?}");
    press(&mut model, "\x1b");
    assert!(!drawn(&model, 80, 24)[2].contains("in these rows"));
}

#[test]
fn a_name_from_outside_and_a_text_are_harmless() {
    let mut model = top_model();
    press(&mut model, "2/evil");
    model.obey(Command::Type('\x1b'));
    model.obey(Command::Type('\u{202e}'));
    let line = &drawn(&model, 80, 24)[3];
    assert!(line.contains("evil\\u{202e}"), "{line}");
    press(&mut model, "\x08\n");
    let lines = drawn(&model, 80, 24).concat();
    assert!(lines.contains("evil\\x1b[2J name.db"), "{lines}");
}

/// The numbers in a text, commas removed.
fn numbers(text: &str) -> Vec<u64> {
    let text = text.replace(',', "");
    let words = text.split(|c: char| !c.is_ascii_digit());
    words.filter(|word| !word.is_empty()).map(|word| word.parse().unwrap()).collect()
}

#[test]
fn what_was_counted_since_the_start_adds_up_at_every_width() {
    let model = top_model();
    let findings = model.status.all.findings;
    let all: u64 = model.status.all.requests.values().sum();
    let mut seen = 0;
    for width in LEAST.0..160 {
        let line = &drawn(&model, width, 24)[2];
        let mut said = numbers(line);
        assert_eq!(said.pop(), Some(findings), "{line}");
        let Some((total, parts)) = said.split_first() else { continue };
        assert_eq!(*total, all, "{line}");
        assert!(parts.is_empty() || parts.iter().sum::<u64>() == all, "{line}");
        seen = seen.max(parts.len());
    }
    assert_eq!(seen, model.status.all.parts().len(), "at last every verdict is named");
}

#[test]
fn the_first_frame_shows_counts_and_none_are_claimed_before() {
    let (totals, mut enricher) = crate::testing::golden::named();
    let mut model = Model::new(crate::output::top::About::default(), By::Process);
    let before = drawn(&model, 80, 24).join("\n");
    assert!(before.contains("collecting") && !before.contains("No O_DIRECT"), "{before}");
    model.begin(&totals, &mut enricher);
    let first = drawn(&model, 80, 24).join("\n");
    assert!(first.contains("10 requests: 4 direct, 2 fallback"), "{first}");
    assert!(first.contains("; 6 findings") && first.contains("postgres/42"), "{first}");
    assert!(!first.contains("No O_DIRECT"), "{first}");
    // Findings are counted in the kernel, but no request has come through the ring buffer yet.
    press(&mut model, "4");
    let causes = drawn(&model, 80, 24).join("\n");
    assert!(causes.contains("6 findings counted") && !causes.contains("No finding"), "{causes}");
}

#[test]
fn rates_are_short() {
    let cases = [
        (0.0, "0"),
        (0.01, "<0.1"),
        (0.5, "0.5"),
        (9.0, "9"),
        (12_345.6, "12,346"),
        (123_456.0, "123k"),
        (7_890_000.0, "7.9M"),
    ];
    for (number, text) in cases {
        assert_eq!(rate(number), text);
    }
}
