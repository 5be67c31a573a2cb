//! A headless Chromium, driven over the DevTools protocol: JSON messages that end with NUL, through pipes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// What the slowest step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing but the page: no services of the browser's own, no window, no profile but a fresh one. The
/// sandbox wants a user that is not root, which continuous integration often is; the page is our own.
const FLAGS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A browser with one page open. It ends when it is dropped.
pub struct Browser {
    process: Child,
    to: RefCell<ChildStdin>,
    from: Receiver<Value>,
    /// Events that nobody has looked at yet.
    events: RefCell<VecDeque<Value>>,
    last_id: Cell<u64>,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one and opens this page.
    pub fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken on descriptors 3 and 4.
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                "sh",
            ])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("no shell");
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let (sender, from) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(json) = serde_json::from_slice(&message) else {
                    return;
                };
                if sender.send(json).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            to: RefCell::new(process.stdin.take().unwrap()),
            process,
            from,
            events: RefCell::default(),
            last_id: Cell::new(0),
            session: String::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(1280);
        browser.call("Page.navigate", json!({ "url": url }));
        browser.until("document.readyState === 'complete'");
        browser
    }

    /// Gives the page this width, in pixels.
    pub fn resize(&self, width: u32) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// What an expression comes to in the page.
    pub fn eval(&self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let got = self.call("Runtime.evaluate", asked);
        assert!(got.get("exceptionDetails").is_none(), "{expression}: {got}");
        got["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&self, expression: &str) {
        let began = Instant::now();
        while self.eval(expression) != Value::Bool(true) {
            let late = began.elapsed() > PATIENCE;
            assert!(
                !late,
                "never: {expression}; the page says {}",
                self.eval("document.body.innerText")
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The texts of the elements that a selector finds.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let all = format!(
            "[...document.querySelectorAll({})].map((one) => one.innerText)",
            json!(selector)
        );
        serde_json::from_value(self.eval(&all)).unwrap()
    }

    /// Presses and releases a key, which types `text` where it types any.
    pub fn press(&self, key: &str, text: &str) {
        let mut down = json!({ "type": "keyDown", "key": key, "code": key });
        if key == "Tab" {
            down["windowsVirtualKeyCode"] = json!(9);
        }
        if key == "Enter" {
            down["windowsVirtualKeyCode"] = json!(13);
        }
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({ "type": "keyUp", "key": key, "code": key }),
        );
    }

    /// Types into what has the focus.
    pub fn type_in(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// What has the focus.
    pub fn focused(&self) -> String {
        let id = self.eval("document.activeElement.id || document.activeElement.className");
        id.as_str().unwrap_or_default().to_owned()
    }

    /// Sets the colours that the reader prefers, and keeps a picture of the whole page in `target/page`.
    pub fn picture(&self, colours: &str) -> PathBuf {
        let prefer = json!([{ "name": "prefers-color-scheme", "value": colours }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": prefer }));
        let shot = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", shot);
        let png = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let dir = target.parent().unwrap().join("page");
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join(format!("{colours}.png"));
        std::fs::write(&file, png).unwrap();
        file
    }

    /// Everything that a careful reader of the browser's console and network log would complain of:
    /// errors, warnings, requests that failed, and requests to another place than `origin`.
    pub fn complaints(&self, origin: &str) -> Vec<String> {
        // What was sent before this call's answer has come by then.
        self.eval("0");
        let events = self.events.take();
        events
            .iter()
            .filter_map(|event| complaint(event, origin))
            .collect()
    }

    fn call(&self, method: &str, params: Value) -> Value {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() && !method.starts_with("Target.") {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let sent = self.to.borrow_mut().write_all(&bytes);
        sent.expect("chromium is not installed, or ended");
        loop {
            let answer = match self.from.recv_timeout(PATIENCE) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => panic!("no answer to {method}"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("chromium is not installed, or ended")
                }
            };
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.borrow_mut().push_back(answer);
        }
    }
}

fn complaint(event: &Value, origin: &str) -> Option<String> {
    let params = &event["params"];
    let is_bad = match event["method"].as_str()? {
        "Runtime.exceptionThrown" | "Network.loadingFailed" => true,
        "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "warning",
        "Log.entryAdded" => {
            params["entry"]["level"] == "error" || params["entry"]["level"] == "warning"
        }
        "Network.responseReceived" => params["response"]["status"].as_u64()? >= 400,
        "Network.requestWillBeSent" => {
            let url = params["request"]["url"].as_str()?;
            !url.starts_with(origin) && !url.starts_with("data:")
        }
        _ => false,
    };
    is_bad.then(|| event.to_string())
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
