//! The permits of handlers, and the requests that wait for one. Knows no sockets.
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rouille::Request;

use super::counters::{Counters, show};
use super::pace::{Beginning, Pace};
use super::table::Key;

/// A request waits at most this many times `shed_after` itself.
const LONGEST_WAIT: u32 = 5;

/// A request that was read whole.
pub struct Ready {
    /// The connection to answer on, which is held in the table.
    pub key: Key,
    /// What to answer.
    pub request: Request,
    /// When it was read.
    pub since: Instant,
    /// Whether its handler is one of those that are bounded by themselves.
    pub is_costly: bool,
}

/// The right to run one handler, and since when.
pub struct Permit {
    beginning: Beginning,
    is_costly: bool,
}

/// A request whose handler is to run now.
pub type Turn = (Ready, Permit);

/// What becomes of a request.
pub enum Admission {
    /// The caller has the permit, and runs the handler of this request: of this one or of the one that waited longest.
    Run(Turn),
    /// It waits; the worker that has time for it takes it.
    Queued,
    /// Others wait too long already.
    Shed(Ready),
}

/// How many handlers run at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At the most.
    pub permits: usize,
    /// Of those, the ones that began a moment ago.
    pub young: usize,
    /// Of those, the costly ones.
    pub costly: usize,
}

/// Handlers run within the bounds; the other requests wait in the order in which they came, but none behind costly
/// ones that wait for their like.
///
/// A worker that ends a quick handler goes on with the next request at once. To begin that one on another thread
/// instead would cost two switches between threads, and whatever the handlers share (the cores' caches, the database's
/// processes) serves few at a time better than many. A handler that is slow waits for something else, as a rule, and no
/// longer counts among the young: then others begin beside it.
pub struct Queue {
    bounds: Bounds,
    shed_after: Duration,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

struct State {
    running: usize,
    running_costly: usize,
    pace: Pace,
    waiting: VecDeque<Ready>,
    waiting_costly: VecDeque<Ready>,
}

impl State {
    fn release(&mut self, permit: &Permit) {
        self.running -= 1;
        self.running_costly -= usize::from(permit.is_costly);
        self.pace.end(&permit.beginning);
    }

    /// Where such a request waits.
    fn line(&mut self, is_costly: bool) -> &mut VecDeque<Ready> {
        if is_costly {
            &mut self.waiting_costly
        } else {
            &mut self.waiting
        }
    }

    fn push(&mut self, ready: Ready) {
        self.line(ready.is_costly).push_back(ready);
    }

    /// The request that waited longest of those that the bounds let run.
    fn pop(&mut self, bounds: Bounds, now: Instant) -> Option<Ready> {
        if self.running >= bounds.permits || self.pace.young(now) >= bounds.young {
            return None;
        }
        let oldest = self.waiting.front();
        let costly = self.waiting_costly.front();
        let is_costly = costly.is_some_and(|costly| {
            self.running_costly < bounds.costly
                && oldest.is_none_or(|oldest| costly.since < oldest.since)
        });
        self.line(is_costly).pop_front()
    }

    fn waiting(&self) -> usize {
        self.waiting.len() + self.waiting_costly.len()
    }
}

impl Queue {
    /// An empty one.
    pub fn new(bounds: Bounds, shed_after: Duration, counters: Arc<Counters>) -> Queue {
        Queue {
            bounds,
            shed_after,
            counters,
            state: Mutex::new(State {
                running: 0,
                running_costly: 0,
                pace: Pace::new(Instant::now()),
                waiting: VecDeque::new(),
                waiting_costly: VecDeque::new(),
            }),
        }
    }

    /// Asks for a permit.
    pub fn admit(&self, ready: Ready) -> Admission {
        let mut state = self.lock();
        let now = ready.since;
        let oldest = state.line(ready.is_costly).front();
        if oldest
            .is_some_and(|oldest| now.saturating_duration_since(oldest.since) > self.shed_after)
        {
            return Admission::Shed(ready);
        }
        state.push(ready);
        match self.begin(state, now) {
            Some(turn) => Admission::Run(turn),
            None => Admission::Queued,
        }
    }

