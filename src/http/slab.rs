//! Open connections by token. Does not depend on what a connection is.
//!
//! ```text
//!                   check_in                        check_out
//! insert -> CheckedOut ----> Idle { connection } ------------> CheckedOut -> remove
//!            |    ^
//!            '----' an event is kept, and the next check_in fails with it
//! ```
//!
//! A connection that is checked out belongs to the thread that checked it out, or to the admission queue.
use std::time::Instant;

use parking_lot::Mutex;
use slab::Slab;

use super::poller::SocketEvent;

/// Entries that are looked at under one lock, so that workers do not wait for a scan of all of them.
const ENTRIES_PER_SCAN: usize = 1024;

/// The name of one connection, here and at the poller: the index of its entry in the lower half, which is less than
/// `u32::MAX - 2`, as is any number of open files (the poller has tokens of its own), and a generation in the upper half. An
/// index is used again, a token never is, so an event that arrives late finds no connection instead of a wrong one.
pub type Token = u64;

/// All open connections. The lock is held for one lookup, or for a scan of 1,024 entries; no other lock is taken under
/// it.
pub struct ConnectionSlab<T>(Mutex<Entries<T>>);

struct Entries<T> {
    slab: Slab<Entry<T>>,
    last_generation: u32,
}

struct Entry<T> {
    token: Token,
    state: State<T>,
}

enum State<T> {
    /// The slab owns the connection, which waits for its socket or for its deadline.
    Idle {
        connection: Box<T>,
        deadline: Instant,
    },
    /// A thread or the admission queue owns the connection, for which this event has arrived in the meantime.
    CheckedOut(Option<SocketEvent>),
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
        let Entries {
            slab,
            last_generation,
        } = &mut *self.0.lock();
        *last_generation = last_generation.wrapping_add(1);
        let vacant = slab.vacant_entry();
        let index = u32::try_from(vacant.key()).unwrap_or(u32::MAX);
        let token = u64::from(*last_generation) << 32 | u64::from(index);
        let state = State::CheckedOut(None);
        vacant.insert(Entry { token, state });
        token
    }

    /// Removes the entry of a connection that its owner has closed.
    pub fn remove(&self, token: Token) {
        let mut entries = self.0.lock();
        if entries.find(token).is_some() {
            entries.slab.try_remove(index(token));
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
            State::CheckedOut(pending) => {
                let was_hung_up = pending.is_some_and(|pending| pending.is_hung_up);
                let is_hung_up = was_hung_up || event.is_hung_up;
                *pending = Some(SocketEvent { is_hung_up });
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
        if let State::CheckedOut(pending) = &mut entry.state
            && let Some(event) = pending.take()
        {
            return Err((connection, event));
        }
        entry.state = State::Idle {
            connection,
            deadline,
        };
        Ok(())
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
        let entry = self.slab.get_mut(index(token))?;
        (entry.token == token).then_some(entry)
    }
}

fn index(token: Token) -> usize {
    usize::try_from(token & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

impl<T> State<T> {
    fn check_out(&mut self) -> Option<Box<T>> {
        match std::mem::replace(self, State::CheckedOut(None)) {
            State::Idle { connection, .. } => Some(connection),
            State::CheckedOut(_) => None,
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
        assert_eq!(slab.check_out(new, EVENT), Some(Box::new(1)));
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
        let expired = slab.check_out_where(|_, deadline| deadline <= now);
        assert_eq!(expired.len(), ENTRIES_PER_SCAN / 2);
        assert!(expired.iter().all(|number| **number % 6 == 0));
        let again = slab.check_out_where(|_, deadline| deadline <= now);
        assert!(again.is_empty());
    }
}
