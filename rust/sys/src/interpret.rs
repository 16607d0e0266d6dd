//! The interpreter of Steps. It runs in a freshly cloned child: system calls only, no allocation,
//! no locks, no panics, no unwinding. Everything it touches is the program's own buffer and its stack.

use crate::step::{NO_SLOT, Operation, RawStep, SLOTS, TOLERATE_ALL, WARN, WORDS_A_STEP};

/// A message's kind: the child has failed and is gone.
pub(crate) const FAILED: u32 = 0;
/// A message's kind: a tolerated error.
pub(crate) const WARNING: u32 = 1;
/// From here on, notes of the program.
pub(crate) const NOTE: u32 = 16;

/// How often an interrupted call is made again before its error counts.
const RETRIES: u32 = 1000;

/// One message to the parent.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Message {
    pub kind: u32,
    pub step: u32,
    pub value: i64,
}

#[repr(C)]
struct OneDescriptor {
    header: libc::cmsghdr,
    descriptor: i32,
    padding: i32,
}

/// Run the program at `base` with `inputs` in its first slots, reporting to slot 0, the channel.
///
/// # Safety
/// `base` is a program made by `Builder::finish`, writable and private to this process, and
/// `inputs` has at most `SLOTS` entries, the channel first. To be called in a child of clone3 that
/// shares no memory, where nothing else runs.
pub(crate) unsafe fn interpret(base: *mut u64, inputs: &[i32]) -> ! {
    let mut slots = [-1i64; SLOTS];
    let mut at = 0;
    while at < inputs.len() && at < SLOTS {
        slots[at] = i64::from(inputs[at]);
        at += 1;
    }
    let channel = slots[0];
    // SAFETY: the layout is that of `Builder::finish`, and the header holds its offsets.
    let (steps, count, data) = unsafe {
        let header = *base;
        let count = (header & 0xffff_ffff) as usize;
        let relocations = (header >> 32) as usize;
        let data = base.cast::<u8>().add((*base.add(1) & 0xffff_ffff) as usize);
        let first = base.add(2 + count * WORDS_A_STEP);
        let mut index = 0;
        while index < relocations {
            let entry = *first.add(index);
            let place = data.add((entry & 0xffff_ffff) as usize);
            let target = data.add((entry >> 32) as usize) as u64;
            std::ptr::copy_nonoverlapping((&raw const target).cast::<u8>(), place, 8);
            index += 1;
        }
        (base.add(2).cast::<RawStep>(), count, data)
    };
    let mut number = 0usize;
    while number < count {
        // SAFETY: number < count.
        let step = unsafe { &*steps.add(number) };
        let mut args = [0u64; 6];
        let mut index = 0;
        while index < 6 {
            let raw = step.args[index];
            args[index] = match step.kinds >> (index * 2) & 3 {
                0 => raw,
                // SAFETY: the offset lies in the data.
                1 => unsafe { data.add(raw as usize) as u64 },
                _ => slots[raw as usize % SLOTS].cast_unsigned(),
            };
            index += 1;
        }
        // SAFETY: the arguments were prepared by the plan.
        let result = unsafe { perform(Operation::decode(step.operation), &args, channel, number) };
        if step.operation == Operation::CloseOthers.encode() {
            close_others(&slots);
        }
        let mut goto = step.then;
        if result < 0 {
            let errno = -result;
            let listed = step
                .tolerate
                .iter()
                .any(|tolerated| *tolerated != 0 && i64::from(*tolerated) == errno);
            if step.kinds & TOLERATE_ALL == 0 && !listed {
                send(channel, FAILED, number, errno, -1);
                exit(125);
            }
            if step.kinds & WARN != 0 {
                send(channel, WARNING, number, errno, -1);
            }
            goto = step.otherwise;
        }
        if step.result != NO_SLOT {
            slots[step.result as usize % SLOTS] = result;
        }
        number = if goto == NO_SLOT {
            number + 1
        } else {
            goto as usize
        };
    }
    // A program ends with an exec or an Exit: running off its end is a defect of the plan.
    send(channel, FAILED, number, i64::from(libc::ENOSYS), -1);
    exit(125)
}

