//! A browser without a window, driven by the Chrome DevTools protocol over two pipes.
use std::{
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

const PROGRAM: &str = "chromium-headless-shell";
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the browser reads commands, and where it answers.
const COMMANDS: RawFd = 3;
const ANSWERS: RawFd = 4;

/// One page in a browser of its own.
pub(crate) struct Browser {
    child: Child,
    commands: PipeWriter,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What happened beside the answers.
    events: Vec<Value>,
}

impl Browser {
    /// Starts it; it keeps its files in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let (theirs, commands) = io::pipe()?;
        let (answers, ours) = io::pipe()?;
        let mut command = Command::new(PROGRAM);
        command
            // Its own sandbox needs a user namespace, which root and containers often lack; it is
            // shown nothing but our page.
            .args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .arg(format!("--user-data-dir={}", folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        hand_over(&mut command, theirs.as_raw_fd(), ours.as_raw_fd());
        let child = command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in split(answers) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Self { child, commands, messages, session: None, last: 0, events: Vec::new() };
        browser.open()?;
        Ok(browser)
    }

    fn open(&mut self) -> Result<()> {
        let made = self.ask("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": made["targetId"], "flatten": true});
        let attached = self.ask("Target.attachToTarget", attach)?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.ask(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(())
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{message}\0").as_bytes())?;
        let id = json!(self.last);
        let answer = self.wait(method, |message| message["id"] == id)?;
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]["message"]);
        Ok(answer["result"].clone())
    }

    /// The first message that `fits`; those before it are kept.
    fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(message) = self.messages.recv_timeout(left) else {
                bail!("the browser does not answer ({what})");
            };
            if fits(&message) {
                return Ok(message);
            }
            self.events.push(message);
        }
    }

    /// Shows a file; returns when it is loaded.
    pub(crate) fn show(&mut self, page: &Path) -> Result<()> {
        let url = format!("file://{}", page.display());
        self.ask("Page.navigate", json!({"url": url}))?;
        self.wait("load", |message| message["method"] == "Page.loadEventFired")?;
        self.settle()
    }

    /// Two frames: everything that was asked for has been drawn.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))";
        self.value(frames).map(drop)
    }

    /// What a JavaScript expression is.
    pub(crate) fn value(&mut self, expression: &str) -> Result<Value> {
        let params = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let answer = self.ask("Runtime.evaluate", params)?;
        let thrown = &answer["exceptionDetails"];
        ensure!(thrown.is_null(), "`{expression}`: {}", thrown["exception"]["description"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Clicks into the middle of the first element that the selector finds.
    pub(crate) fn click(&mut self, selector: &str) -> Result<()> {
        let middle = format!(
            "(() => {{ const e = document.querySelector({selector:?}); \
             e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); \
             return [b.x + Math.min(b.width / 2, 20), b.y + b.height / 2]; }})()"
        );
        let at = self.value(&middle)?;
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({
                "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1,
            });
            self.ask("Input.dispatchMouseEvent", params)?;
        }
        self.settle()
    }

    /// Presses Enter where the focus is.
    pub(crate) fn enter(&mut self) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let params = json!({
                "type": kind, "key": "Enter", "code": "Enter", "text": "\r",
                "windowsVirtualKeyCode": 13,
            });
            self.ask("Input.dispatchKeyEvent", params)?;
        }
        self.settle()
    }

    /// Types into what has the focus.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.ask("Input.insertText", json!({"text": text}))?;
        self.settle()
    }

    /// The size of what is seen, in CSS pixels.
    pub(crate) fn size(&mut self, width: u32, height: u32) -> Result<()> {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.ask("Emulation.setDeviceMetricsOverride", params)?;
        self.settle()
    }

    /// What is seen, as PNG.
    pub(crate) fn picture(&mut self) -> Result<Vec<u8>> {
        let answer = self.ask("Page.captureScreenshot", json!({"format": "png"}))?;
        let text = answer["data"].as_str().context("the browser sent no picture")?;
        Ok(BASE64_STANDARD.decode(text)?)
    }

    /// Errors and warnings of the page so far, and addresses that it asked for.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.events.iter().filter_map(complaint).collect()
    }
}

fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
        "Runtime.consoleAPICalled" => Some(format!("console: {}", params["args"])),
        "Log.entryAdded" => Some(format!("log: {}", params["entry"]["text"])),
        "Network.requestWillBeSent" => {
            let url = params["request"]["url"].as_str()?;
            let own = params["type"] == "Document" && url.starts_with("file:");
            (!own).then(|| format!("it asked for {url}"))
        }
        _ => None,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives the child its two ends of the pipes under the numbers that it expects.
fn hand_over(command: &mut Command, read: RawFd, write: RawFd) {
    // They may be in each other's place: first away, then there.
    const AWAY: RawFd = 16;
    let place = move || {
        // SAFETY: fcntl and dup2 take numbers alone, and may be called between fork and exec.
        let done = unsafe {
            let read = libc::fcntl(read, libc::F_DUPFD_CLOEXEC, AWAY);
            let write = libc::fcntl(write, libc::F_DUPFD_CLOEXEC, AWAY);
            libc::dup2(read, COMMANDS) >= 0 && libc::dup2(write, ANSWERS) >= 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(place) };
}

/// JSON messages, each ended by a NUL.
fn split(answers: PipeReader) -> impl Iterator<Item = Value> {
    BufReader::new(answers)
        .split(0)
        .map_while(Result::ok)
        .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
}
