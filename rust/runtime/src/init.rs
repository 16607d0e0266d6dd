//! The small init: PID 1 of containers that ask for one.
//!
//! It is our own program, executed from a sealed copy in memory: the container sees it as
//! /proc/1/exe, and nothing that is written there could ever reach the host's file.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::{Kind, LaunchError};

/// The name it goes by in the container's process list, and by which our programs know themselves.
pub const NAME: &str = "/sbin/docker-init";

/// The program, as a descriptor; copied at the first call.
pub fn program() -> Result<OwnedFd, LaunchError> {
    static COPY: Mutex<Option<OwnedFd>> = Mutex::new(None);
    let failed = |error: io::Error| {
        LaunchError::new(
            Kind::Unavailable,
            format!("prepare the init of containers: {error}"),
        )
    };
    let mut copy = COPY.lock().unwrap_or_else(PoisonError::into_inner);
    if copy.is_none() {
        *copy = Some(sealed_copy().map_err(failed)?);
    }
    copy.as_ref()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .and_then(OwnedFd::try_clone)
        .map_err(failed)
}

/// This program in memory, never to be changed again.
fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create("knarr-init", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know that flag, and need none.
        Err(rustix::io::Errno::INVAL) => memfd_create("knarr-init", flags)?,
        other => other?,
    };
    let mut memory = File::from(memory);
    io::copy(&mut File::open("/proc/self/exe")?, &mut memory)?;
    rustix::fs::fchmod(&memory, rustix::fs::Mode::from_raw_mode(0o555))?;
    fcntl_add_seals(
        &memory,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    // What is open for writing can't be executed.
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    Ok(File::open(path)?.into())
}

/// Be the init if this process was started as one, and end with the exit status returned.
///
/// To be called first thing in `main` of every program of ours that launches containers.
#[must_use]
pub fn enter(arguments: impl Iterator<Item = OsString>) -> Option<u8> {
    let mut arguments = arguments;
    if arguments.next()? != NAME {
        return None;
    }
    let command: Result<Vec<CString>, _> = arguments
        .skip(1)
        .map(|text| CString::new(text.into_vec()))
        .collect();
    let status = match command {
        Ok(command) if !command.is_empty() => knarr_sys::init::run(&command),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    Some(match status {
        Ok(status) => u8::try_from(status).unwrap_or(255),
        Err(error) => {
            eprintln!("{NAME}: {error}");
            126
        }
    })
}