    /// The request that waited longest, if its handler may run.
    pub fn next(&self, now: Instant) -> Option<Turn> {
        self.begin(self.lock(), now)
    }

    /// Gives a permit back, and takes the next turn if there is one.
    pub fn finish(&self, permit: Permit, now: Instant) -> Option<Turn> {
        let mut state = self.lock();
        state.release(&permit);
        self.begin(state, now)
    }

    /// The same behind a request that came on the same connection. It goes to the end of the queue: a client that sends
    /// ahead gets no more than its turn.
    pub fn exchange(&self, permit: Permit, ready: Ready) -> Option<Turn> {
        let mut state = self.lock();
        state.release(&permit);
        let now = ready.since;
        state.push(ready);
        self.begin(state, now)
    }

    /// Whether a request waits.
    pub fn is_crowded(&self) -> bool {
        self.counters.queued.load(Ordering::Relaxed) > 0
    }

    fn begin(&self, mut state: MutexGuard<State>, now: Instant) -> Option<Turn> {
        let turn = state.pop(self.bounds, now).map(|ready| {
            let is_costly = ready.is_costly;
            state.running += 1;
            state.running_costly += usize::from(is_costly);
            let beginning = state.pace.begin();
            let permit = Permit {
                beginning,
                is_costly,
            };
            (ready, permit)
        });
        show(&self.counters.in_flight, state.running);
        show(&self.counters.queued, state.waiting());
        turn
    }

    /// Takes those out that nobody should let wait any longer: the newer half once the oldest has waited too long,
    /// and each that has waited much too long itself.
    pub fn shed(&self, now: Instant) -> Vec<Ready> {
        let mut state = self.lock();
        let is_past =
            |ready: &Ready, wait: Duration| now.saturating_duration_since(ready.since) > wait;
        let longest = self.shed_after.saturating_mul(LONGEST_WAIT);
        let mut shed = Vec::new();
        for is_costly in [false, true] {
            let line = state.line(is_costly);
            let stale = line
                .iter()
                .take_while(|ready| is_past(ready, longest))
                .count();
            shed.extend(line.drain(..stale));
            let oldest = line.front();
            if oldest.is_some_and(|oldest| is_past(oldest, self.shed_after)) {
                let kept = line.len().div_ceil(2);
                shed.extend(line.drain(kept..));
            }
        }
        show(&self.counters.queued, state.waiting());
        shed
    }

    /// Whether no handler runs and no request waits.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.running == 0 && state.waiting() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::SLICE;
    use super::*;

    const SHED_AFTER: Duration = Duration::from_secs(1);

    /// A queue, and the moment at which its first slice began.
    fn make_queue(permits: usize, young: usize, costly: usize) -> (Queue, Instant) {
        let bounds = Bounds {
            permits,
            young,
            costly,
        };
        let queue = Queue::new(bounds, SHED_AFTER, Arc::default());
        let began = Instant::now();
        queue.lock().pace = Pace::new(began);
        (queue, began)
    }

    fn request(number: u64, since: Instant, is_costly: bool) -> Ready {
        let peer = ([127, 0, 0, 1], 1).into();
        Ready {
            key: Key::from(number),
            request: Request::fake_http_from(peer, "GET", "/", vec![], vec![]),
            since,
            is_costly,
        }
    }

    /// The number of the request that runs, if one does.
    fn admit(queue: &Queue, number: u64, since: Instant) -> Option<(u64, Permit)> {
        begin(queue, request(number, since, false))
    }

    fn admit_costly(queue: &Queue, number: u64, since: Instant) -> Option<(u64, Permit)> {
        begin(queue, request(number, since, true))
    }

    fn begin(queue: &Queue, ready: Ready) -> Option<(u64, Permit)> {
        let number: u64 = ready.key.into();
        match queue.admit(ready) {
            Admission::Run((ready, permit)) => Some((ready.key.into(), permit)),
            Admission::Queued => None,
            Admission::Shed(_) => panic!("{number} was shed"),
        }
    }

