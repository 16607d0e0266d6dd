//! Threads for work that blocks: starts, execs, teardown.
//!
//! Jobs of one pool begin in the order in which they were given. Their results come back to the event loop, which is
//! woken by an eventfd. A pool whose threads are all stuck (a dead network file system, a frozen group) gets more of
//! them, up to [`LIMIT`], so that one container's trouble is not everybody's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

/// The most threads of a pool.
const LIMIT: usize = 32;
/// How long a job may wait before its pool gets another thread.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// Enough for what jobs do.
const STACK_BYTES: usize = 512 * 1024;

type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// Where results arrive.
#[derive(Debug)]
pub struct Results<T> {
    receiver: Receiver<T>,
    sender: Sender<T>,
    event: Arc<OwnedFd>,
}

impl<T: Send + 'static> Results<T> {
    /// Nothing yet.
    pub fn new() -> io::Result<Self> {
        let (sender, receiver) = channel();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            receiver,
            sender,
            event: Arc::new(event),
        })
    }

    /// A descriptor that becomes readable with each result.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.event.as_fd().try_clone_to_owned()
    }

    /// Gives results without being asked for any; from any thread.
    pub fn giver(&self) -> impl Fn(T) + Send + use<T> {
        let (sender, event) = (self.sender.clone(), Arc::clone(&self.event));
        move |result| {
            // The results end with the supervisor; for the rest see Pool::grow.
            if sender.send(result).is_ok() {
                let _ = rustix::io::write(&*event, &1_u64.to_ne_bytes());
            }
        }
    }

    /// What has come.
    pub fn take(&self) -> Vec<T> {
        // Nothing to read means that nothing has come since.
        let _ = rustix::io::read(&*self.event, &mut [0_u8; 8]);
        self.receiver.try_iter().collect()
    }

    /// Threads whose results arrive here.
    pub fn pool(&self, name: &'static str, threads: usize) -> io::Result<Pool<T>> {
        let queue = Queue {
            jobs: VecDeque::new(),
            threads: 0,
            idle: 0,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            ready: Condvar::new(),
        });
        let pool = Pool {
            name,
            shared,
            sender: self.sender.clone(),
            event: Arc::clone(&self.event),
        };
        for _ in 0..threads {
            pool.grow()?;
        }
        Ok(pool)
    }
}

struct Queue<T> {
    jobs: VecDeque<(Instant, Job<T>)>,
    threads: usize,
    idle: usize,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    ready: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Job<T> {
        let mut queue = self.lock();
        loop {
            if let Some((_, job)) = queue.jobs.pop_front() {
                return job;
            }
            queue.idle += 1;
            queue = self
                .ready
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

/// Some threads.
pub struct Pool<T> {
    name: &'static str,
    shared: Arc<Shared<T>>,
    sender: Sender<T>,
    event: Arc<OwnedFd>,
}

impl<T: Send + 'static> Pool<T> {
    /// Give a job to the next thread that is free.
    pub fn submit(&self, job: impl FnOnce() -> T + Send + 'static) {
        self.shared
            .lock()
            .jobs
            .push_back((Instant::now(), Box::new(job)));
        self.shared.ready.notify_one();
    }

    /// Have another thread if a job waits for too long. True if jobs wait.
    pub fn relieve(&self) -> io::Result<bool> {
        let queue = self.shared.lock();
        let Some((since, _)) = queue.jobs.front() else {
            return Ok(false);
        };
        let needed = since.elapsed() >= PATIENCE && queue.idle == 0 && queue.threads < LIMIT;
        drop(queue);
        if needed {
            self.grow()?;
        }
        Ok(true)
    }

    /// See that there are at least so many threads.
    pub fn have(&self, threads: usize) -> io::Result<()> {
        while self.shared.lock().threads < threads {
            self.grow()?;
        }
        Ok(())
    }

    fn grow(&self) -> io::Result<()> {
        let (shared, sender, event) = (
            Arc::clone(&self.shared),
            self.sender.clone(),
            Arc::clone(&self.event),
        );
        let number = {
            let mut queue = self.shared.lock();
            queue.threads += 1;
            queue.threads
        };
        let thread = std::thread::Builder::new()
            .name(format!("{}-{number}", self.name))
            .stack_size(STACK_BYTES);
        thread.spawn(move || {
            loop {
                let job = shared.next();
                // The results end with the supervisor.
                if sender.send(job()).is_err() {
                    return;
                }
                // It can only fail when 2^64 - 2 results wait, and then the descriptor is readable.
                let _ = rustix::io::write(&*event, &1_u64.to_ne_bytes());
            }
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_is_stuck_gets_another_thread() {
        let results: Results<u32> = Results::new().unwrap();
        let pool = results.pool("test", 1).unwrap();
        let (let_go, stuck) = channel::<()>();
        pool.submit(move || stuck.recv().map_or(0, |()| 1));
        std::thread::sleep(Duration::from_millis(50));
        pool.submit(|| 2);
        assert!(pool.relieve().unwrap());
        assert_eq!(pool.shared.lock().threads, 1, "it has not waited for long");
        std::thread::sleep(PATIENCE);
        assert!(pool.relieve().unwrap());
        assert_eq!(results.receiver.recv(), Ok(2));
        let_go.send(()).unwrap();
        assert_eq!(results.receiver.recv(), Ok(1));
        assert!(!pool.relieve().unwrap());
    }
}
