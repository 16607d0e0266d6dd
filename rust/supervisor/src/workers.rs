//! Threads for work that blocks: starts, execs, teardown.
//!
//! Jobs of one pool begin in the order in which they were given. Their results come back to the event loop, which is
//! woken by an eventfd.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

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
        let (sender, results) = channel();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            receiver: results,
            sender,
            event: Arc::new(event),
        })
    }

    /// A descriptor that becomes readable with each result.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.event.as_fd().try_clone_to_owned()
    }

    /// What has come.
    pub fn take(&self) -> Vec<T> {
        // Nothing to read means that nothing has come since.
        let _ = rustix::io::read(&*self.event, &mut [0_u8; 8]);
        self.receiver.try_iter().collect()
    }

    /// Threads whose results arrive here.
    pub fn pool(&self, name: &str, threads: usize) -> io::Result<Pool<T>> {
        let (jobs, queue) = channel::<Job<T>>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let (queue, sender, event) = (
                Arc::clone(&queue),
                self.sender.clone(),
                Arc::clone(&self.event),
            );
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .stack_size(512 * 1024)
                .spawn(move || {
                    loop {
                        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        // The queue or the results end with the supervisor.
                        let Ok(job) = job else { return };
                        if sender.send(job()).is_err() {
                            return;
                        }
                        // It can only fail when 2^64 - 2 results wait, and then the descriptor is readable.
                        let _ = rustix::io::write(&*event, &1_u64.to_ne_bytes());
                    }
                })?;
        }
        Ok(Pool { jobs })
    }
}

/// Some threads.
#[derive(Debug)]
pub struct Pool<T> {
    jobs: Sender<Job<T>>,
}

impl<T> Pool<T> {
    /// Give a job to the next thread that is free.
    pub fn submit(&self, job: impl FnOnce() -> T + Send + 'static) {
        // The threads live as long as the pool: a send cannot fail.
        let _ = self.jobs.send(Box::new(job));
    }
}
