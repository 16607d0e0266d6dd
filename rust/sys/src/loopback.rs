//! Block devices that are files (`loop(4)`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

const GET_FREE: libc::c_ulong = 0x4c82;
const CONFIGURE: libc::c_ulong = 0x4c0a;
const GET_STATUS: libc::c_ulong = 0x4c05;
/// The device lets its file go when nobody uses it any more.
const AUTOCLEAR: u32 = 4;
/// Others may take the free device meanwhile.
const TRIES: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: u32,
    key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    encryption_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A loop device that is open: it goes when neither this nor a mount holds it.
#[derive(Debug)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    _open: File,
}

fn info() -> Info {
    // SAFETY: numbers and arrays of numbers: all zeroes is valid.
    unsafe { std::mem::zeroed() }
}

fn open(path: &PathBuf) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// A device for a file: the one that it has already, where it has one, as a file system must never be mounted by two.
pub fn attach(file: BorrowedFd<'_>) -> io::Result<Device> {
    let stat = rustix::fs::fstat(file)?;
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else {
            continue;
        };
        if !std::fs::exists(format!("/sys/block/{name}/loop"))? {
            continue;
        }
        let path = PathBuf::from(format!("/dev/{name}"));
        let Ok(device) = open(&path) else { continue };
        let mut found = info();
        // SAFETY: the kernel fills the structure.
        let known =
            unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS as _, &raw mut found) == 0 };
        if known && (found.device, found.inode) == (stat.st_dev, stat.st_ino) {
            return Ok(Device {
                path,
                _open: device,
            });
        }
    }
    let control = open(&PathBuf::from("/dev/loop-control"))?;
    let mut config = Config {
        file: file.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info: info(),
        reserved: [0; 8],
    };
    config.info.flags = AUTOCLEAR;
    for _ in 0..TRIES {
        // SAFETY: takes no pointers.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        // SAFETY: the kernel reads the structure.
        if unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) } == 0 {
            return Ok(Device {
                path,
                _open: device,
            });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}
