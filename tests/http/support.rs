//! Shared by the tests of the server: a server of their own, and a client that sends bytes and checks the framing of the
//! responses.
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use movies_api::api::render_http_error;
use movies_api::http::{
    Class, HeaderLookup, HttpError, Limits, Server, ShutdownHandle, Stats, raise_open_file_limit,
};
use rouille::{Request, Response};

/// How long a test waits for something that must happen.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A server on threads of this process. It is shut down on drop.
pub struct TestServer {
    pub address: SocketAddr,
    pub stats: Arc<Stats>,
    pub shutdown_handle: ShutdownHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Few workers, and a drain that no client of a test can prolong.
pub fn limits() -> Limits {
    Limits {
        drain_timeout: Duration::from_secs(2),
        ..Limits::for_workers(4)
    }
}

/// Chooses the class of a request by its path: /alive, /stuck/heavy, /stuck/write or /stuck/sign-in, with any suffix;
/// others are ordinary. /panic panics.
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

/// Renders errors as the API does, with the header X-Error, and X-Mark with the value that the request has.
fn render_error(error: HttpError, lookup: &HeaderLookup) -> Response {
    let response = render_http_error(error, lookup, &[]).with_additional_header("X-Error", "yes");
    match lookup("X-Mark") {
        Some(mark) => response.with_additional_header("X-Mark", mark.to_owned()),
        None => response,
    }
}

pub fn start(
    limits: Limits,
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> TestServer {
    start_with_deadline(limits, move |request, _| handler(request))
}

pub fn start_with_deadline(
    limits: Limits,
    handler: impl Fn(&Request, Instant) -> Response + Send + Sync + 'static,
) -> TestServer {
    // Tests have a thousand clients in this process too, and an ordinary user's limit is often 1,024 files.
    raise_open_file_limit(0).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(address, limits, classify, handler).unwrap();
    server.set_error_renderer(render_error);
    TestServer {
        address: server.local_address(),
        stats: server.stats(),
        shutdown_handle: server.shutdown_handle(),
        thread: Some(std::thread::spawn(move || server.run())),
    }
}

impl TestServer {
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Shuts the server down, and returns how long that took.
    pub fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        self.shutdown_handle.shut_down();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server panicked").unwrap();
        }
        begun.elapsed()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown_handle.shut_down();
    }
}

/// Returns the request as the handler sees it: `METHOD TARGET BODY` on the first line, then a line for each header.
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

/// A response whose framing was checked.
#[derive(Clone, Debug)]
pub struct ReceivedResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl ReceivedResponse {
    /// Returns the value of a header that occurs once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} occurs twice: {self:?}");
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

/// Parses the response at the beginning of the bytes. Returns it with its size, or `None` if more bytes are needed.
pub fn parse_response(bytes: &[u8], is_for_head: bool) -> Option<(ReceivedResponse, usize)> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end - 4]).expect("a head in ASCII");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    let mut response = ReceivedResponse {
        status: status.unwrap_or_else(|| panic!("no status line: {status_line:?}")),
        headers: lines
            .map(|line| line.split_once(": ").expect("name: value"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let length = response
        .header("Content-Length")
        .map(|length| length.parse());
    let length: usize = match length {
        Some(length) => length.unwrap(),
        None => {
            assert!(!response.has_body(), "no length: {response:?}");
            0
        }
    };
    let end = match is_for_head || !response.has_body() {
        true => head_end,
        false => head_end + length,
    };
    response.body = bytes.get(head_end..end)?.to_vec();
    if response.status >= 200 {
        assert!(response.header("Date").is_some(), "no Date: {response:?}");
    }
    Some((response, end))
}

/// The client's end of a connection.
pub struct Client {
    pub socket: TcpStream,
    /// What is tested, for the message if no response comes.
    pub what: &'static str,
    received: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        Client {
            socket,
            what: "",
            received: Vec::new(),
        }
    }

    /// Returns a second client on the same connection, for another thread.
    pub fn share(&self) -> Client {
        Client {
            socket: self.socket.try_clone().unwrap(),
            what: self.what,
            received: Vec::new(),
        }
    }

    /// Sends bytes. Ignores errors: the server may have rejected the request and closed the connection.
    pub fn send(&mut self, bytes: &[u8]) {
        _ = self.socket.write_all(bytes);
    }

    pub fn send_no_more(&mut self) {
        _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Returns the next response.
    pub fn receive(&mut self) -> ReceivedResponse {
        self.receive_for(false)
            .unwrap_or_else(|| panic!("no response: {}", self.what))
    }

    /// Returns the next response, or `None` if the connection was closed before it.
    pub fn receive_for(&mut self, is_for_head: bool) -> Option<ReceivedResponse> {
        loop {
            if let Some((response, end)) = parse_response(&self.received, is_for_head) {
                self.received.drain(..end);
                return Some(response);
            }
            if self.receive_some() == 0 {
                assert!(
                    self.received.is_empty(),
                    "an incomplete response: {:?}",
                    self.received.escape_ascii().to_string()
                );
                return None;
            }
        }
    }

    /// Returns all responses until the connection is closed.
    pub fn receive_all(&mut self) -> Vec<ReceivedResponse> {
        std::iter::from_fn(|| self.receive_for(false)).collect()
    }

    /// Whether the server closes the connection without sending another byte.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && self.receive_some() == 0
    }

    fn receive_some(&mut self) -> usize {
        let mut buffer = [0; 65536];
        match self.socket.read(&mut buffer) {
            Ok(read) => {
                self.received.extend_from_slice(&buffer[..read]);
                read
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing arrived: {error} {}", self.what),
        }
    }
}

/// Blocks handlers until it is opened.
pub struct Gate(Mutex<bool>, Condvar);

impl Gate {
    pub fn new() -> Arc<Gate> {
        Arc::new(Gate(Mutex::new(false), Condvar::new()))
    }

    /// Lets all threads pass, now and later.
    pub fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    /// Waits until the gate is open, or long enough for the test to have failed.
    pub fn pass(&self) {
        let is_open = self.0.lock().unwrap();
        let waited = self
            .1
            .wait_timeout_while(is_open, TEST_TIMEOUT * 2, |is_open| !*is_open);
        drop(waited.unwrap());
    }
}

/// Polls until the condition is true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
