//! Lines on their way to standard error: a bounded queue that request threads fill, and one thread that writes.
//!
//! Threads that log never wait for a reader: a line that does not fit is dropped and counted. Once lines are dropped, all
//! further ones are, until half of the queue is written, so that what is missing is one gap and not many. The writer then
//! logs how many lines the gap had. Lines keep their order, and a line is written whole.
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::output::{RawStderr, write_lines};
use crate::telemetry::metrics;

/// Bytes that may be queued, those being written included: some 100,000 lines of requests, which is what a busy service
/// logs in 10 s.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that are written by one system call: what a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// Pause of the writer after it has caught up, for further lines to be written together. Measured with 16 clients on two
/// cores: a request that is answered with 404 costs 10 microseconds of CPU time, and 13 without the pause, since the writer
/// is then woken for most lines.
const PAUSE: Duration = Duration::from_millis(10);

/// The queue between the threads that log and the writer.
pub(super) struct LineQueue {
    max_bytes: usize,
    state: Mutex<State>,
    /// Wakes the writer: a line came while it waited without a limit, or [`LineQueue::drain`] began.
    is_filled: Condvar,
    /// Wakes [`LineQueue::drain`]: the queue is empty and all of it written.
    is_written: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines, up to [`CHUNK_BYTES`] together; a longer line is alone.
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of all chunks, and of the one that is being written.
    bytes: usize,
    /// Whether the writer has a chunk, or a notice about lost lines to log.
    is_writing: bool,
    /// Whether further lines are dropped.
    is_full: bool,
    /// Lines that were dropped, or failed to be written, since the last notice about them.
    lost_lines: u64,
    /// Whether the writer waits for a line without a limit.
    is_writer_idle: bool,
    /// Threads in [`LineQueue::drain`]; the writer does not pause while there are any.
    drainers: usize,
}

impl LineQueue {
    /// An empty queue of the usual size.
    pub fn new() -> Arc<LineQueue> {
        LineQueue::with_max_bytes(MAX_QUEUED_BYTES)
    }

    fn with_max_bytes(max_bytes: usize) -> Arc<LineQueue> {
        Arc::new(LineQueue {
            max_bytes,
            state: Mutex::default(),
            is_filled: Condvar::new(),
            is_written: Condvar::new(),
        })
    }

