//! The permits of handlers, and the requests that wait for one. Knows no sockets.
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rouille::Request;

use super::counters::{Counters, show};
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
}

/// The right to run one handler, and since when.
pub struct Permit {
    slice: u64,
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

/// At most `permits` handlers run, and at most `young` that began a moment ago; the others wait in the order in which
/// they came.
///
/// A worker that ends a quick handler goes on with the next request at once. To begin that one on another thread
/// instead would cost two switches between threads, and whatever the handlers share (the cores' caches, the database's
/// processes) serves few at a time better than many. A handler that is slow waits for something else, as a rule, and no
/// longer counts among the young: then others begin beside it.
pub struct Queue {
    permits: usize,
    young: usize,
    shed_after: Duration,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

/// The length of a slice of time. Handlers that began in this one or in the one before are young.
pub const SLICE: Duration = Duration::from_millis(5);

struct State {
    running: usize,
    /// Of those, the ones that began in this slice, and in the one before.
    young: [usize; 2],
    slice: u64,
    slice_began: Instant,
    waiting: VecDeque<Ready>,
}

impl State {
    fn release(&mut self, permit: &Permit) {
        self.running -= 1;
        match self.slice - permit.slice {
            0 => self.young[0] -= 1,
            1 => self.young[1] -= 1,
            _ => {}
        }
    }

    /// Begins another slice once this one is over.
    fn turn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.slice_began);
        if elapsed < SLICE {
            return;
        }
        let [latest, _] = self.young;
        let is_next = elapsed < 2 * SLICE;
        self.young = [0, if is_next { latest } else { 0 }];
        self.slice += if is_next { 1 } else { 2 };
        self.slice_began = now;
    }
}

impl Queue {
    /// For so many handlers at once, and so many of them young.
    pub fn new(
        permits: usize,
        young: usize,
        shed_after: Duration,
        counters: Arc<Counters>,
    ) -> Queue {
        Queue {
            permits,
            young,
            shed_after,
            counters,
            state: Mutex::new(State {
                running: 0,
                young: [0, 0],
                slice: 0,
                slice_began: Instant::now(),
                waiting: VecDeque::new(),
            }),
        }
    }

    /// Asks for a permit.
    pub fn admit(&self, ready: Ready) -> Admission {
        let mut state = self.lock();
        let now = ready.since;
        let oldest = state.waiting.front();
        if oldest
            .is_some_and(|oldest| now.saturating_duration_since(oldest.since) > self.shed_after)
        {
            return Admission::Shed(ready);
        }
        state.waiting.push_back(ready);
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
        state.waiting.push_back(ready);
        self.begin(state, now)
    }

    /// Whether a request waits.
    pub fn is_crowded(&self) -> bool {
        self.counters.queued.load(Ordering::Relaxed) > 0
    }

    fn begin(&self, mut state: MutexGuard<State>, now: Instant) -> Option<Turn> {
        state.turn(now);
        let may_run =
            state.running < self.permits && state.young.iter().sum::<usize>() < self.young;
        let next = may_run.then(|| state.waiting.pop_front()).flatten();
        if next.is_some() {
            state.running += 1;
            state.young[0] += 1;
        }
        show(&self.counters.in_flight, state.running);
        show(&self.counters.queued, state.waiting.len());
        let permit = Permit { slice: state.slice };
        next.map(|ready| (ready, permit))
    }

    /// Takes those out that nobody should let wait any longer: the newer half once the oldest has waited too long,
    /// and each that has waited much too long itself.
    pub fn shed(&self, now: Instant) -> Vec<Ready> {
        let mut state = self.lock();
        let is_past =
            |ready: &Ready, wait: Duration| now.saturating_duration_since(ready.since) > wait;
        let longest = self.shed_after.saturating_mul(LONGEST_WAIT);
        let stale = state
            .waiting
            .iter()
            .take_while(|ready| is_past(ready, longest))
            .count();
        let mut shed: Vec<_> = state.waiting.drain(..stale).collect();
        let oldest = state.waiting.front();
        if oldest.is_some_and(|oldest| is_past(oldest, self.shed_after)) {
            let kept = state.waiting.len().div_ceil(2);
            shed.extend(state.waiting.drain(kept..));
        }
        show(&self.counters.queued, state.waiting.len());
        shed
    }

    /// Whether no handler runs and no request waits.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.running == 0 && state.waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue, and the moment at which its first slice began.
    fn make_queue(permits: usize, young: usize) -> (Queue, Instant) {
        let queue = Queue::new(permits, young, Duration::from_secs(1), Arc::default());
        let began = queue.lock().slice_began;
        (queue, began)
    }

    fn request(number: u64, since: Instant) -> Ready {
        let peer = ([127, 0, 0, 1], 1).into();
        Ready {
            key: Key::from(number),
            request: Request::fake_http_from(peer, "GET", "/", vec![], vec![]),
            since,
        }
    }

    /// The number of the request that runs, if one does.
    fn admit(queue: &Queue, number: u64, since: Instant) -> Option<(u64, Permit)> {
        match queue.admit(request(number, since)) {
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
        let (queue, began) = make_queue(4, 2);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_some());
        assert!(admit(&queue, 3, began).is_none());
        assert!(number(queue.next(began)).is_none());
        assert_eq!(number(queue.finish(permit, began)), Some(3));
    }

    #[test]
    fn handlers_that_prove_slow_make_room_until_the_permits_are_gone() {
        let (queue, began) = make_queue(3, 2);
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
        let (queue, began) = make_queue(4, 1);
        let (_, slow) = admit(&queue, 1, began).unwrap();
        let later = began + 3 * SLICE;
        let (_, young) = admit(&queue, 2, later).unwrap();
        assert!(admit(&queue, 3, later).is_none());
        assert!(number(queue.finish(slow, later)).is_none());
        assert_eq!(number(queue.finish(young, later)), Some(3));
    }

    #[test]
    fn who_sends_ahead_has_the_last_turn() {
        let (queue, began) = make_queue(1, 1);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_none());
        assert_eq!(number(queue.exchange(permit, request(1, began))), Some(2));
    }
}
