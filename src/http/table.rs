//! The table of open connections: who has each one now, and until when it may take. Knows no protocol.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::Connection;

/// How many entries are looked at in one go, so that nobody waits for the table longer than that takes.
const SWEPT_AT_ONCE: usize = 1024;

/// A connection's place in the table. A place is used again, but never with the same number, so that an event that
/// comes late finds nobody rather than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl From<Key> for u64 {
    fn from(key: Key) -> u64 {
        u64::from(key.generation) << 32 | u64::from(key.index)
    }
}

impl From<u64> for Key {
    fn from(number: u64) -> Key {
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        Key {
            generation: u32::from_be_bytes([a, b, c, d]),
            index: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

/// All open connections. A worker takes one out to work on it, so the lock is held for moments only.
#[derive(Default)]
pub struct Table(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

struct Entry {
    generation: u32,
    state: State,
    /// An event came while nobody could be told; whoever parks the connection is.
    is_stirred: bool,
    is_hung_up: bool,
    deadline: Option<Instant>,
    connection: Option<Box<Connection>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// A worker has the connection.
    Taken,
    /// It waits for its socket.
    Parked,
    /// It waits for a handler.
    Held,
}

impl Table {
    /// A place for a new connection, which the caller has.
    pub fn reserve(&self) -> Key {
        let mut table = self.lock();
        let index = match table.free.pop() {
            Some(index) => index,
            None => {
                table.entries.push(Entry {
                    generation: 0,
                    state: State::Free,
                    is_stirred: false,
                    is_hung_up: false,
                    deadline: None,
                    connection: None,
                });
                u32::try_from(table.entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let mut generation = 0;
        if let Some(entry) = table.entry_at(index) {
            entry.generation = entry.generation.wrapping_add(1);
            entry.state = State::Taken;
            entry.is_stirred = false;
            entry.is_hung_up = false;
            generation = entry.generation;
        }
        Key { index, generation }
    }

    /// Gives a place back whose connection is closed.
    pub fn release(&self, key: Key) {
        let mut table = self.lock();
        if let Some(entry) = table.entry(key) {
            entry.state = State::Free;
            entry.deadline = None;
            entry.connection = None;
            table.free.push(key.index);
        }
    }

    /// How many places are in use.
    pub fn len(&self) -> usize {
        let table = self.lock();
        table.entries.len() - table.free.len()
    }

    /// The parked connection that an event concerns. If it is not parked, whoever has it learns of the event when it
    /// parks it.
    pub fn take(&self, key: Key, is_hung_up: bool) -> Option<Box<Connection>> {
        let mut table = self.lock();
        let entry = table.entry(key)?;
        if entry.state != State::Parked {
            entry.is_stirred = true;
            entry.is_hung_up |= is_hung_up;
            return None;
        }
        entry.state = State::Taken;
        let mut connection = entry.connection.take()?;
        connection.stir(is_hung_up);
        Some(connection)
    }

    /// Lets a connection wait for its socket until its deadline. It is given back if an event came in the meantime.
    pub fn park(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        let mut table = self.lock();
        let entry = table.entry(connection.key)?;
        if std::mem::take(&mut entry.is_stirred) {
            connection.stir(entry.is_hung_up);
            return Some(connection);
        }
        entry.state = State::Parked;
        entry.deadline = Some(connection.deadline);
        entry.connection = Some(connection);
        None
    }

    /// Lets a connection wait for a worker and its handler, until the deadline.
    pub fn hold(&self, connection: Box<Connection>, deadline: Instant) {
        let mut table = self.lock();
        if let Some(entry) = table.entry(connection.key) {
            entry.state = State::Held;
            entry.deadline = Some(deadline);
            entry.connection = Some(connection);
        }
    }

    /// The held connection, unless its deadline was faster.
    pub fn reclaim(&self, key: Key) -> Option<Box<Connection>> {
        let mut table = self.lock();
        let entry = table
            .entry(key)
            .filter(|entry| entry.state == State::Held)?;
        entry.state = State::Taken;
        let is_stirred = std::mem::take(&mut entry.is_stirred);
        let mut connection = entry.connection.take()?;
        if is_stirred {
            connection.stir(entry.is_hung_up);
        }
        Some(connection)
    }

    /// Takes all whose deadline is past.
    pub fn take_expired(&self, now: Instant) -> impl Iterator<Item = Box<Connection>> {
        self.take_where(|entry| entry.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Takes all that wait for their socket, or only those that are idle with a deadline not after this.
    pub fn take_parked(
        &self,
        idle_until: Option<Instant>,
    ) -> impl Iterator<Item = Box<Connection>> {
        self.take_where(|entry| {
            let is_idle = |connection: &Connection| {
                idle_until.is_none_or(|latest| connection.is_idle(latest))
            };
            entry.state == State::Parked && entry.connection.as_deref().is_some_and(is_idle)
        })
    }

    fn take_where(&self, is_meant: impl Fn(&Entry) -> bool) -> std::vec::IntoIter<Box<Connection>> {
        let mut taken = Vec::new();
        let mut from = 0;
        loop {
            let mut table = self.lock();
            let mut entries = table
                .entries
                .iter_mut()
                .skip(from)
                .take(SWEPT_AT_ONCE)
                .peekable();
            if entries.peek().is_none() {
                return taken.into_iter();
            }
            for entry in entries {
                if matches!(entry.state, State::Parked | State::Held) && is_meant(entry) {
                    entry.state = State::Taken;
                    entry.deadline = None;
                    taken.extend(entry.connection.take());
                }
            }
            from += SWEPT_AT_ONCE;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn entry_at(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        self.entry_at(key.index)
            .filter(|entry| entry.generation == key.generation && entry.state != State::Free)
    }
}
