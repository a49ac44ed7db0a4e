//! Headless Chromium, driven by the Chrome DevTools protocol over two pipes.
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
/// How long to wait for an answer of the browser.
const PATIENCE: Duration = Duration::from_secs(30);
/// The file descriptor from which Chromium reads commands with `--remote-debugging-pipe`.
const COMMANDS: RawFd = 3;
/// The file descriptor to which Chromium writes answers and events.
const ANSWERS: RawFd = 4;

/// One page in its own browser process.
pub(crate) struct Browser {
    child: Child,
    commands: PipeWriter,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// Messages that are not the awaited answer: the page's events.
    events: Vec<Value>,
}

impl Browser {
    /// Starts the browser. It keeps its profile in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let (theirs, commands) = io::pipe()?;
        let (answers, ours) = io::pipe()?;
        let mut command = Command::new(PROGRAM);
        command
            // Chromium's sandbox needs a user namespace, which root and containers often lack. The
            // browser loads only our own page.
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

    /// Waits for the first message for which `fits` is true. Earlier messages go to `events`.
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

    /// Opens a file and waits until it is loaded.
    pub(crate) fn show(&mut self, page: &Path) -> Result<()> {
        let url = format!("file://{}", page.display());
        self.ask("Page.navigate", json!({"url": url}))?;
        self.wait("load", |message| message["method"] == "Page.loadEventFired")?;
        self.settle()
    }

    /// Waits for two frames: by then everything that was requested has been drawn.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))";
        self.value(frames).map(drop)
    }

    /// The value of a JavaScript expression; a promise is awaited.
    pub(crate) fn value(&mut self, expression: &str) -> Result<Value> {
        let params = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let answer = self.ask("Runtime.evaluate", params)?;
        let thrown = &answer["exceptionDetails"];
        ensure!(thrown.is_null(), "`{expression}`: {}", thrown["exception"]["description"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Clicks the first element that matches the selector: at half its height, and at half its
    /// width or 20 CSS pixels from its left edge, whichever is less.
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

    /// Presses Enter in the focused element.
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

    /// Types text into the focused element.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.ask("Input.insertText", json!({"text": text}))?;
        self.settle()
    }

    /// Sets the size of the viewport, in CSS pixels.
    pub(crate) fn size(&mut self, width: u32, height: u32) -> Result<()> {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.ask("Emulation.setDeviceMetricsOverride", params)?;
        self.settle()
    }

    /// A screenshot of the viewport, as PNG.
    pub(crate) fn picture(&mut self) -> Result<Vec<u8>> {
        let answer = self.ask("Page.captureScreenshot", json!({"format": "png"}))?;
        let text = answer["data"].as_str().context("the browser sent no picture")?;
        Ok(BASE64_STANDARD.decode(text)?)
    }

    /// What the page did so far that it should not: exceptions, console and log messages, and
    /// requests for addresses other than the page itself.
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

/// Gives the child its ends of the two pipes as the descriptors [`COMMANDS`] and [`ANSWERS`].
fn hand_over(command: &mut Command, read: RawFd, write: RawFd) {
    // Either may already have the number that the other needs, so both first move out of the way.
    const AWAY: RawFd = 16;
    let place = move || {
        // SAFETY: fcntl and dup2 take only integers, and may be called between fork and exec.
        let done = unsafe {
            let read = libc::fcntl(read, libc::F_DUPFD_CLOEXEC, AWAY);
            let write = libc::fcntl(write, libc::F_DUPFD_CLOEXEC, AWAY);
            libc::dup2(read, COMMANDS) >= 0 && libc::dup2(write, ANSWERS) >= 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure does not allocate and takes no lock.
    unsafe { command.pre_exec(place) };
}

/// Splits the stream into JSON messages, each terminated by a NUL byte.
fn split(answers: PipeReader) -> impl Iterator<Item = Value> {
    BufReader::new(answers)
        .split(0)
        .map_while(Result::ok)
        .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
}
