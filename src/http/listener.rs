//! The listening socket: accepts one connection at a time, and survives every error of accept(2).
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;
use socket2::SockRef;

use super::poller::{LISTENER_TOKEN, ONE_ACCEPT, Poller};
use super::response::{ErrorRenderer, HttpError, ResponseWriter};
use super::stats::{Stats, increment};

/// Connections that may wait to be accepted (the system's own limit is net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Bytes that the kernel accepts from us beyond what it may send to the client now; more than a large page of movies. Its
/// own buffers grow to megabytes, so for a client that pipelines requests and reads no responses, thousands of requests
/// would be handled in vain.
const MAX_UNSENT_BYTES: u32 = 128 * 1024;

/// The listening socket. Any worker may accept from it.
pub struct Listener {
    pub socket: TcpListener,
    /// A file descriptor to give up when none is left, so that a connection can be accepted and answered 503.
    spare: Mutex<Option<File>>,
    /// Accepting failed and is tried again by [`Listener::resume`].
    is_paused: AtomicBool,
}

impl Listener {
    /// Binds the address, listens, and registers for the first connection.
    ///
    /// # Errors
    /// If the address is in use or does not belong to this machine, or no file descriptors are left.
    pub fn bind(address: SocketAddr, poller: &Poller) -> io::Result<Listener> {
        let socket = TcpListener::bind(address)?;
        // A second time, since the standard library's backlog of 128 is short for a wave of clients.
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit it.
        SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
        poller.register(&socket, LISTENER_TOKEN, ONE_ACCEPT)?;
        Ok(Listener {
            socket,
            spare: Mutex::new(Some(open_spare()?)),
            is_paused: AtomicBool::new(false),
        })
    }

    /// Accepts the next connection, if there is one, as a non-blocking socket. Then registers for further ones.
    pub fn accept(
        &self,
        poller: &Poller,
        stats: &Stats,
        errors: &ErrorRenderer,
    ) -> Option<(TcpStream, SocketAddr)> {
        let accepted = self.socket.accept().and_then(|(socket, peer)| {
            increment(&stats.accepted);
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            Ok((socket, peer))
        });
        if let Err(error) = &accepted
            && error.kind() != ErrorKind::WouldBlock
        {
            increment(&stats.accept_errors);
            if !self.recover(error, errors) {
                // Tried again at the next tick, so that no worker spins.
                log::warn!("cannot accept a connection, trying again: {error}");
                self.is_paused.store(true, Ordering::Relaxed);
                return None;
            }
        }
        self.rearm(poller);
        accepted.ok()
    }

    /// Accepts again after a failure. Called at each tick.
    pub fn resume(&self, poller: &Poller) {
        if self.is_paused.swap(false, Ordering::Relaxed) {
            self.rearm(poller);
        }
    }

    fn rearm(&self, poller: &Poller) {
        if let Err(error) = poller.modify(&self.socket, LISTENER_TOKEN, ONE_ACCEPT) {
            log::error!("cannot watch the listening socket: {error}");
            self.is_paused.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether accepting can continue at once after this error.
    fn recover(&self, error: &io::Error, errors: &ErrorRenderer) -> bool {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => self.reject_one(errors),
            // No memory for a socket.
            Some(Errno::NOBUFS | Errno::NOMEM) => false,
            // The failure of one connection: the client closed it, or its network failed (accept(2)).
            _ => true,
        }
    }

    /// Accepts one connection with the spare descriptor and answers it 503. Without a descriptor the client would wait
    /// without a response.
    fn reject_one(&self, errors: &ErrorRenderer) -> bool {
        let mut spare = self.spare.lock();
        drop(spare.take());
        let Ok((stream, _)) = self.socket.accept() else {
            *spare = open_spare().ok();
            return false;
        };
        // The renderer belongs to the application, which runs under no lock.
        drop(spare);
        reject(stream, errors);
        *self.spare.lock() = open_spare().ok();
        true
    }
}

/// Answers a connection 503 and closes it, without waiting for the client.
pub fn reject(mut stream: TcpStream, errors: &ErrorRenderer) {
    let mut writer = ResponseWriter::new(errors.clone());
    writer.write_error(HttpError::TooManyConnections, &|_| None, false);
    // What the client sent is read: closing with unread bytes resets the connection, and the client might lose the
    // response. Errors mean that the client is gone already.
    _ = stream.set_nonblocking(true);
    _ = stream.read(&mut [0; 4096]);
    _ = stream.write(&writer.output);
    _ = stream.shutdown(Shutdown::Both);
}

impl Drop for Listener {
    /// Stops listening at once. Closing alone would take effect only after threads inside epoll_wait return.
    fn drop(&mut self) {
        // An error means that the socket does not listen any more.
        _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

fn open_spare() -> io::Result<File> {
    File::open("/dev/null")
}
