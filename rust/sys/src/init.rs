//! PID 1 of a container that asks for one: starts a command, forwards signals to it, reaps whatever
//! is orphaned, and ends as the command does.

use std::ffi::{CString, c_char};
use std::io;
use std::mem::MaybeUninit;

/// Signals that mean this process itself: stopping it would stop nothing but the forwarding.
const OWN: [i32; 3] = [libc::SIGTTIN, libc::SIGTTOU, libc::SIGTSTP];

/// Run `command` and return its exit status as shells know it. Never returns before it ends.
///
/// To be called in a process with one thread, whose standard descriptors the command inherits.
pub fn run(command: &[CString]) -> io::Result<i32> {
    let mut arguments: Vec<*const c_char> = command.iter().map(|text| text.as_ptr()).collect();
    arguments.push(std::ptr::null());
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: the sets are initialised by the calls.
    let (all, before) = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        (all.assume_init(), before.assume_init())
    };
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        // SAFETY: system calls on values of this process's own; `arguments` ends with a null pointer.
        unsafe {
            libc::setpgid(0, 0);
            // Blocked signals include SIGTTOU, which a background process would get here.
            if libc::isatty(0) == 1 {
                libc::tcsetpgrp(0, libc::getpgrp());
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            libc::execvp(arguments[0], arguments.as_ptr());
        }
        let error = io::Error::last_os_error();
        let code = if error.kind() == io::ErrorKind::NotFound {
            127
        } else {
            126
        };
        eprintln!(
            "exec {}: {error}",
            command
                .first()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        );
        // SAFETY: ends the child without running what its parent has registered.
        unsafe { libc::_exit(code) };
    }
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: a set and room for the answer.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, info.as_mut_ptr()) };
        if signal == libc::SIGCHLD {
            if let Some(status) = reap(child) {
                return Ok(status);
            }
        } else if signal > 0 && !OWN.contains(&signal) {
            // SAFETY: takes no pointers. It fails only where the command has just ended.
            unsafe { libc::kill(child, signal) };
        }
    }
}

/// Reap everything that has ended; the status of the command if it is among that.
fn reap(command: i32) -> Option<i32> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: room for the status.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if pid == command {
            found = Some(if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            });
        }
    }
}
