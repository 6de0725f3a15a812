//! Admission of requests to handlers: permits, the waiting lines of the classes, and load shedding. Does not depend on what
//! a connection is.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rouille::Request;

use super::limits::{Class, ClassLimits, Limits};
use super::stats::{Stats, set_gauge};

/// A complete request that waits for a permit or has one. It owns the connection on which the response is sent.
pub struct PendingRequest<C> {
    /// The connection.
    pub connection: C,
    /// The request.
    pub request: Request,
    /// When the request was complete.
    pub received: Instant,
    /// Any class but [`Class::Immediate`].
    pub class: Class,
    /// The client sent the request before it had the response to the previous one (RFC 9112 9.3.2).
    pub is_pipelined: bool,
}

/// The right to run one handler. Must be given back by [`AdmissionQueue::release`] or
/// [`AdmissionQueue::release_and_enqueue`].
pub struct Permit {
    class: Class,
}

/// A request whose handler the caller must run now.
pub type Admitted<C> = (PendingRequest<C>, Permit);

/// What [`AdmissionQueue::admit`] decided.
pub enum Admission<C> {
    /// The caller runs a handler: that of its request, or of one that waited longer.
    Run(Admitted<C>),
    /// The request waits; a worker that is free takes it.
    Queued,
    /// Others of its class have waited too long already: the caller answers it 503.
    Shed(PendingRequest<C>),
}

/// Admits requests within the limits of all handlers and of their class. The others wait in the line of their class.
///
/// A worker that finishes a handler continues with the next request at once. Starting that one on another thread instead
/// would cost two switches between threads. So each request waits for the end of a handler, and is started by the worker
/// that ran it. Only [`AdmissionQueue::release_and_enqueue`] may leave another request that could start.
pub struct AdmissionQueue<C> {
    queue_timeout: Duration,
    stats: Arc<Stats>,
    /// No other lock is taken under this one.
    lines: Mutex<Lines<C>>,
}

impl<C> AdmissionQueue<C> {
    /// Creates an empty queue.
    pub fn new(limits: &Limits, stats: Arc<Stats>) -> Self {
        AdmissionQueue {
            queue_timeout: limits.queue_timeout.min(limits.request_timeout),
            stats,
            lines: Mutex::new(Lines::new(limits)),
        }
    }

    /// Enqueues a request, and starts the one that is next.
    pub fn admit(&self, pending: PendingRequest<C>) -> Admission<C> {
        let mut lines = self.lines.lock();
        if lines.must_shed(&pending) {
            return Admission::Shed(pending);
        }
        lines.push(pending);
        match self.start_next(&mut lines) {
            Some(admitted) => Admission::Run(admitted),
            None => Admission::Queued,
        }
    }

    /// Takes back a permit, and starts the next request, if one may start.
    pub fn release(&self, permit: &Permit) -> Option<Admitted<C>> {
        let mut lines = self.lines.lock();
        lines.finish(permit.class);
        self.start_next(&mut lines)
    }

    /// Takes back a permit, enqueues the next request of the same connection, and starts the request that is next. If the
    /// result's second part is true, one more may start: another thread has to call [`AdmissionQueue::try_start`].
    pub fn release_and_enqueue(
        &self,
        permit: &Permit,
        pending: PendingRequest<C>,
    ) -> (Option<Admitted<C>>, bool) {
        let mut lines = self.lines.lock();
        lines.finish(permit.class);
        lines.push(pending);
        (self.start_next(&mut lines), lines.has_startable())
    }

    /// Starts the next request, if one may start. The result is that of [`AdmissionQueue::release_and_enqueue`].
    pub fn try_start(&self) -> (Option<Admitted<C>>, bool) {
        let mut lines = self.lines.lock();
        (self.start_next(&mut lines), lines.has_startable())
    }

    /// Removes the requests that have waited too long. The caller answers them 503.
    pub fn shed(&self, now: Instant) -> Vec<PendingRequest<C>> {
        let mut lines = self.lines.lock();
        let shed = lines.shed(self.queue_timeout, now);
        self.publish(&lines);
        shed
    }

    /// Whether no handler runs and no request waits.
    pub fn is_empty(&self) -> bool {
        let lines = self.lines.lock();
        lines.in_flight == 0 && lines.waiting() == 0
    }

    fn start_next(&self, lines: &mut Lines<C>) -> Option<Admitted<C>> {
        let started = lines.start().map(|pending| {
            let class = pending.class;
            (pending, Permit { class })
        });
        self.publish(lines);
        started
    }

    fn publish(&self, lines: &Lines<C>) {
        set_gauge(&self.stats.in_flight, lines.in_flight);
        set_gauge(&self.stats.queued, lines.waiting());
    }
}