    fn number(turn: Option<Turn>) -> Option<u64> {
        turn.map(|(ready, _)| ready.key.into())
    }

    #[test]
    fn one_more_than_the_young_waits_for_one_of_them_to_end() {
        let (queue, began) = make_queue(4, 2, 4);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_some());
        assert!(admit(&queue, 3, began).is_none());
        assert!(number(queue.next(began)).is_none());
        assert_eq!(number(queue.finish(permit, began)), Some(3));
    }

    #[test]
    fn handlers_that_prove_slow_make_room_until_the_permits_are_gone() {
        let (queue, began) = make_queue(3, 2, 3);
        assert!(admit(&queue, 1, began).is_some() && admit(&queue, 2, began).is_some());
        assert!(admit(&queue, 3, began).is_none());
        // Still young, though of the slice before.
        assert!(admit(&queue, 4, began + SLICE).is_none());
        // The one that waited longest begins.
        assert_eq!(admit(&queue, 5, began + 2 * SLICE).unwrap().0, 3);
        assert!(admit(&queue, 6, began + 5 * SLICE).is_none());
    }

    #[test]
    fn a_slow_handler_s_end_gives_no_turn_while_there_are_enough_young_ones() {
        let (queue, began) = make_queue(4, 1, 4);
        let (_, slow) = admit(&queue, 1, began).unwrap();
        let later = began + 3 * SLICE;
        let (_, young) = admit(&queue, 2, later).unwrap();
        assert!(admit(&queue, 3, later).is_none());
        assert!(number(queue.finish(slow, later)).is_none());
        assert_eq!(number(queue.finish(young, later)), Some(3));
    }

    #[test]
    fn who_sends_ahead_has_the_last_turn() {
        let (queue, began) = make_queue(1, 1, 1);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_none());
        let ahead = request(1, began, false);
        assert_eq!(number(queue.exchange(permit, ahead)), Some(2));
    }

    #[test]
    fn who_waits_for_a_costly_handler_s_end_is_passed_by_all_but_its_like() {
        let (queue, began) = make_queue(4, 4, 1);
        let (_, costly) = admit_costly(&queue, 1, began).unwrap();
        // However slow it proves.
        let later = began + 9 * SLICE;
        assert!(admit_costly(&queue, 2, later).is_none());
        assert!(admit_costly(&queue, 3, later).is_none());
        let (passing, permit) = admit(&queue, 4, later).unwrap();
        assert_eq!(passing, 4);
        assert!(number(queue.finish(permit, later)).is_none());
        assert_eq!(number(queue.finish(costly, later)), Some(2));
    }

    #[test]
    fn where_both_may_run_the_one_that_came_first_does() {
        let (queue, began) = make_queue(1, 1, 1);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        let moment = |milliseconds| began + Duration::from_millis(milliseconds);
        assert!(admit_costly(&queue, 2, moment(1)).is_none());
        assert!(admit(&queue, 3, moment(2)).is_none());
        assert!(admit_costly(&queue, 4, moment(3)).is_none());
        let (second, permit) = queue.finish(permit, moment(4)).unwrap();
        assert_eq!(u64::from(second.key), 2);
        let (third, permit) = queue.finish(permit, moment(4)).unwrap();
        assert_eq!(u64::from(third.key), 3);
        assert_eq!(number(queue.finish(permit, moment(4))), Some(4));
    }

    #[test]
    fn only_those_are_shed_whose_like_wait_too_long() {
        let (queue, began) = make_queue(1, 1, 1);
        assert!(admit(&queue, 1, began).is_some());
        assert!(admit_costly(&queue, 2, began).is_none());
        assert!(admit_costly(&queue, 3, began).is_none());
        let late = began + SHED_AFTER + SLICE;
        assert!(admit(&queue, 4, late).is_none());
        let turned_away = queue.admit(request(5, late, true));
        assert!(matches!(turned_away, Admission::Shed(_)));
        let shed = queue.shed(late);
        let shed: Vec<u64> = shed.iter().map(|ready| ready.key.into()).collect();
        assert_eq!(shed, [3]);
    }
}
