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
}

/// The handlers in flight and the requests that wait, by class. Of the classes that may start a handler, the one whose
/// first request waited longest is next, so a full class delays no other.
pub struct Lines {
    permits: usize,
    /// `Write` and `SignIn` together: at least an eighth of the permits, and at least one of several, is left to reads.
    max_writes_and_sign_ins: usize,
    in_flight: usize,
    ordinary: Line,
    heavy: Line,
    write: Line,
    sign_in: Line,
}

/// One class.
struct Line {
    limits: ClassLimits,
    in_flight: usize,
    waiting: VecDeque<PendingRequest>,
}

impl Lines {
    /// Empty lines.
    pub fn new(limits: &Limits) -> Lines {
        let permits = limits.workers.max(1);
        Lines {
            permits,
            max_writes_and_sign_ins: (permits - (permits / 8).max(1)).max(1),
            in_flight: 0,
            ordinary: Line::new(limits.ordinary),
            heavy: Line::new(limits.heavy),
            write: Line::new(limits.write),
            sign_in: Line::new(limits.sign_in),
        }
    }

    /// Whether a newcomer is to be answered 503, since the first request of its line has waited too long.
    pub fn sheds(&mut self, newcomer: &PendingRequest) -> bool {
        let line = self.line(newcomer.class);
        line.first_waited_past(line.limits.shed_after, newcomer.received)
    }

    /// Lets a request wait at the end of its line.
    pub fn push(&mut self, pending: PendingRequest) {
        self.line(pending.class).waiting.push_back(pending);
    }

    /// The class whose first request may start now: of several, the one whose request waited longest.
    pub fn next_class(&self) -> Option<Class> {
        if self.in_flight >= self.permits {
            return None;
        }
        let changing = self.write.in_flight + self.sign_in.in_flight;
        let may_change = changing < self.max_writes_and_sign_ins;
        let lines = [
            (Class::Ordinary, &self.ordinary, true),
            (Class::Heavy, &self.heavy, true),
            (Class::Write, &self.write, may_change),
            (Class::SignIn, &self.sign_in, may_change),
        ];
        let startable = lines.into_iter().filter(|(.., may_start)| *may_start);
        startable
            .filter_map(|(class, line, _)| Some((class, line.startable_since()?)))
            .min_by_key(|(_, since)| *since)
            .map(|(class, _)| class)
    }

    /// Starts the first request of a class.
    pub fn start(&mut self, class: Class) -> Option<PendingRequest> {
        let line = self.line(class);
        let pending = line.waiting.pop_front()?;
        line.in_flight += 1;
        self.in_flight += 1;
        Some(pending)
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
            while line.first_waited_past(queue_timeout, now) {
                shed.extend(line.waiting.pop_front());
            }
            if line.first_waited_past(line.limits.shed_after, now) {
                let kept = line.waiting.len().div_ceil(2);
                shed.extend(line.waiting.drain(kept..));
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
        lines.iter().map(|line| line.waiting.len()).sum()
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
        }
    }

    /// When its first request was received, if one waits and the class may start a handler.
    fn startable_since(&self) -> Option<Instant> {
        let is_full = self.in_flight >= self.limits.max_in_flight.max(1);
        let first = self.waiting.front().filter(|_| !is_full);
        first.map(|first| first.received)
    }

    fn first_waited_past(&self, wait: Duration, now: Instant) -> bool {
        let first = self.waiting.front();
        first.is_some_and(|first| now.saturating_duration_since(first.received) > wait)
    }
}