/// The number of handlers in flight and the waiting requests, by class. Of the classes that may start a handler, the one
/// whose first request has waited longest is next, so a full class does not delay others.
///
/// Pipelined requests wait in lines of their own, and start at most every other time while others wait: a client that
/// pipelines always has a request in line, and with two hundred such clients each request of another client would wait for
/// two hundred of theirs.
struct Lines<C> {
    max_in_flight: usize,
    /// The limit of `Write` and `SignIn` together. It leaves an eighth of the permits, and one if there are several, to
    /// reads.
    max_writes_and_sign_ins: usize,
    in_flight: usize,
    /// Whether the last request to start was pipelined.
    last_was_pipelined: bool,
    ordinary: Line<C>,
    heavy: Line<C>,
    write: Line<C>,
    sign_in: Line<C>,
}

/// One class. Both queues are in the order of arrival.
struct Line<C> {
    limits: ClassLimits,
    in_flight: usize,
    waiting: VecDeque<PendingRequest<C>>,
    pipelined: VecDeque<PendingRequest<C>>,
}

impl<C> Lines<C> {
    fn new(limits: &Limits) -> Self {
        let max_in_flight = limits.workers.max(1);
        Lines {
            max_in_flight,
            max_writes_and_sign_ins: (max_in_flight - (max_in_flight / 8).max(1)).max(1),
            in_flight: 0,
            last_was_pipelined: false,
            ordinary: Line::new(limits.ordinary),
            heavy: Line::new(limits.heavy),
            write: Line::new(limits.write),
            sign_in: Line::new(limits.sign_in),
        }
    }

    /// Whether a new request must be answered 503, because the first request of its line has waited too long.
    fn must_shed(&mut self, new: &PendingRequest<C>) -> bool {
        let line = self.line(new.class);
        let shed_after = line.limits.shed_after;
        has_waited(line.queue(new.is_pipelined), shed_after, new.received)
    }

    fn push(&mut self, pending: PendingRequest<C>) {
        let line = self.line(pending.class);
        line.queue(pending.is_pipelined).push_back(pending);
    }

    /// Whether a request waits whose class may start a handler.
    fn has_startable(&self) -> bool {
        self.next_class(false).is_some() || self.next_class(true).is_some()
    }

    /// Takes the next request, if one may start.
    fn start(&mut self) -> Option<PendingRequest<C>> {
        let next = |is_pipelined| {
            let class = self.next_class(is_pipelined)?;
            Some((class, is_pipelined))
        };
        let (other, pipelined) = (next(false), next(true));
        let (class, is_pipelined) = match self.last_was_pipelined {
            true => other.or(pipelined)?,
            false => pipelined.or(other)?,
        };
        let line = self.line(class);
        let pending = line.queue(is_pipelined).pop_front()?;
        line.in_flight += 1;
        self.in_flight += 1;
        self.last_was_pipelined = is_pipelined;
        Some(pending)
    }

    /// Returns the class that may start a handler and whose first request has waited longest.
    fn next_class(&self, is_pipelined: bool) -> Option<Class> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        let writes_and_sign_ins = self.write.in_flight + self.sign_in.in_flight;
        let may_change = writes_and_sign_ins < self.max_writes_and_sign_ins;
        let lines = [
            (Class::Ordinary, &self.ordinary, true),
            (Class::Heavy, &self.heavy, true),
            (Class::Write, &self.write, may_change),
            (Class::SignIn, &self.sign_in, may_change),
        ];
        let startable = lines.into_iter().filter(|(.., may_start)| *may_start);
        startable
            .filter_map(|(class, line, _)| Some((class, line.startable_since(is_pipelined)?)))
            .min_by_key(|(_, since)| *since)
            .map(|(class, _)| class)
    }

    fn finish(&mut self, class: Class) {
        self.in_flight -= 1;
        self.line(class).in_flight -= 1;
    }

    /// Removes each request that has waited longer than `queue_timeout`, and the newer half of each line whose first
    /// request has waited longer than `shed_after`.
    fn shed(&mut self, queue_timeout: Duration, now: Instant) -> Vec<PendingRequest<C>> {
        let mut shed = Vec::new();
        for class in [Class::Ordinary, Class::Heavy, Class::Write, Class::SignIn] {
            let line = self.line(class);
            let shed_after = line.limits.shed_after;
            for queue in [&mut line.waiting, &mut line.pipelined] {
                while has_waited(queue, queue_timeout, now) {
                    shed.extend(queue.pop_front());
                }
                if has_waited(queue, shed_after, now) {
                    let kept = queue.len().div_ceil(2);
                    shed.extend(queue.drain(kept..));
                }
            }
        }
        shed
    }

    fn waiting(&self) -> usize {
        let lines = [&self.ordinary, &self.heavy, &self.write, &self.sign_in];
        let waiting = |line: &&Line<C>| line.waiting.len() + line.pipelined.len();
        lines.iter().map(waiting).sum()
    }

    fn line(&mut self, class: Class) -> &mut Line<C> {
        match class {
            Class::Immediate | Class::Ordinary => &mut self.ordinary,
            Class::Heavy => &mut self.heavy,
            Class::Write => &mut self.write,
            Class::SignIn => &mut self.sign_in,
        }
    }
}

