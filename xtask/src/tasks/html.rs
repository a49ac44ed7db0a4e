//! `cargo xtask html`: tests the page that `dio-trace report --html` writes, in a browser.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::host::{
    browser::Browser,
    build,
    cmd::{self, output, say, text},
    packages, paths,
};

/// Test the HTML page of a report in headless Chromium, and take screenshots of it
#[derive(Args)]
pub(crate) struct HtmlArgs {
    /// Use this recording instead of a made-up one, and only take screenshots
    recording: Option<PathBuf>,
}

pub(crate) fn main(args: &HtmlArgs) -> Result<()> {
    let folder = match &args.recording {
        None => check()?,
        Some(recording) => {
            let recording = recording.canonicalize().context("no such recording")?;
            let made = make(Some(&recording))?;
            let mut browser = Browser::start(&made.folder.join("browser"))?;
            pictures(&mut browser, &made)?;
            made.folder
        }
    };
    say(format!("the page and its pictures are in {}", folder.display()));
    Ok(())
}

/// A page to test.
struct Made {
    folder: PathBuf,
    page: PathBuf,
    /// `report --json` of the same recording.
    report: Value,
}

/// Writes the page of `recording`, or of a made-up recording if there is none.
fn make(recording: Option<&Path>) -> Result<Made> {
    packages::ensure(&[packages::BROWSER])?;
    let mut build = build::cargo()?;
    build.args(["build", "--locked", "--package", "dio-trace", "--bin", "dio-trace"]);
    cmd::run(build.args(["--example", "sample"]))?;
    let binaries = paths::target()?.join("debug");
    let folder = paths::target()?.join("html");
    paths::fresh(&folder)?;
    let sample = folder.join("sample.dio");
    if recording.is_none() {
        cmd::run(Command::new(binaries.join("examples/sample")).arg(&sample))?;
    }
    let recording = text(recording.unwrap_or(Path::new("sample.dio")))?;
    let page = folder.join("report.html");
    let report = |words: &[&str]| {
        let mut command = Command::new(binaries.join("dio-trace"));
        output(
            command.args(["report", recording]).args(words).env("TZ", "UTC").current_dir(&folder),
        )
    };
    report(&["--html", text(&page)?])?;
    let report = serde_json::from_str(&report(&["--json"])?)?;
    Ok(Made { folder, page, report })
}

/// Runs all tests of the page. Returns the folder that it is in.
pub(crate) fn check() -> Result<PathBuf> {
    let made = make(None)?;
    let mut browser = Browser::start(&made.folder.join("browser"))?;
    browser.size(1280, 900)?;
    browser.show(&made.page)?;
    totals(&mut browser, &made.report)?;
    names_are_inert(&mut browser)?;
    causes_come_first(&mut browser)?;
    contents(&mut browser)?;
    folding(&mut browser)?;
    sorting(&mut browser)?;
    opening(&mut browser)?;
    filtering(&mut browser)?;
    themes(&mut browser)?;
    narrow(&mut browser)?;
    pictures(&mut browser, &made)?;
    let complaints = browser.complaints();
    ensure!(
        complaints.is_empty(),
        "the page reported errors or made requests: {}",
        complaints.join("; ")
    );
    // Last, because it provokes errors.
    policy(&mut browser)?;
    Ok(made.folder)
}

/// Fails unless a JavaScript expression has this value.
fn is(browser: &mut Browser, expression: &str, wanted: &Value) -> Result<()> {
    let value = browser.value(expression)?;
    ensure!(value == *wanted, "{expression} is {value}, not {wanted}");
    Ok(())
}

