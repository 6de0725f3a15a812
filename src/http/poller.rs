//! Socket readiness through epoll (rustix's safe calls), and the slots of the threads that wait for it.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, Thread};

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// The token of the event that ends all waiting. Connections have smaller tokens than these three.
const SHUTDOWN_TOKEN: u64 = u64::MAX;

/// The token of the listening socket.
pub const LISTENER_TOKEN: u64 = u64::MAX - 1;

/// The token of [`Poller::wake_one`].
const WAKE_TOKEN: u64 = u64::MAX - 2;

/// Interest of a connection in its next request: each arrival of bytes is an event, until the socket is closed.
pub const READABLE: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Interest of a connection with an unsent response: the socket becoming writable is an event, arriving bytes are not. A
/// client that reads nothing may still send, and each modification reports at once everything that is ready.
pub const WRITABLE: EventFlags = EventFlags::OUT.union(EventFlags::ET);

/// One event at once, behind those that are ready already, if the socket is writable, as it is when all output was taken.
/// Afterwards the same as [`READABLE`].
pub const REQUEUED: EventFlags = READABLE.union(EventFlags::OUT);

/// Interest of the listening socket: one event.
pub const ONE_ACCEPT: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

/// An epoll instance that any number of threads wait on at once. The kernel delivers each event to one of them, so no
/// mutex and no hand-over between threads is needed. A socket is registered once, edge-triggered, and its registration
/// ends when it is closed, so a request costs no call for registration. (The crate `polling` lets one thread wait at a
/// time and makes five system calls for each wait.)
pub struct Poller {
    epoll: OwnedFd,
    shutdown: OwnedFd,
    wake: OwnedFd,
}

/// Why [`Poller::wait`] returned.
pub enum Waited {
    /// The socket that was registered with this token is ready.
    Ready(u64, SocketEvent),
    /// [`Poller::wake_one`] was called, or a signal arrived.
    Woken,
    /// [`Poller::shut_down`] was called.
    Shutdown,
}

/// What is known about a socket that became ready.
#[derive(Clone, Copy, Debug)]
pub struct SocketEvent {
    /// The client closed its side, or the connection failed.
    pub is_hung_up: bool,
}

impl Poller {
    /// Creates a poller without sockets.
    ///
    /// # Errors
    /// If no file descriptors are left.
    pub fn new() -> io::Result<Poller> {
        let poller = Poller {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            shutdown: eventfd(0, EventfdFlags::CLOEXEC)?,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        };
        poller.register(&poller.shutdown, SHUTDOWN_TOKEN, EventFlags::IN)?;
        // Edge-triggered: each write wakes one thread, without being read.
        poller.register(&poller.wake, WAKE_TOKEN, EventFlags::IN | EventFlags::ET)?;
        Ok(poller)
    }

    /// Registers a socket, until it is closed.
    ///
    /// # Errors
    /// If the system has no memory or watches left.
    pub fn register(&self, socket: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        let token = EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, socket, token, interest)?)
    }

    /// Changes a registration. Bytes that arrived in the meantime are an event at once.
    ///
    /// # Errors
    /// If the socket is not registered.
    pub fn modify(&self, socket: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        let token = EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, socket, token, interest)?)
    }

    /// Waits for the next event. `events` is a buffer with capacity for one event.
    ///
    /// # Errors
    /// If epoll itself fails, which does not happen with valid descriptors.
    pub fn wait(&self, events: &mut Vec<Event>) -> io::Result<Waited> {
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let event = events.first();
        Ok(match event.map(|event| (event.data.u64(), event.flags)) {
            None | Some((WAKE_TOKEN, _)) => Waited::Woken,
            Some((SHUTDOWN_TOKEN, _)) => Waited::Shutdown,
            Some((token, flags)) => {
                let hang_up = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                let is_hung_up = flags.intersects(hang_up);
                Waited::Ready(token, SocketEvent { is_hung_up })
            }
        })
    }

    /// Ends the wait of one thread, or the next wait if no thread waits.
    pub fn wake_one(&self) {
        if let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
            log::error!("cannot wake a worker: {error}");
        }
    }

    /// Ends all waits, now and later.
    pub fn shut_down(&self) {
        if let Err(error) = rustix::io::write(&self.shutdown, &1_u64.to_ne_bytes()) {
            log::error!("cannot end the waits of the workers: {error}");
        }
    }
}

/// The leader/follower pattern: only threads with a slot (leaders, one for each core) wait at the poller; the others
/// (followers) wait here. A leader releases its slot before it runs a handler, which may block, and acquires one
/// afterwards. A follower is woken only when the last leader leaves, since waking a thread costs more than a quick
/// handler does, and is needed only if handlers are slow.
pub struct PollerSlots {
    max_leaders: usize,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    leaders: usize,
    /// Followers; the last one is woken first, because its caches are warm. A thread that wakes a follower removes it
    /// here and leaves it the slot.
    waiters: Vec<Thread>,
    is_shut_down: bool,
}

impl PollerSlots {
    /// Creates slots for `max_leaders` threads (at least 1).
    pub fn new(max_leaders: usize) -> PollerSlots {
        PollerSlots {
            max_leaders: max_leaders.max(1),
            state: Mutex::default(),
        }
    }

    /// Waits for a slot. Returns false after [`PollerSlots::shut_down`].
    pub fn acquire(&self) -> bool {
        let mut state = self.state.lock();
        if state.leaders < self.max_leaders {
            state.leaders += 1;
            return !state.is_shut_down;
        }
        let current = thread::current();
        state.waiters.push(current.clone());
        while !state.is_shut_down && state.waiters.iter().any(|one| one.id() == current.id()) {
            drop(state);
            thread::park();
            state = self.state.lock();
        }
        !state.is_shut_down
    }

    /// Gives up the caller's slot. It goes to a follower if the caller was the last leader.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.leaders -= 1;
        if state.leaders > 0 {
            return;
        }
        if let Some(follower) = state.waiters.pop() {
            state.leaders += 1;
            drop(state);
            follower.unpark();
        }
    }

    /// Ends all waits for a slot, now and later.
    pub fn shut_down(&self) {
        let mut state = self.state.lock();
        state.is_shut_down = true;
        state.waiters.iter().for_each(Thread::unpark);
    }
}
