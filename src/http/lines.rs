//! The waiting lines of the classes, and the choice of the next request among them. Holds no lock, and does not depend
//! on how recently handlers began.
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rouille::Request;

use super::class::{Class, ClassLimits};
use super::limits::Limits;
use super::table::Key;

/// A request that was read whole.
pub struct PendingRequest {
    /// The connection to answer on, which is held in the table.
    pub key: Key,
    /// What to answer.
    pub request: Request,
    /// When it was read whole.
    pub received: Instant,
    /// Any but `Immediate`.
    pub class: Class,
    /// It had come before the request before it on its connection was answered.
    pub was_sent_ahead: bool,
}

/// The handlers in flight and the requests that wait, by class. Of the classes that may start a handler, the one whose
/// first request waited longest is next, so a full class delays no other.
///
/// Requests that were sent ahead wait in lines of their own, and are next every other time at most while others wait: a
/// client that sends many at once always has one in line, and two hundred such clients would let each request of an
/// ordinary client wait for two hundred of theirs.
pub struct Lines {
    permits: usize,
    /// `Write` and `SignIn` together: at least an eighth of the permits, and at least one of several, is left to reads.
    max_writes_and_sign_ins: usize,
    in_flight: usize,
    /// The last request to start had been sent ahead.
    was_sent_ahead: bool,
    ordinary: Line,
    heavy: Line,
    write: Line,
    sign_in: Line,
}

/// One class.
struct Line {
    limits: ClassLimits,
    in_flight: usize,
    /// In the order of their arrival.
    waiting: VecDeque<PendingRequest>,
    /// Those that were sent ahead, in the same order.
    sent_ahead: VecDeque<PendingRequest>,
}

impl Lines {
    /// Empty lines.
    pub fn new(limits: &Limits) -> Lines {
        let permits = limits.workers.max(1);
        Lines {
            permits,
            max_writes_and_sign_ins: (permits - (permits / 8).max(1)).max(1),
            in_flight: 0,
            was_sent_ahead: false,
            ordinary: Line::new(limits.ordinary),
            heavy: Line::new(limits.heavy),
            write: Line::new(limits.write),
            sign_in: Line::new(limits.sign_in),
        }
    }

    /// Whether a newcomer is to be answered 503, since the first request of its line has waited too long.
    pub fn sheds(&mut self, newcomer: &PendingRequest) -> bool {
        let line = self.line(newcomer.class);
        let shed_after = line.limits.shed_after;
        waited_past(
            line.waiting_like(newcomer.was_sent_ahead),
            shed_after,
            newcomer.received,
        )
    }

    /// Lets a request wait at the end of its line.
    pub fn push(&mut self, pending: PendingRequest) {
        let line = self.line(pending.class);
        line.waiting_like(pending.was_sent_ahead).push_back(pending);
    }

    /// Whether a request waits whose class may start a handler now.
    pub fn has_startable(&self) -> bool {
        self.next_class(false, false).is_some() || self.next_class(true, false).is_some()
    }

    /// Starts the request that is next, if one may start; only a write if `only_writes`.
    pub fn start(&mut self, only_writes: bool) -> Option<PendingRequest> {
        let next = |was_sent_ahead| {
            let class = self.next_class(was_sent_ahead, only_writes)?;
            Some((class, was_sent_ahead))
        };
        let (ordinary, sent_ahead) = (next(false), next(true));
        let (class, was_sent_ahead) = match self.was_sent_ahead {
            true => ordinary.or(sent_ahead)?,
            false => sent_ahead.or(ordinary)?,
        };
        let line = self.line(class);
        let pending = line.waiting_like(was_sent_ahead).pop_front()?;
        line.in_flight += 1;
        self.in_flight += 1;
        self.was_sent_ahead = was_sent_ahead;
        Some(pending)
    }

    /// The class whose first request may start now: of several, the one whose request waited longest.
    fn next_class(&self, was_sent_ahead: bool, only_writes: bool) -> Option<Class> {
        if self.in_flight >= self.permits {
            return None;
        }
        let changing = self.write.in_flight + self.sign_in.in_flight;
        let may_change = changing < self.max_writes_and_sign_ins;
        let lines = [
            (Class::Ordinary, &self.ordinary, !only_writes),
            (Class::Heavy, &self.heavy, !only_writes),
            (Class::Write, &self.write, may_change),
            (Class::SignIn, &self.sign_in, may_change && !only_writes),
        ];
        let startable = lines.into_iter().filter(|(.., may_start)| *may_start);
        startable
            .filter_map(|(class, line, _)| Some((class, line.startable_since(was_sent_ahead)?)))
            .min_by_key(|(_, since)| *since)
            .map(|(class, _)| class)
    }

    /// Notes the end of a handler.
    pub fn end(&mut self, class: Class) {
        self.in_flight -= 1;
        self.line(class).in_flight -= 1;
    }

    /// Takes out the requests that are to be answered 503: of each line the newer half once its first request waits
    /// longer than `shed_after`, and each request that waits longer than `queue_timeout`.
    pub fn shed(&mut self, queue_timeout: Duration, now: Instant) -> Vec<PendingRequest> {
        let mut shed = Vec::new();
        for class in [Class::Ordinary, Class::Heavy, Class::Write, Class::SignIn] {
            let line = self.line(class);
            let shed_after = line.limits.shed_after;
            for waiting in [&mut line.waiting, &mut line.sent_ahead] {
                while waited_past(waiting, queue_timeout, now) {
                    shed.extend(waiting.pop_front());
                }
                if waited_past(waiting, shed_after, now) {
                    let kept = waiting.len().div_ceil(2);
                    shed.extend(waiting.drain(kept..));
                }
            }
        }
        shed
    }

    /// How many handlers run.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        let lines = [&self.ordinary, &self.heavy, &self.write, &self.sign_in];
        let waiting = |line: &&Line| line.waiting.len() + line.sent_ahead.len();
        lines.iter().map(waiting).sum()
    }

    fn line(&mut self, class: Class) -> &mut Line {
        match class {
            Class::Immediate | Class::Ordinary => &mut self.ordinary,
            Class::Heavy => &mut self.heavy,
            Class::Write => &mut self.write,
            Class::SignIn => &mut self.sign_in,
        }
    }
}

impl Line {
    fn new(limits: ClassLimits) -> Line {
        Line {
            limits,
            in_flight: 0,
            waiting: VecDeque::new(),
            sent_ahead: VecDeque::new(),
        }
    }

    fn waiting_like(&mut self, was_sent_ahead: bool) -> &mut VecDeque<PendingRequest> {
        match was_sent_ahead {
            true => &mut self.sent_ahead,
            false => &mut self.waiting,
        }
    }

    /// When its first request was received, if one waits and the class may start a handler.
    fn startable_since(&self, was_sent_ahead: bool) -> Option<Instant> {
        let waiting = match was_sent_ahead {
            true => &self.sent_ahead,
            false => &self.waiting,
        };
        let is_full = self.in_flight >= self.limits.max_in_flight.max(1);
        let first = waiting.front().filter(|_| !is_full);
        first.map(|first| first.received)
    }
}

/// Whether the first of these waits longer than that.
fn waited_past(waiting: &VecDeque<PendingRequest>, wait: Duration, now: Instant) -> bool {
    let first = waiting.front();
    first.is_some_and(|first| now.saturating_duration_since(first.received) > wait)
}
