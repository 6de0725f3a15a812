//! A client's socket, which never makes anyone wait. Knows no protocol.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// Not blocking, whatever happens.
pub struct Socket(TcpStream);

/// What a read gave.
pub enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end: the client sends nothing more, or is gone.
    End,
}

impl Socket {
    /// The stream was made not to block.
    pub fn new(stream: TcpStream) -> Socket {
        Socket(stream)
    }

    /// Reads what is there and fits.
    pub fn receive(&self, room: &mut [u8]) -> Received {
        loop {
            return match (&self.0).read(room) {
                Ok(0) => Received::End,
                Ok(read) => Received::Bytes(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Received::End,
            };
        }
    }

    /// Writes from `sent` on until all is written (true) or the socket takes no more for now (false).
    ///
    /// # Errors
    /// If the client is gone.
    pub fn send(&self, bytes: &[u8], sent: &mut usize) -> io::Result<bool> {
        loop {
            let rest = bytes.get(*sent..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(true);
            }
            match (&self.0).write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => *sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells the client that nothing more comes.
    pub fn end(&self) {
        // An error means that the client is gone, which the next read tells as well.
        _ = self.0.shutdown(Shutdown::Write);
    }

    /// Whether there is something to read.
    pub fn has_more(&self) -> bool {
        matches!(self.0.peek(&mut [0]), Ok(1..))
    }
}

impl Drop for Socket {
    /// Ends the connection at once. Closing alone does not: a thread inside epoll_wait may still hold a reference to
    /// the file, and the kernel sends no FIN before that thread returns.
    fn drop(&mut self) {
        // An error means that the client is gone.
        _ = self.0.shutdown(Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