/// Do one step; a negative result is a negated error number.
///
/// # Safety
/// The arguments are what the operation wants.
unsafe fn perform(operation: Operation, args: &[u64; 6], channel: i64, number: usize) -> i64 {
    match operation {
        Operation::Call(call) => {
            let mut tries = 0;
            loop {
                // SAFETY: as promised by the caller.
                let result = unsafe {
                    libc::syscall(
                        i64::from(call),
                        args[0],
                        args[1],
                        args[2],
                        args[3],
                        args[4],
                        args[5],
                    )
                };
                if result != -1 {
                    return result;
                }
                // SAFETY: errno is this process's own.
                let errno = unsafe { *libc::__errno_location() };
                let again = errno == libc::EINTR
                    || (errno == libc::EAGAIN && i64::from(call) == libc::SYS_openat2);
                if !again || tries == RETRIES {
                    return -i64::from(errno);
                }
                tries += 1;
            }
        }
        // The latter is done by the caller, which has the slots.
        Operation::Jump | Operation::CloseOthers => 0,
        Operation::Store => {
            // SAFETY: argument 0 is an address in the data.
            unsafe { (args[0] as *mut u32).write_unaligned(args[1] as u32) };
            0
        }
        Operation::Expect => {
            // SAFETY: argument 0 is an address in the data.
            let found = unsafe { (args[0] as *const u32).read_unaligned() };
            if found & args[1] as u32 == args[2] as u32 {
                0
            } else {
                -args[3].cast_signed()
            }
        }
        Operation::Equal => {
            if args[0] == args[1] {
                0
            } else {
                -args[2].cast_signed()
            }
        }
        Operation::Note => send(
            channel,
            NOTE.wrapping_add(args[0] as u32),
            number,
            args[1].cast_signed(),
            args[2].cast_signed() as i32,
        ),
        Operation::Exit => exit(args[0]),
        // SAFETY: argument 0 is an address in the data.
        Operation::Load => i64::from(unsafe { (args[0] as *const i32).read_unaligned() }),
    }
}

/// Send a message, with a descriptor where it is not negative.
fn send(channel: i64, kind: u32, step: usize, value: i64, descriptor: i32) -> i64 {
    let mut message = Message {
        kind,
        step: step as u32,
        value,
    };
    let mut vector = libc::iovec {
        iov_base: (&raw mut message).cast(),
        iov_len: size_of::<Message>(),
    };
    let mut control = OneDescriptor {
        // SAFETY: all zeroes is a valid header.
        header: unsafe { std::mem::zeroed() },
        descriptor,
        padding: 0,
    };
    control.header.cmsg_len = size_of::<libc::cmsghdr>() + size_of::<i32>();
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if descriptor >= 0 {
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = size_of::<OneDescriptor>();
    }
    // SAFETY: everything pointed to lives on this stack frame.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            channel,
            &raw const header,
            libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 {
        // SAFETY: errno is this process's own.
        return -i64::from(unsafe { *libc::__errno_location() });
    }
    0
}

/// Close every descriptor from 3 on that no slot holds.
fn close_others(slots: &[i64; SLOTS]) {
    let mut from = 3i64;
    loop {
        let mut kept = i64::MAX;
        let mut at = 0;
        while at < SLOTS {
            if slots[at] >= from && slots[at] < kept {
                kept = slots[at];
            }
            at += 1;
        }
        let last = if kept > i64::from(u32::MAX) {
            i64::from(u32::MAX)
        } else {
            kept - 1
        };
        if from <= last {
            // SAFETY: takes no pointers; no Rust object of this process is used any more.
            unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) };
        }
        if kept > i64::from(u32::MAX) {
            return;
        }
        from = kept + 1;
    }
}

/// End the process.
pub(crate) fn exit(status: u64) -> ! {
    loop {
        // SAFETY: takes no pointers.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}