    /// Starts the thread that writes the queue's lines to standard error. `tell_loss` is called in that thread to log how
    /// many lines were lost.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start_writer(
        self: &Arc<LineQueue>,
        tell_loss: impl Fn(u64) + Send + 'static,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || queue.write_to(RawStderr, tell_loss))?;
        Ok(())
    }

    /// Appends a line, its line feed included, or drops it if the queue is full. Never waits for the writer.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        state.is_full |= state.bytes + line.len() > self.max_bytes;
        if state.is_full {
            state.lose(1);
            return;
        }
        state.bytes += line.len();
        match state.chunks.back_mut() {
            Some(chunk) if chunk.len() + line.len() <= CHUNK_BYTES => chunk.extend_from_slice(line),
            _ => state.chunks.push_back(line.to_vec()),
        }
        if std::mem::take(&mut state.is_writer_idle) {
            drop(state);
            self.is_filled.notify_one();
        }
    }

    /// Waits until all lines are written, for this long at most.
    pub fn drain(&self, timeout: Duration) {
        let mut state = self.lock();
        state.drainers += 1;
        self.is_filled.notify_one();
        let waited = self
            .is_written
            .wait_timeout_while(state, timeout, |state| state.bytes > 0 || state.is_writing);
        waited.unwrap_or_else(PoisonError::into_inner).0.drainers -= 1;
    }

    /// Writes the queue's lines for as long as the process lives. A line that fails to be written counts as lost, and
    /// the next ones are tried.
    fn write_to(&self, mut output: impl Write, tell_loss: impl Fn(u64)) {
        // The end of a line whose beginning was written before an error; it comes before anything else.
        let mut torn = Vec::new();
        loop {
            let chunk = self.next_chunk();
            let written = write_lines(&mut output, &mut torn, &chunk);
            if let Some(lost_lines) = self.finish(chunk.len(), written) {
                tell_loss(lost_lines);
            }
        }
    }

    /// The oldest lines. Waits for the first, and a moment for more.
    fn next_chunk(&self) -> Vec<u8> {
        let mut state = self.lock();
        state.is_writing = false;
        if state.bytes == 0 {
            self.is_written.notify_all();
        }
        if state.chunks.len() < 2 {
            let waited = self
                .is_filled
                .wait_timeout_while(state, PAUSE, |state| state.drainers == 0);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.is_writing = true;
                return chunk;
            }
            state.is_writer_idle = true;
            let waited = self.is_filled.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives back the room of a chunk that was written, or of which this many lines were lost. The number of lines that a
    /// notice is due about.
    fn finish(&self, chunk_bytes: usize, written: Result<(), u64>) -> Option<u64> {
        let mut state = self.lock();
        state.bytes -= chunk_bytes;
        state.is_full &= state.bytes > self.max_bytes / 2;
        match written {
            Ok(()) if !state.is_full && state.lost_lines > 0 => {
                Some(std::mem::take(&mut state.lost_lines))
            }
            Ok(()) => None,
            Err(lines) => {
                state.lose(lines);
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lose(&mut self, lines: u64) {
        self.lost_lines += lines;
        metrics::count_lost_log_lines(lines);
    }
}

/// Where the formatting logger writes to: collects the parts of a line, and queues it whole.
pub(super) struct LineCollector {
    queue: Arc<LineQueue>,
    line: Vec<u8>,
}

impl LineCollector {
    /// For lines of this queue.
    pub fn new(queue: Arc<LineQueue>) -> LineCollector {
        LineCollector {
            queue,
            line: Vec::new(),
        }
    }
}

impl Write for LineCollector {
    /// A line feed ends a line only as the last byte of a part: messages have their control characters escaped.
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(part);
        if part.ends_with(b"\n") {
            self.queue.push(&self.line);
            self.line.clear();
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc::{self, Receiver, SyncSender};
    use std::time::Instant;

    use super::*;

    /// Hands each write over to the test, and so waits while the test does not take it.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn write_to_pipe(queue: &Arc<LineQueue>) -> Receiver<Vec<u8>> {
        let (pipe, received) = mpsc::sync_channel(0);
        let (writer, teller) = (Arc::clone(queue), Arc::clone(queue));
        thread::spawn(move || {
            writer.write_to(Pipe(pipe), |lines| {
                teller.push(format!("{lines} lost\n").as_bytes());
            });
        });
        received
    }

    /// Lines up to this one.
    fn receive_until(received: &Receiver<Vec<u8>>, last: &str) -> Vec<String> {
        let mut text = String::new();
        while !text.ends_with(last) {
            text += &String::from_utf8(received.recv().unwrap()).unwrap();
        }
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_in_one_line_where_they_are_missing() {
        let queue = LineQueue::with_max_bytes(100);
        for number in 0..30 {
            queue.push(format!("line {number:04}\n").as_bytes());
        }
        queue.push(b"short\n");
        let received = write_to_pipe(&queue);
        let lines = receive_until(&received, "lost\n");
        let mut expected: Vec<_> = (0..10).map(|number| format!("line {number:04}")).collect();
        expected.push("21 lost".to_owned());
        assert_eq!(lines, expected);
        queue.push(b"next\n");
        assert_eq!(receive_until(&received, "next\n"), ["next"]);
    }

    #[test]
    fn a_drain_ends_at_its_timeout_if_nobody_reads_and_else_when_all_is_written() {
        let queue = LineQueue::new();
        queue.push(b"first\n");
        let received = write_to_pipe(&queue);
        queue.drain(Duration::from_millis(20));
        assert_eq!(queue.lock().bytes, 6);
        let reader = thread::spawn(move || receive_until(&received, "last\n"));
        queue.push(b"last\n");
        let (begun, timeout) = (Instant::now(), Duration::from_secs(20));
        queue.drain(timeout);
        assert!(begun.elapsed() < timeout);
        assert_eq!(queue.lock().bytes, 0);
        assert_eq!(reader.join().unwrap(), ["first", "last"]);
    }

    #[test]
    fn a_burst_of_100_000_lines_of_requests_fits_and_lines_of_threads_are_whole_and_in_order() {
        let queue = LineQueue::new();
        let received = write_to_pipe(&queue);
        thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    let mut collector = LineCollector::new(Arc::clone(queue));
                    for number in 0..25_000 {
                        write!(collector, "{thread} {number} {:120}", "").unwrap();
                        writeln!(collector).unwrap();
                    }
                });
            }
        });
        queue.push(b"last\n");
        let mut next = BTreeMap::new();
        for line in receive_until(&received, "last\n") {
            let mut words = line.split(' ');
            let (thread, number) = (words.next(), words.next());
            let expected = next.entry(thread.map(str::to_owned)).or_insert(0);
            if line != "last" {
                assert_eq!(
                    (number, line.len() > 120),
                    (Some(&*expected.to_string()), true)
                );
                *expected += 1;
            }
        }
        assert_eq!(next.values().sum::<usize>(), 100_000);
    }
}
