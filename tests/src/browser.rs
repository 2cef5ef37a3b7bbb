//! Chromium without a screen, driven over WebDriver (W3C, *WebDriver*) by chromedriver: what a person with a browser sees.
//!
//! The protocol is JSON over HTTP; the few commands that tests need are all that is spoken here.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::install::relevo_binary;
use crate::ports::Port;
use crate::process::{clean_environment, processes_naming, signal};
use crate::relevo::PATIENCE;
use crate::wait::wait_until_some;
use crate::watchdog::Watchdog;

/// How long one command may take; the first one starts the browser.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// The code of the Tab key in WebDriver's actions.
pub const TAB: &str = "\u{E004}";
/// The code of the left arrow key.
pub const ARROW_LEFT: &str = "\u{E012}";
/// The code of the Escape key.
pub const ESCAPE: &str = "\u{E00C}";

/// What the page is looked at with.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Its width in CSS pixels.
    pub width: u32,
    /// Its height in CSS pixels.
    pub height: u32,
    /// The person prefers dark colours.
    pub dark: bool,
}

/// A browser with one page. Dropping it kills all of it.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: Port,
    session: String,
    /// The profile. Every process of this browser names it in its command line.
    folder: TempDir,
    _watchdog: Watchdog,
}

impl Browser {
    /// Starts the browser.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = Port::reserve();
        let mut command = Command::new("chromedriver");
        clean_environment(&mut command);
        command
            .arg(format!("--port={}", port.number()))
            .arg(format!("--log-path={}", folder.path().join("driver.log").display()))
            // What it would leave in the home folder goes with the profile.
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let driver = command.spawn().unwrap_or_else(|error| {
            panic!("chromedriver: {error}; run tests/tools/fetch.sh (make fetch) first")
        });
        let _watchdog = Watchdog::of_browser(folder.path());
        let mut browser = Self { driver, port, session: String::new(), folder, _watchdog };
        wait_until_some("chromedriver answers", PATIENCE, async || {
            browser.ask("GET", "/status", &Value::Null).await.map(drop)
        })
        .await;
        let started = browser.ask("POST", "/session", &browser.wanted()).await;
        let started = started.unwrap_or_else(|error| panic!("chromium does not start: {error}"));
        browser.session = started["sessionId"].as_str().expect("a session").to_owned();
        // What the browser's own first page asks for is nobody's business.
        browser.open("about:blank").await;
        browser.requests().await;
        browser.console().await;
        browser
    }

    fn wanted(&self) -> Value {
        let profile = format!("--user-data-dir={}", self.folder.path().join("profile").display());
        let mut arguments = vec![
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
            "--no-first-run",
            &profile,
        ];
        if geteuid().is_root() {
            // Its sandbox does not work for root.
            arguments.push("--no-sandbox");
        }
        json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } })
    }

    /// Loads a page.
    pub async fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": url })).await;
    }

    /// Runs the body of a function on the page; what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// The text of the element with this id.
    pub async fn text(&self, id: &str) -> String {
        let value = self.run(&format!("return document.getElementById('{id}').innerText")).await;
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression on the page is a value that satisfies a condition, and yields it.
    pub async fn wait_for(&self, what: &str, expression: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let script = format!("return {expression}");
        wait_until_some(what, PATIENCE, async || {
            let value = self.run(&script).await;
            if condition(&value) { Ok(value) } else { Err(value.to_string()) }
        })
        .await
    }

    /// Presses a key and lets it go.
    pub async fn press(&self, key: &str) {
        let keys = ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] });
        self.command("/actions", &actions).await;
    }

    /// Looks at the page with another screen.
    pub async fn look_with(&self, screen: Screen) {
        let Screen { width, height, dark } = screen;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features })).await;
    }

    /// Lets the person prefer less motion.
    pub async fn reduce_motion(&self) {
        let features = json!([{ "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features })).await;
    }

    /// A picture of the whole page, in `target/screenshots`.
    pub async fn screenshot(&self, name: &str) {
        self.picture(name, "document.documentElement.scrollHeight").await;
    }

    /// A picture of the page, down to the end of the element with this id.
    pub async fn screenshot_down_to(&self, id: &str, name: &str) {
        let end = format!("document.getElementById('{id}').getBoundingClientRect().bottom + scrollY + 12");
        self.picture(name, &end).await;
    }

    async fn picture(&self, name: &str, height: &str) {
        let size = self.run(&format!("return [document.documentElement.clientWidth, {height}]")).await;
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let wanted = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.devtools("Page.captureScreenshot", &wanted).await;
        let text = taken["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
        let folder = screenshots();
        fs::create_dir_all(&folder).expect("target/screenshots");
        fs::write(folder.join(format!("{name}.png")), bytes).expect("the picture");
    }

    /// What the console of the page said since the last time: messages at their levels.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.log("browser").await;
        entries.iter().map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect()
    }

    /// Every address that the page asked for since the last time.
    pub async fn requests(&self) -> Vec<String> {
        let entries = self.log("performance").await;
        let message = |entry: &Value| serde_json::from_str::<Value>(entry["message"].as_str()?).ok();
        let messages = entries.iter().filter_map(message);
        let asked = messages.filter(|message| message["message"]["method"] == "Network.requestWillBeSent");
        let url = |message: Value| message["message"]["params"]["request"]["url"].as_str().map(str::to_owned);
        asked.filter_map(url).collect()
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.command("/se/log", &json!({ "type": kind })).await;
        log.as_array().expect("a list of entries").clone()
    }

    async fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", &format!("/session/{}{path}", self.session), body).await;
        answer.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let exchange = exchange(self.port.number(), method, path, body);
        let answer =
            tokio::time::timeout(COMMAND_LIMIT, exchange).await.map_err(|_| "no answer".to_owned())??;
        let value = answer["value"].clone();
        if value["error"].is_string() { Err(value["message"].to_string()) } else { Ok(value) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        kill_all(self.folder.path());
        let _ = self.driver.wait();
    }
}

/// Kills every process that names the folder; those that are started meanwhile too.
fn kill_all(folder: &Path) {
    loop {
        let processes = processes_naming(folder);
        if processes.is_empty() {
            return;
        }
        for process in processes {
            signal(process, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where pictures go.
fn screenshots() -> PathBuf {
    let binary = relevo_binary();
    let target = binary.parent().and_then(Path::parent).expect("a target folder");
    target.join("screenshots")
}

/// One request, one answer. The driver keeps connections open, so the answer's length counts.
async fn exchange(port: u16, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let failed = |error: std::io::Error| error.to_string();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(failed)?;
    let mut stream = BufReader::new(stream);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.map_err(failed)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.map_err(failed)? == 0 {
            return Err("the driver has closed the connection".to_owned());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| format!("not a length: {line}"))?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}