/// Checks that the numbers that the page shows equal those of `report --json`.
fn totals(browser: &mut Browser, report: &Value) -> Result<()> {
    let summary = &report["summary"];
    let column = |table: &str, n: u32| {
        format!(
            "[...document.querySelectorAll('#{table} tr.row')].map(r => \
             Number(r.cells[{n}].textContent.replaceAll(',', ''))).reduce((a, b) => a + b, 0)"
        )
    };
    let ended: u64 = summary["requests"]
        .as_object()
        .context("no requests")?
        .values()
        .filter_map(Value::as_u64)
        .sum();
    for (table, n) in [("verdicts", 1), ("files", 1), ("processes", 1), ("fs", 1), ("rows", 5)] {
        is(browser, &column(table, n), &json!(ended))?;
    }
    for (table, n) in [("verdicts", 2), ("files", 2), ("causes", 1), ("findings", 5), ("rows", 6)] {
        is(browser, &column(table, n), &summary["findings"])?;
    }
    let card = "Number(document.querySelector('.card b').textContent.replaceAll(',', ''))";
    is(browser, card, &json!(ended))
}

/// Checks that names are shown as text: the sample has a file whose name is HTML with a script and
/// an image.
fn names_are_inert(browser: &mut Browser) -> Result<()> {
    is(browser, "document.title.startsWith('dio-trace: ')", &json!(true))?;
    is(browser, "document.querySelectorAll('script').length", &json!(2))?;
    is(browser, "document.images.length", &json!(0))?;
    is(browser, "document.body.innerText.includes('<img src=x onerror=alert(1)>')", &json!(true))
}

/// Checks that the answer and the causes stand above the charts.
fn causes_come_first(browser: &mut Browser) -> Result<()> {
    let top = |what: &str| format!("document.querySelector('{what}').getBoundingClientRect().top");
    let order =
        format!("{} < {} && {1} < {}", top("#answer"), top("#causes"), top("#verdicts-over-time"));
    is(browser, &order, &json!(true))
}

/// Checks that each entry of the contents list leads to its section.
fn contents(browser: &mut Browser) -> Result<()> {
    let links = "[...document.querySelectorAll('nav a')]";
    is(browser, &format!("{links}.length > 5"), &json!(true))?;
    let lead = format!(
        "{links}.every(a => document.querySelector(a.getAttribute('href')).dataset.title \
         === a.textContent)"
    );
    is(browser, &lead, &json!(true))
}

/// Checks that a long table shows its first rows, and all on demand; and that a filter finds rows
/// that are folded away.
fn folding(browser: &mut Browser) -> Result<()> {
    const ROWS: &str = "[...document.querySelectorAll('#rows tr.row')]";
    let shown = format!("{ROWS}.filter(r => !r.hidden).length");
    is(browser, &format!("{ROWS}.length > 20"), &json!(true))?;
    is(browser, &shown, &json!(20))?;
    let folded = format!("{ROWS}.filter(r => r.hidden)[0].cells[0].textContent");
    let Value::String(path) = browser.value(&folded)? else { anyhow::bail!("no row is folded") };
    browser.click("#filter")?;
    browser.text(&path)?;
    is(browser, &format!("{shown} > 0"), &json!(true))?;
    browser.value("document.getElementById('filter').select()")?;
    browser.text(" ")?;
    is(browser, &shown, &json!(20))?;
    browser.click("#every-file .unfold")?;
    is(browser, &format!("{shown} === {ROWS}.length"), &json!(true))
}

fn sorting(browser: &mut Browser) -> Result<()> {
    const FIRST: &str = "document.querySelector('#files tr.row td').textContent";
    const HEAD: &str = "#files th:nth-child(2)";
    let sorted = format!("document.querySelector({HEAD:?}).getAttribute('aria-sort')");
    browser.click(&format!("{HEAD} button"))?;
    is(browser, &sorted, &json!("descending"))?;
    is(browser, FIRST, &json!("/var/lib/postgresql/16/main/base/16384/24576"))?;
    browser.value(&format!("document.querySelector({HEAD:?}).firstChild.focus()"))?;
    browser.enter()?;
    is(browser, &sorted, &json!("ascending"))?;
    is(browser, FIRST, &json!("/mnt/old-disk/archive.tar"))
}

