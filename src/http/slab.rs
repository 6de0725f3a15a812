//! Open connections by token. Does not depend on what a connection is.
//!
//! ```text
//!                   check_in                        check_out
//! insert -> CheckedOut ----> Idle { connection } ------------> CheckedOut -> remove
//!            |    ^
//!            '----' an event sets `pending_event`, with which the next check_in fails
//! ```
//!
//! A connection that is checked out belongs to the thread that checked it out, or to the admission queue.
use std::time::Instant;

use parking_lot::Mutex;
use slab::Slab;

use super::poller::SocketEvent;

/// Entries that are looked at under one lock, so that workers do not wait for a scan of all of them.
const ENTRIES_PER_SCAN: usize = 1024;

/// The name of one connection. The index of an entry is used again, its token never is, so an event that arrives late
/// finds no connection instead of a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Less than `u32::MAX - 2`, as is any number of open files: the poller has tokens of its own.
    index: u32,
    generation: u32,
}

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        u64::from(token.generation) << 32 | u64::from(token.index)
    }
}

impl From<u64> for Token {
    fn from(number: u64) -> Token {
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        Token {
            generation: u32::from_be_bytes([a, b, c, d]),
            index: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

/// All open connections. The lock is held for one lookup, or for a scan of 1,024 entries; no other lock is taken under
/// it.
pub struct ConnectionSlab<T>(Mutex<Entries<T>>);

struct Entries<T> {
    slab: Slab<Entry<T>>,
    last_generation: u32,
}

struct Entry<T> {
    generation: u32,
    state: State<T>,
}

enum State<T> {
    /// The slab owns the connection, which waits for its socket or for its deadline.
    Idle {
        connection: Box<T>,
        deadline: Instant,
    },
    /// A thread or the admission queue owns the connection.
    CheckedOut { pending_event: Option<SocketEvent> },
}

impl<T> Default for ConnectionSlab<T> {
    fn default() -> Self {
        ConnectionSlab(Mutex::new(Entries {
            slab: Slab::new(),
            last_generation: 0,
        }))
    }
}

impl<T> ConnectionSlab<T> {
    /// Adds an entry for a new connection, which is checked out by the caller.
    pub fn insert(&self) -> Token {
        let mut entries = self.0.lock();
        entries.last_generation = entries.last_generation.wrapping_add(1);
        let generation = entries.last_generation;
        let index = entries.slab.insert(Entry {
            generation,
            state: State::CheckedOut {
                pending_event: None,
            },
        });
        Token {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation,
        }
    }

    /// Removes the entry of a connection that its owner has closed.
    pub fn remove(&self, token: Token) {
        let mut entries = self.0.lock();
        if entries.find(token).is_some()
            && let Ok(index) = usize::try_from(token.index)
        {
            entries.slab.try_remove(index);
        }
    }

    /// Returns the number of open connections, including those that are checked out.
    pub fn len(&self) -> usize {
        self.0.lock().slab.len()
    }

    /// Takes the idle connection that an event concerns. If it is checked out, its owner is given the event at the next
    /// [`ConnectionSlab::check_in`].
    pub fn check_out(&self, token: Token, event: SocketEvent) -> Option<Box<T>> {
        let mut entries = self.0.lock();
        let entry = entries.find(token)?;
        match &mut entry.state {
            State::Idle { .. } => entry.state.check_out(),
            State::CheckedOut { pending_event } => {
                let is_hung_up = pending_event.is_some_and(|pending| pending.is_hung_up);
                *pending_event = Some(SocketEvent {
                    is_hung_up: is_hung_up || event.is_hung_up,
                });
                None
            }
        }
    }

    /// Makes the slab the owner of a connection until the next event or the deadline.
    ///
    /// # Errors
    /// The connection and the event, if one arrived while the connection was checked out.
    pub fn check_in(
        &self,
        token: Token,
        connection: Box<T>,
        deadline: Instant,
    ) -> Result<(), (Box<T>, SocketEvent)> {
        let mut entries = self.0.lock();
        let Some(entry) = entries.find(token) else {
            return Ok(());
        };
        if let State::CheckedOut { pending_event } = &mut entry.state
            && let Some(event) = pending_event.take()
        {
            return Err((connection, event));
        }
        entry.state = State::Idle {
            connection,
            deadline,
        };
        Ok(())
    }

    /// Takes the idle connections whose deadline has passed.
    pub fn check_out_expired(&self, now: Instant) -> Vec<Box<T>> {
        self.check_out_where(|_, deadline| deadline <= now)
    }

    /// Takes the idle connections for which `is_wanted` returns true, given each with its deadline. It is called under the
    /// lock.
    pub fn check_out_where(&self, is_wanted: impl Fn(&T, Instant) -> bool) -> Vec<Box<T>> {
        let mut taken = Vec::new();
        let mut start = 0;
        loop {
            let mut entries = self.0.lock();
            if start >= entries.slab.capacity() {
                return taken;
            }
            for index in start..start + ENTRIES_PER_SCAN {
                if let Some(entry) = entries.slab.get_mut(index)
                    && let State::Idle {
                        connection,
                        deadline,
                    } = &entry.state
                    && is_wanted(connection, *deadline)
                {
                    taken.extend(entry.state.check_out());
                }
            }
            start += ENTRIES_PER_SCAN;
        }
    }
}

impl<T> Entries<T> {
    fn find(&mut self, token: Token) -> Option<&mut Entry<T>> {
        let entry = self.slab.get_mut(usize::try_from(token.index).ok()?)?;
        (entry.generation == token.generation).then_some(entry)
    }
}

impl<T> State<T> {
    fn check_out(&mut self) -> Option<Box<T>> {
        let checked_out = State::CheckedOut {
            pending_event: None,
        };
        match std::mem::replace(self, checked_out) {
            State::Idle { connection, .. } => Some(connection),
            State::CheckedOut { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EVENT: SocketEvent = SocketEvent { is_hung_up: false };
    const HANG_UP: SocketEvent = SocketEvent { is_hung_up: true };

    #[test]
    fn late_event_finds_no_connection_in_a_reused_entry() {
        let slab = ConnectionSlab::default();
        let old = slab.insert();
        slab.remove(old);
        let new = slab.insert();
        let deadline = Instant::now();
        assert!(slab.check_in(new, Box::new(1), deadline).is_ok());
        assert!(slab.check_out(old, EVENT).is_none());
        slab.remove(old);
        assert_eq!(slab.len(), 1);
        let token = Token::from(u64::from(new));
        assert_eq!(slab.check_out(token, EVENT), Some(Box::new(1)));
    }

    #[test]
    fn events_of_a_checked_out_connection_make_its_check_in_fail_once() {
        let slab = ConnectionSlab::default();
        let token = slab.insert();
        assert!(slab.check_out(token, HANG_UP).is_none());
        assert!(slab.check_out(token, EVENT).is_none());
        let deadline = Instant::now();
        let (connection, event) = slab.check_in(token, Box::new(1), deadline).unwrap_err();
        assert!(event.is_hung_up);
        assert!(slab.check_in(token, connection, deadline).is_ok());
    }

    #[test]
    fn only_idle_connections_past_their_deadline_expire() {
        let slab = ConnectionSlab::default();
        let now = Instant::now();
        // More than are scanned under one lock.
        for number in 0..3 * ENTRIES_PER_SCAN {
            let token = slab.insert();
            let is_expired = number % 3 == 0;
            let deadline = match is_expired {
                true => now,
                false => now + Duration::from_secs(1),
            };
            if number % 2 == 0 {
                assert!(slab.check_in(token, Box::new(number), deadline).is_ok());
            }
        }
        let expired = slab.check_out_expired(now);
        assert_eq!(expired.len(), ENTRIES_PER_SCAN / 2);
        assert!(expired.iter().all(|number| **number % 6 == 0));
        assert!(slab.check_out_expired(now).is_empty());
    }
}
