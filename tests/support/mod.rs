//! What the tests of the server share: a server of their own on a port of its own, and a client that speaks bytes and
//! reads answers to the letter.

#![allow(dead_code)] // each test file uses a part of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed one is a failed test
#![allow(clippy::indexing_slicing)]
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use movies_api::http::{Class, Counters, Header, HeaderLookup, Limits, Server, Stopper};
use rouille::{Request, Response};

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server in threads of this process.
pub struct Running {
    pub address: SocketAddr,
    pub counters: Arc<Counters>,
    pub stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Few workers, and a drain that no client of a test can hold up for long.
pub fn limits() -> Limits {
    Limits {
        drain_deadline: Duration::from_secs(2),
        ..Limits::for_workers(4)
    }
}

/// The class of a test's request, by its path: /alive, or what begins with /stuck/heavy, /stuck/write, /stuck/sign-in;
/// all else is ordinary. /panic panics.
fn classify(request: &Request) -> Class {
    match request.raw_url() {
        path if path.starts_with("/alive") => Class::Immediate,
        path if path.starts_with("/stuck/heavy") => Class::Heavy,
        path if path.starts_with("/stuck/write") => Class::Write,
        path if path.starts_with("/stuck/sign-in") => Class::SignIn,
        "/panic" => panic!("on purpose"),
        _ => Class::Ordinary,
    }
}

/// The headers of an error response: that it is one, and the request's X-Mark.
fn mark(lookup: &HeaderLookup) -> Vec<Header> {
    let is_error = ("X-Error".into(), "yes".into());
    let mark = lookup("X-Mark").map(|mark| ("X-Mark".into(), mark.to_owned().into()));
    std::iter::once(is_error).chain(mark).collect()
}

pub fn serve(
    limits: Limits,
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Running {
    serve_by_deadline(limits, move |request, _| handler(request))
}

pub fn serve_by_deadline(
    limits: Limits,
    handler: impl Fn(&Request, Instant) -> Response + Send + Sync + 'static,
) -> Running {
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(address, limits, classify, handler).unwrap();
    server.set_error_headers(mark);
    Running {
        address: server.local_address(),
        counters: server.counters(),
        stopper: server.stopper(),
        thread: Some(std::thread::spawn(move || server.run())),
    }
}

impl Running {
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Stops it, and says how long it took to end.
    pub fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server panicked").unwrap();
        }
        begun.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

/// Answers what it was asked: `METHOD TARGET BODY` on the first line, a line for each field, as it saw them.
pub fn echo(request: &Request) -> Response {
    let mut body = Vec::new();
    let mut reader = request.data().expect("the body is read once");
    reader.read_to_end(&mut body).unwrap();
    let mut text = format!("{} {}", request.method(), request.raw_url());
    if !body.is_empty() {
        text = format!("{text} {}", body.escape_ascii());
    }
    for (name, value) in request.headers() {
        text = format!("{text}\n{name}: {value}");
    }
    Response::text(text)
}

/// One answer, its framing checked.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the only field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    pub fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn first_line(&self) -> &str {
        self.text().lines().next().unwrap_or_default()
    }

    pub fn has_body(&self) -> bool {
        self.status >= 200 && self.status != 204 && self.status != 304
    }
}

/// The answer at the beginning of the bytes, and how many they are; none while more is needed.
pub fn parse_answer(bytes: &[u8], is_to_head: bool) -> Option<(Answer, usize)> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end - 4]).expect("a head in ASCII");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    let mut answer = Answer {
        status: status.unwrap_or_else(|| panic!("no status line: {status_line:?}")),
        headers: lines
            .map(|line| line.split_once(": ").expect("name: value"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let length = answer.header("Content-Length").map(|length| length.parse());
    let length: usize = match length {
        Some(length) => length.unwrap(),
        None => {
            assert!(!answer.has_body(), "no length: {answer:?}");
            0
        }
    };
    let end = match is_to_head || !answer.has_body() {
        true => head_end,
        false => head_end + length,
    };
    answer.body = bytes.get(head_end..end)?.to_vec();
    if answer.status >= 200 {
        assert!(answer.header("Date").is_some(), "no Date: {answer:?}");
    }
    Some((answer, end))
}

/// A client's end of a connection.
pub struct Client {
    pub socket: TcpStream,
    /// What it is there for, told when nothing comes.
    pub what: &'static str,
    received: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client {
            socket,
            what: "",
            received: Vec::new(),
        }
    }

    /// Another hand on the same connection.
    pub fn share(&self) -> Client {
        Client {
            socket: self.socket.try_clone().unwrap(),
            what: self.what,
            received: Vec::new(),
        }
    }

    /// Sends what the server may no longer want: it may have refused and closed.
    pub fn send(&mut self, bytes: &[u8]) {
        _ = self.socket.write_all(bytes);
    }

    pub fn send_no_more(&mut self) {
        _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The next answer.
    pub fn receive(&mut self) -> Answer {
        self.receive_for(false)
            .unwrap_or_else(|| panic!("no answer {}", self.what))
    }

    /// The next answer; none if the connection was closed before it.
    pub fn receive_for(&mut self, is_to_head: bool) -> Option<Answer> {
        loop {
            if let Some((answer, end)) = parse_answer(&self.received, is_to_head) {
                self.received.drain(..end);
                return Some(answer);
            }
            if self.receive_some() == 0 {
                assert!(
                    self.received.is_empty(),
                    "a torn answer: {:?}",
                    self.received.escape_ascii().to_string()
                );
                return None;
            }
        }
    }

    /// All answers until the connection is closed.
    pub fn receive_all(&mut self) -> Vec<Answer> {
        std::iter::from_fn(|| self.receive_for(false)).collect()
    }

    /// Whether the server closes without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && self.receive_some() == 0
    }

    fn receive_some(&mut self) -> usize {
        let mut room = [0; 65536];
        match self.socket.read(&mut room) {
            Ok(read) => {
                self.received.extend_from_slice(&room[..read]);
                read
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came: {error} {}", self.what),
        }
    }
}

/// What a handler of a test waits at.
pub struct Gate(Mutex<bool>, Condvar);

impl Gate {
    pub fn new() -> Arc<Gate> {
        Arc::new(Gate(Mutex::new(false), Condvar::new()))
    }

    /// From now on nobody waits.
    pub fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    /// Waits until it is open, or a failed test has long ended.
    pub fn pass(&self) {
        let is_open = self.0.lock().unwrap();
        let waited = self
            .1
            .wait_timeout_while(is_open, PATIENCE * 2, |is_open| !*is_open);
        drop(waited.unwrap());
    }
}

/// Polls until it is true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