fn opening(browser: &mut Browser) -> Result<()> {
    const MORE: &str = "document.querySelector('#causes tr.more')";
    is(browser, &format!("{MORE}.hidden"), &json!(true))?;
    browser.click("#causes .open")?;
    is(browser, &format!("{MORE}.hidden"), &json!(false))?;
    is(
        browser,
        &format!("{MORE}.textContent.includes('/srv/mysql/shop/orders.ibd')"),
        &json!(true),
    )?;
    is(
        browser,
        &format!("{MORE}.querySelector('.fix').textContent.includes('defragment')"),
        &json!(true),
    )?;
    // The command of a remedy is copied, or selected where the clipboard is refused.
    browser.click("#causes .copy")?;
    let done = "document.querySelector('#causes .copy').textContent === 'copied' || \
                getSelection().toString() === document.querySelector('#causes code').textContent";
    is(browser, done, &json!(true))?;
    browser.click("#causes .open")?;
    is(browser, &format!("{MORE}.hidden"), &json!(true))
}

fn filtering(browser: &mut Browser) -> Result<()> {
    const SHOWN: &str =
        "[...document.querySelectorAll('#files tr.row')].filter(r => !r.hidden).length";
    browser.click("#filter")?;
    browser.text("ORDERS mysql")?;
    is(browser, SHOWN, &json!(1))?;
    is(
        browser,
        "document.querySelector('.filter output').textContent.includes(' of ')",
        &json!(true),
    )?;
    browser.value("document.getElementById('filter').select()")?;
    browser.text("no such file anywhere")?;
    is(browser, SHOWN, &json!(0))?;
    browser.value("document.getElementById('filter').select()")?;
    browser.text(" ")?;
    is(browser, SHOWN, &json!(20))
}

/// Checks that the page follows the system's light or dark theme, and that a click switches it.
fn themes(browser: &mut Browser) -> Result<()> {
    let paper = "getComputedStyle(document.body).backgroundColor";
    for (scheme, other) in [("light", "dark"), ("dark", "light")] {
        prefer(browser, scheme)?;
        let before = browser.value(paper)?;
        let offers = "document.getElementById('theme').textContent.toLowerCase().slice(2)";
        is(browser, offers, &json!(other))?;
        browser.click("#theme")?;
        is(browser, "document.documentElement.dataset.theme", &json!(other))?;
        ensure!(browser.value(paper)? != before, "the theme changes nothing: {before}");
        browser.click("#theme")?;
        is(browser, paper, &before)?;
        browser.value("delete document.documentElement.dataset.theme")?;
    }
    Ok(())
}

fn prefer(browser: &mut Browser, scheme: &str) -> Result<()> {
    let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
    browser.ask("Emulation.setEmulatedMedia", json!({"features": features}))?;
    browser.settle()
}

/// Checks that on a phone only tables scroll sideways, not the page.
fn narrow(browser: &mut Browser) -> Result<()> {
    browser.size(390, 800)?;
    is(browser, "document.documentElement.scrollWidth <= window.innerWidth", &json!(true))?;
    // A figure of ten digits fits its card.
    browser.value("document.querySelector('.card b').textContent = '9,999,999,999'")?;
    let fits = "(b => b.scrollWidth <= b.clientWidth)(document.querySelector('.card b'))";
    is(browser, fits, &json!(true))?;
    browser.size(1280, 900)?;
    is(browser, fits, &json!(true))
}

fn pictures(browser: &mut Browser, made: &Made) -> Result<()> {
    browser.show(&made.page)?;
    browser.size(1280, 1000)?;
    for scheme in ["light", "dark"] {
        prefer(browser, scheme)?;
        let path = made.folder.join(format!("report-{scheme}.png"));
        fs::write(&path, browser.picture()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Checks the Content-Security-Policy: the browser fetches nothing for the page and runs no
/// injected script.
fn policy(browser: &mut Browser) -> Result<()> {
    let fetched = "fetch('http://127.0.0.1:9/').then(() => 'fetched', () => 'refused')";
    is(browser, fetched, &json!("refused"))?;
    let ran = "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; \
               document.body.append(s); return window.ran === undefined; })()";
    is(browser, ran, &json!(true))?;
    let said = browser.complaints().join(" ");
    ensure!(said.contains("Content Security Policy"), "the policy did not block it: {said}");
    Ok(())
}
