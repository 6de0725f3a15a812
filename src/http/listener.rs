//! The listening socket: accepts one client at a time, and outlives every error of it. Knows no connections.
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use socket2::SockRef;

use super::counters::{Counters, count};
use super::poller::Poller;
use super::refusal::Refusal;
use super::response::{Clock, write_refusal};

/// The listening socket's name among the poller's events. No connection has it.
pub const NAME: u64 = u64::MAX - 1;

/// How many clients may wait to be accepted (the system's own limit is net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes from us beyond what it may send to a client by now; more than a large page of movies. Its
/// own buffers grow to megabytes, so a client that sends ahead and takes no responses would have thousands of requests
/// answered in vain.
const MAX_UNSENT_BYTES: u32 = 128 * 1024;

/// Listens.
pub struct Listener {
    socket: TcpListener,
    /// A descriptor to give away when there are no others, so that a client can be accepted to be told so.
    spare: Mutex<Option<File>>,
    /// Accepting failed in a way that only time mends.
    is_paused: AtomicBool,
}

impl Listener {
    /// Listens on the address.
    ///
    /// # Errors
    /// If it is taken, or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = TcpListener::bind(address)?;
        // Once more, since the standard library's backlog of 128 is short for a wave of clients.
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit it.
        SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
        Ok(Listener {
            socket,
            spare: Mutex::new(Some(open_spare()?)),
            is_paused: AtomicBool::new(false),
        })
    }

    /// The address, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Has the poller tell of clients.
    ///
    /// # Errors
    /// If the system has no memory or watches left.
    pub fn watch(&self, poller: &Poller) -> io::Result<()> {
        poller.watch_once(&self.socket, NAME)
    }

    /// The next client, if there is one, ready for our use. Then the poller tells of further ones.
    pub fn accept(&self, poller: &Poller, counters: &Counters) -> Option<(TcpStream, SocketAddr)> {
        let accepted = self.socket.accept().and_then(|(socket, peer)| {
            count(&counters.accepted);
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            Ok((socket, peer))
        });
        match accepted {
            Ok(_) => {}
            Err(ref error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(ref error) => {
                count(&counters.accept_errors);
                if !self.overcome(error) {
                    // The next tick tries again; until then nobody spins.
                    log::warn!("accepting failed, and is tried again: {error}");
                    self.is_paused.store(true, Ordering::Relaxed);
                    return None;
                }
            }
        }
        self.watch_again(poller);
        accepted.ok()
    }

    /// Tries again after a pause.
    pub fn retry(&self, poller: &Poller) {
        if self.is_paused.swap(false, Ordering::Relaxed) {
            self.watch_again(poller);
        }
    }

    fn watch_again(&self, poller: &Poller) {
        if let Err(error) = poller.watch_again(&self.socket, NAME) {
            log::error!("the listening socket is not watched: {error}");
            self.is_paused.store(true, Ordering::Relaxed);
        }
    }

    /// Whether accepting can go on at once after this error.
    fn overcome(&self, error: &io::Error) -> bool {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => self.refuse_one(),
            // No memory for a socket.
            Some(Errno::NOBUFS | Errno::NOMEM) => false,
            // One client's fault: it went away, or its network did (accept(2)).
            _ => true,
        }
    }

    /// Without descriptors a client would wait unheard: one is let in on the spare descriptor, to be told.
    fn refuse_one(&self) -> bool {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        drop(spare.take());
        let accepted = self.socket.accept();
        let is_refused = accepted.is_ok();
        if let Ok((stream, _)) = accepted {
            turn_away(stream);
        }
        *spare = open_spare().ok();
        is_refused
    }
}

/// Tells a client that there is no place for it, with as much courtesy as costs no waiting.
pub fn turn_away(mut stream: TcpStream) {
    let mut answer = Vec::new();
    let clock = &mut Clock::default();
    write_refusal(&mut answer, Refusal::Crowded, &[], false, clock);
    // What it sent is read, so that the close is no reset, after which the client might not see the answer. Errors
    // mean that it is gone already.
    _ = stream.set_nonblocking(true);
    _ = stream.read(&mut [0; 4096]);
    _ = stream.write(&answer);
    _ = stream.shutdown(Shutdown::Both);
}

impl Drop for Listener {
    /// Stops listening at once, where closing alone would wait for threads inside epoll_wait.
    fn drop(&mut self) {
        // An error means that it does not listen any more.
        _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

fn open_spare() -> io::Result<File> {
    File::open("/dev/null")
}
