//! Which sockets are ready: Linux's epoll through rustix's safe calls. Knows no connections.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// The name of the end among the events. No connection has it: their places do not reach so far.
const END: u64 = u64::MAX;

/// The name of [`Poller::wake_one`] among the events.
const WAKE: u64 = u64::MAX - 2;

/// Tells any number of waiting threads, each event to one of them: the kernel itself chooses which, so that no mutex
/// and no hand-over between them is needed. A socket is registered once, edge-triggered, and leaves with its closing, so
/// that no request costs a call for its registration. The crate `polling` would let one thread wait at a time and
/// make five system calls for each wait.
pub struct Poller {
    epoll: OwnedFd,
    end: OwnedFd,
    wake: OwnedFd,
}

/// What came of waiting.
pub enum Waited {
    /// A socket is ready.
    Event(Readiness),
    /// The time is over, or another thread asked for a look at the queue.
    Nothing,
    /// All waiting is.
    End,
}

/// What a thread is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The name that the socket was registered by.
    pub name: u64,
    /// The client will send nothing more.
    pub is_hung_up: bool,
}

impl Poller {
    /// One that knows no sockets.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn new() -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &end, EventData::new_u64(END), EventFlags::IN)?;
        // Edge-triggered: each write is told to one thread, and is never read.
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), flags)?;
        Ok(Poller { epoll, end, wake })
    }

    /// Tells of each time that something comes from the socket, until it is closed.
    ///
    /// # Errors
    /// If the system has no memory or watches left.
    pub fn watch(&self, socket: impl AsFd, name: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(name),
            flags,
        )?)
    }

    /// Tells from now on when the socket takes more, and no longer what comes from it: a client that takes nothing may
    /// go on sending, and each change of what is watched tells at once of all that is ready.
    ///
    /// # Errors
    /// If the socket is unknown.
    pub fn watch_writing(&self, socket: impl AsFd, name: u64) -> io::Result<()> {
        self.change(socket, name, EventFlags::OUT)
    }

    /// Undoes [`Poller::watch_writing`]; what came in the meantime is told at once.
    ///
    /// # Errors
    /// If the socket is unknown.
    pub fn watch_reading(&self, socket: impl AsFd, name: u64) -> io::Result<()> {
        self.change(socket, name, EventFlags::IN | EventFlags::RDHUP)
    }

    /// Tells of the socket once at once, behind what is ready already, if it takes more, which a socket whose output
    /// was all taken does; and from then on as [`Poller::watch`].
    ///
    /// # Errors
    /// If the socket is unknown.
    pub fn tell_at_once(&self, socket: impl AsFd, name: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        self.change(socket, name, flags)
    }

    fn change(&self, socket: impl AsFd, name: u64, flags: EventFlags) -> io::Result<()> {
        let flags = flags | EventFlags::ET;
        Ok(epoll::modify(
            &self.epoll,
            socket,
            EventData::new_u64(name),
            flags,
        )?)
    }

    /// Tells once that the socket is readable, by [`Poller::watch_again`] once more.
    ///
    /// # Errors
    /// If the system has no memory or watches left.
    pub fn watch_once(&self, socket: impl AsFd, name: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(name),
            flags,
        )?)
    }

    /// Tells once more of a socket that [`Poller::watch_once`] knows.
    ///
    /// # Errors
    /// If the socket is unknown.
    pub fn watch_again(&self, socket: impl AsFd, name: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        Ok(epoll::modify(
            &self.epoll,
            socket,
            EventData::new_u64(name),
            flags,
        )?)
    }

    /// Waits for the next event, so long at the most; without a bound if there is none.
    ///
    /// # Errors
    /// If the poller is broken, which no event can be.
    pub fn wait(&self, events: &mut Vec<Event>, patience: Option<Duration>) -> io::Result<Waited> {
        let timeout = patience.map(Timespec::try_from).transpose();
        let timeout = timeout.map_err(io::Error::other)?;
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(event) = events.first() else {
            return Ok(Waited::Nothing);
        };
        let (name, flags) = (event.data.u64(), event.flags);
        match name {
            END => return Ok(Waited::End),
            WAKE => return Ok(Waited::Nothing),
            _ => {}
        }
        let hang_up = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        Ok(Waited::Event(Readiness {
            name,
            is_hung_up: flags.intersects(hang_up),
        }))
    }

    /// Ends the waiting of one thread, or of the next one that would wait.
    pub fn wake_one(&self) {
        if let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
            log::error!("a worker could not be woken: {error}");
        }
    }

    /// Ends all waiting, now and later.
    pub fn end(&self) {
        if let Err(error) = rustix::io::write(&self.end, &1_u64.to_ne_bytes()) {
            log::error!("the workers could not be told to end: {error}");
        }
    }
}