impl<C> Line<C> {
    fn new(limits: ClassLimits) -> Self {
        Line {
            limits,
            in_flight: 0,
            waiting: VecDeque::new(),
            pipelined: VecDeque::new(),
        }
    }

    fn queue(&mut self, is_pipelined: bool) -> &mut VecDeque<PendingRequest<C>> {
        match is_pipelined {
            true => &mut self.pipelined,
            false => &mut self.waiting,
        }
    }

    /// Returns when the first request was received, if one waits and the class may start a handler.
    fn startable_since(&self, is_pipelined: bool) -> Option<Instant> {
        let queue = match is_pipelined {
            true => &self.pipelined,
            false => &self.waiting,
        };
        let is_full = self.in_flight >= self.limits.max_in_flight.max(1);
        let first = queue.front().filter(|_| !is_full);
        first.map(|first| first.received)
    }
}

/// Whether the first request has waited longer than `wait`.
fn has_waited<C>(queue: &VecDeque<PendingRequest<C>>, wait: Duration, now: Instant) -> bool {
    let first = queue.front();
    first.is_some_and(|first| now.saturating_duration_since(first.received) > wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHED_AFTER: Duration = Duration::from_secs(1);

    /// Returns a queue and a moment. The connection of a request is its number.
    fn make_queue(limits: Limits) -> (AdmissionQueue<u64>, Instant) {
        (AdmissionQueue::new(&limits, Arc::default()), Instant::now())
    }

    fn limits(workers: usize, max_heavy: usize) -> Limits {
        let mut limits = Limits::for_workers(workers);
        limits.heavy.max_in_flight = max_heavy;
        limits
    }

    fn pending(number: u64, received: Instant, class: Class) -> PendingRequest<u64> {
        let peer = ([127, 0, 0, 1], 1).into();
        PendingRequest {
            connection: number,
            request: Request::fake_http_from(peer, "GET", "/", vec![], vec![]),
            received,
            class,
            is_pipelined: false,
        }
    }

    fn pipelined(number: u64, received: Instant) -> PendingRequest<u64> {
        PendingRequest {
            is_pipelined: true,
            ..pending(number, received, Class::Ordinary)
        }
    }

    /// Returns the number of the request that starts, if one does.
    fn admit(queue: &AdmissionQueue<u64>, number: u64, received: Instant) -> Option<(u64, Permit)> {
        admit_as(Class::Ordinary, queue, number, received)
    }

    fn admit_as(
        class: Class,
        queue: &AdmissionQueue<u64>,
        number: u64,
        received: Instant,
    ) -> Option<(u64, Permit)> {
        match queue.admit(pending(number, received, class)) {
            Admission::Run((pending, permit)) => Some((pending.connection, permit)),
            Admission::Queued => None,
            Admission::Shed(_) => panic!("{number} was shed"),
        }
    }

    fn number(admitted: Option<Admitted<u64>>) -> Option<u64> {
        admitted.map(|(pending, _)| pending.connection)
    }

    fn shed(queue: &AdmissionQueue<u64>, now: Instant) -> Vec<u64> {
        let shed = queue.shed(now);
        shed.iter().map(|pending| pending.connection).collect()
    }

    #[test]
    fn next_request_of_a_connection_queues_behind_those_of_others() {
        let (queue, began) = make_queue(limits(1, 1));
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_none());
        let ahead = pending(1, began, Class::Ordinary);
        let (started, may_start_more) = queue.release_and_enqueue(&permit, ahead);
        assert_eq!(number(started), Some(2));
        assert!(!may_start_more);
    }

    #[test]
    fn next_request_of_a_connection_may_start_beside_the_one_that_its_handler_let_in() {
        let (queue, began) = make_queue(limits(4, 1));
        let (_, permit) = admit_as(Class::Heavy, &queue, 1, began).unwrap();
        assert!(admit_as(Class::Heavy, &queue, 2, began).is_none());
        let ahead = pending(1, began + Duration::from_millis(1), Class::Ordinary);
        let (started, may_start_more) = queue.release_and_enqueue(&permit, ahead);
        assert_eq!(number(started), Some(2));
        assert!(may_start_more);
        let (started, may_start_more) = queue.try_start();
        assert_eq!(number(started), Some(1));
        assert!(!may_start_more);
    }

    #[test]
    fn pipelined_requests_start_every_other_time_while_others_wait() {
        let (queue, began) = make_queue(limits(1, 1));
        let (_, mut permit) = admit(&queue, 1, began).unwrap();
        for number in 10..16 {
            let admission = queue.admit(pipelined(number, began));
            assert!(matches!(admission, Admission::Queued));
        }
        for number in 2..5 {
            assert!(admit(&queue, number, began).is_none());
        }
        let mut begun = Vec::new();
        while let Some((pending, next)) = queue.release(&permit) {
            begun.push(pending.connection);
            permit = next;
        }
        assert_eq!(begun, [10, 2, 11, 3, 12, 4, 13, 14, 15]);
    }

    #[test]
    fn full_class_does_not_delay_other_classes() {
        for class in [Class::Heavy, Class::Write, Class::SignIn] {
            let (queue, began) = make_queue(limits(8, 3));
            let max = match class {
                Class::Write => 4,
                _ => 3,
            };
            let permits: Vec<_> = (0..max)
                .map(|number| admit_as(class, &queue, number, began).unwrap().1)
                .collect();
            // However long they run.
            let later = began + Duration::from_millis(45);
            assert!(admit_as(class, &queue, 10, later).is_none());
            assert!(admit_as(class, &queue, 11, later).is_none());
            let (passing, permit) = admit(&queue, 12, later).unwrap();
            assert_eq!(passing, 12, "{class:?}");
            assert!(number(queue.release(&permit)).is_none());
            let ends = permits.into_iter().map(|permit| queue.release(&permit));
            let begun: Vec<_> = ends.filter_map(number).collect();
            assert_eq!(begun, [10, 11], "{class:?}");
        }
    }

    #[test]
    fn stuck_writes_and_sign_ins_leave_an_eighth_of_the_permits_to_reads() {
        for workers in [2, 3, 8, 9, 16, 96, 1024] {
            let (queue, began) = make_queue(limits(workers, 1));
            let mut held = Vec::new();
            for number in 0..1024 {
                held.extend(admit_as(Class::Write, &queue, number, began));
                held.extend(admit_as(Class::SignIn, &queue, number, began));
            }
            let left = workers - held.len();
            assert!(left >= 1 && left * 8 >= workers, "{left} of {workers}");
            for number in 0..left {
                let number = u64::try_from(number).unwrap();
                assert!(admit(&queue, number, began).is_some());
            }
            assert!(admit(&queue, 0, began).is_none());
        }
    }

    #[test]
    fn of_several_startable_classes_the_oldest_request_starts() {
        let (queue, began) = make_queue(limits(1, 1));
        let (_, permit) = admit(&queue, 1, began).unwrap();
        let moment = |milliseconds| began + Duration::from_millis(milliseconds);
        assert!(admit_as(Class::Heavy, &queue, 2, moment(1)).is_none());
        assert!(admit_as(Class::SignIn, &queue, 3, moment(2)).is_none());
        assert!(admit(&queue, 4, moment(3)).is_none());
        assert!(admit_as(Class::Write, &queue, 5, moment(4)).is_none());
        let mut permit = Some(permit);
        let mut begun = Vec::new();
        while let Some(ended) = permit.take() {
            if let Some((pending, next)) = queue.release(&ended) {
                begun.push(pending.connection);
                permit = Some(next);
            }
        }
        assert_eq!(begun, [2, 3, 4, 5]);
    }

    #[test]
    fn only_the_class_whose_requests_wait_too_long_is_shed() {
        let (queue, began) = make_queue(limits(1, 1));
        assert!(admit(&queue, 1, began).is_some());
        assert!(admit_as(Class::Heavy, &queue, 2, began).is_none());
        assert!(admit_as(Class::Heavy, &queue, 3, began).is_none());
        let late = began + SHED_AFTER + Duration::from_millis(5);
        assert!(admit(&queue, 4, late).is_none());
        let new = queue.admit(pending(5, late, Class::Heavy));
        assert!(matches!(new, Admission::Shed(_)));
        assert_eq!(shed(&queue, late), [3]);
    }

    #[test]
    fn sign_ins_are_shed_after_four_seconds_and_expire_after_five() {
        let (queue, began) = make_queue(limits(1, 1));
        assert!(admit(&queue, 1, began).is_some());
        assert!(admit_as(Class::SignIn, &queue, 2, began).is_none());
        assert!(admit_as(Class::SignIn, &queue, 3, began).is_none());
        let moment = |milliseconds| began + Duration::from_millis(milliseconds);
        assert!(admit_as(Class::SignIn, &queue, 4, moment(3_990)).is_none());
        assert!(shed(&queue, moment(4_000)).is_empty());
        assert_eq!(shed(&queue, moment(4_010)), [4]);
        assert_eq!(shed(&queue, moment(5_010)), [2, 3]);
    }
}
