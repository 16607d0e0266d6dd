//! Steps: a flat program of system calls, prepared before a clone and interpreted after it.
//!
//! A [`Program`] is one contiguous buffer of 64-bit words that needs no pointer from outside:
//!
//! ```text
//! word 0   number of steps | number of relocations << 32
//! word 1   offset of the data in bytes | its length << 32
//! steps    nine words each: see `RawStep`
//! relocs   one word each: data offset of a pointer | data offset that it points to << 32
//! data     C strings, structures and room for results
//! ```
//!
//! Each step is a system call (or one of a few operations of the interpreter) with six arguments,
//! each an immediate value, the address of a piece of the data, or the content of a **slot**. Slots
//! are numbered variables that hold descriptors and results; the first ones are the program's
//! inputs. A step may tolerate some errors, and says where the program goes on after success and
//! after a tolerated error. Anything else ends the child, which reports (step, errno).

/// Slots a program may use.
pub const SLOTS: usize = 1024;
/// No slot.
pub(crate) const NO_SLOT: u16 = 0xffff;

/// An argument of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// The value itself.
    Value(u64),
    /// The address of this offset of the data.
    Data(u32),
    /// What the slot holds.
    Slot(u16),
}

impl Arg {
    /// A signed value.
    #[must_use]
    pub const fn int(value: i64) -> Self {
        Self::Value(value.cast_unsigned())
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The system call of this number.
    Call(u32),
    /// Nothing: go to the step named by `then`.
    Jump,
    /// Store the low 32 bits of argument 1 at the data of argument 0.
    Store,
    /// Fail with the error number of argument 3 unless the 32 bits at the data of argument 0,
    /// masked by argument 1, are argument 2.
    Expect,
    /// Fail with the error number of argument 2 unless arguments 0 and 1 are equal.
    Equal,
    /// Send the parent a note: argument 0 its kind, argument 1 its value, and the descriptor of
    /// argument 2 where that is not negative.
    Note,
    /// End the child with the status of argument 0.
    Exit,
    /// Close every descriptor from 3 on that no slot holds.
    CloseOthers,
    /// The result is the low 32 bits, signed, at the data of argument 0.
    Load,
}

const CALL_LIMIT: u32 = 0x1000_0000;

impl Operation {
    pub(crate) const fn encode(self) -> u32 {
        match self {
            Self::Call(number) => number,
            Self::Jump => CALL_LIMIT,
            Self::Store => CALL_LIMIT + 1,
            Self::Expect => CALL_LIMIT + 2,
            Self::Equal => CALL_LIMIT + 3,
            Self::Note => CALL_LIMIT + 4,
            Self::Exit => CALL_LIMIT + 5,
            Self::CloseOthers => CALL_LIMIT + 6,
            Self::Load => CALL_LIMIT + 7,
        }
    }

    pub(crate) const fn decode(code: u32) -> Self {
        match code {
            0x1000_0000 => Self::Jump,
            0x1000_0001 => Self::Store,
            0x1000_0002 => Self::Expect,
            0x1000_0003 => Self::Equal,
            0x1000_0004 => Self::Note,
            0x1000_0005 => Self::Exit,
            0x1000_0006 => Self::CloseOthers,
            0x1000_0007 => Self::Load,
            number => Self::Call(number),
        }
    }
}

/// Which errors a step gets away with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerate {
    /// None.
    Nothing,
    /// These (at most four).
    Errors(&'static [i32]),
    /// All.
    Everything,
}

/// A step on its way into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub operation: Operation,
    /// With what.
    pub args: [Arg; 6],
    /// Where the result goes.
    pub result: Option<u16>,
    /// Where the program goes on after success; the next step where absent.
    pub then: Option<u16>,
    /// Errors after which the program goes on.
    pub tolerate: Tolerate,
    /// Where it goes on after one of these; the next step where absent.
    pub otherwise: Option<u16>,
    /// Whether a tolerated error is reported as a warning.
    pub warn: bool,
}

impl Step {
    /// A system call that must succeed.
    #[must_use]
    pub fn call(number: i64, args: &[Arg]) -> Self {
        Self::new(
            Operation::Call(u32::try_from(number).unwrap_or(u32::MAX >> 4)),
            args,
        )
    }

    /// Any operation that must succeed.
    #[must_use]
    pub fn new(operation: Operation, args: &[Arg]) -> Self {
        let mut six = [Arg::Value(0); 6];
        for (to, from) in six.iter_mut().zip(args) {
            *to = *from;
        }
        Self {
            operation,
            args: six,
            result: None,
            then: None,
            tolerate: Tolerate::Nothing,
            otherwise: None,
            warn: false,
        }
    }

    /// Keep the result.
    #[must_use]
    pub const fn into_slot(mut self, slot: u16) -> Self {
        self.result = Some(slot);
        self
    }

    /// Go on after these errors.
    #[must_use]
    pub const fn tolerating(mut self, errors: &'static [i32]) -> Self {
        self.tolerate = Tolerate::Errors(errors);
        self
    }

    /// Go on after any error.
    #[must_use]
    pub const fn tolerating_all(mut self) -> Self {
        self.tolerate = Tolerate::Everything;
        self
    }

    /// Report tolerated errors.
    #[must_use]
    pub const fn warning(mut self) -> Self {
        self.warn = true;
        self
    }
}

/// A step as the interpreter reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct RawStep {
    pub operation: u32,
    /// Two bits an argument: 0 value, 1 data, 2 slot; bit 30: warn; bit 31: tolerate everything.
    pub kinds: u32,
    pub result: u16,
    pub then: u16,
    pub otherwise: u16,
    pub spare: u16,
    /// Error numbers below 256; 0 for none.
    pub tolerate: [u8; 4],
    pub spare2: u32,
    pub args: [u64; 6],
}

pub(crate) const WORDS_A_STEP: usize = size_of::<RawStep>() / 8;
pub(crate) const WARN: u32 = 1 << 30;
pub(crate) const TOLERATE_ALL: u32 = 1 << 31;

/// A program under construction.
#[derive(Debug, Default)]
pub struct Builder {
    steps: Vec<Step>,
    data: Vec<u8>,
    relocations: Vec<(u32, u32)>,
    slots: u16,
}

impl Builder {
    /// An empty program whose first slots are its inputs.
    #[must_use]
    pub fn new(inputs: u16) -> Self {
        Self {
            slots: inputs,
            ..Self::default()
        }
    }

    /// The number the next step will have.
    #[must_use]
    pub fn next(&self) -> u16 {
        u16::try_from(self.steps.len()).unwrap_or(u16::MAX)
    }

    /// A fresh slot.
    pub fn slot(&mut self) -> u16 {
        let slot = self.slots;
        self.slots = self.slots.saturating_add(1);
        slot
    }

    /// Append a step; its number.
    pub fn push(&mut self, step: Step) -> u16 {
        let number = self.next();
        self.steps.push(step);
        number
    }

    /// Change a step that was appended before: for jumps forward.
    pub fn patch(&mut self, number: u16, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.get_mut(usize::from(number)) {
            change(step);
        }
    }

    /// Place bytes, aligned to eight.
    pub fn bytes(&mut self, bytes: &[u8]) -> u32 {
        while !self.data.len().is_multiple_of(8) {
            self.data.push(0);
        }
        let offset = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.data.extend_from_slice(bytes);
        offset
    }

    /// Place a string with its terminating zero. Callers have made sure that it holds none.
    pub fn string(&mut self, text: &str) -> Arg {
        let offset = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.data.extend_from_slice(text.as_bytes());
        self.data.push(0);
        Arg::Data(offset)
    }

    /// Place an array of pointers to strings, ended by a null pointer.
    pub fn strings<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> Arg {
        let offsets: Vec<u32> = texts
            .into_iter()
            .map(|text| match self.string(text) {
                Arg::Data(offset) => offset,
                Arg::Value(_) | Arg::Slot(_) => u32::MAX,
            })
            .collect();
        let array = self.bytes(&vec![0; (offsets.len() + 1) * 8]);
        for (index, target) in offsets.into_iter().enumerate() {
            self.relocations
                .push((array + u32::try_from(index * 8).unwrap_or(u32::MAX), target));
        }
        Arg::Data(array)
    }

    /// Let the eight bytes at `place` hold the address of the data at `target`.
    pub fn point(&mut self, place: u32, target: u32) {
        self.relocations.push((place, target));
    }

    /// The finished program; `None` where it is beyond its limits (65,535 steps, 1,024 slots, 4 GiB).
    #[must_use]
    pub fn finish(mut self) -> Option<Program> {
        let steps = self.steps.len();
        if steps >= usize::from(u16::MAX) || usize::from(self.slots) > SLOTS {
            return None;
        }
        while !self.data.len().is_multiple_of(8) {
            self.data.push(0);
        }
        let relocations = self.relocations.len();
        let data_offset = (2 + steps * WORDS_A_STEP + relocations) * 8;
        let low = |value: usize| u32::try_from(value).ok().map(u64::from);
        let mut words = Vec::with_capacity(data_offset / 8 + self.data.len() / 8);
        words.push(low(steps)? | low(relocations)? << 32);
        words.push(low(data_offset)? | low(self.data.len())? << 32);
        for step in &self.steps {
            encode(step, &mut words);
        }
        words.extend(
            self.relocations
                .iter()
                .map(|(place, target)| u64::from(*place) | u64::from(*target) << 32),
        );
        words.extend(self.data.chunks_exact(8).map(|chunk| {
            let mut eight = [0; 8];
            eight.copy_from_slice(chunk);
            u64::from_ne_bytes(eight)
        }));
        Some(Program {
            words,
            steps: self.steps,
        })
    }
}

fn encode(step: &Step, words: &mut Vec<u64>) {
    let mut kinds = 0u32;
    let mut args = [0u64; 6];
    for (index, arg) in step.args.iter().enumerate() {
        let (kind, value) = match *arg {
            Arg::Value(value) => (0, value),
            Arg::Data(offset) => (1, u64::from(offset)),
            Arg::Slot(slot) => (2, u64::from(slot)),
        };
        kinds |= kind << (index * 2);
        args[index] = value;
    }
    let mut tolerate = [0u8; 4];
    match step.tolerate {
        Tolerate::Nothing => {}
        Tolerate::Everything => kinds |= TOLERATE_ALL,
        Tolerate::Errors(errors) => {
            for (to, from) in tolerate.iter_mut().zip(errors) {
                *to = u8::try_from(*from).unwrap_or(0);
            }
        }
    }
    if step.warn {
        kinds |= WARN;
    }
    let target = |to: Option<u16>| u64::from(to.unwrap_or(NO_SLOT));
    words.push(u64::from(step.operation.encode()) | u64::from(kinds) << 32);
    words.push(
        u64::from(step.result.unwrap_or(NO_SLOT))
            | target(step.then) << 16
            | target(step.otherwise) << 32,
    );
    words.push(u64::from(u32::from_ne_bytes(tolerate)));
    words.extend(args);
}

/// A finished program: bytes for the child, and its steps for whoever looks at it.
#[derive(Debug)]
pub struct Program {
    words: Vec<u64>,
    steps: Vec<Step>,
}

impl Program {
    /// The program as it crosses to the child.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u64 {
        self.words.as_mut_ptr()
    }

    /// Its steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The C string at an offset of the data: for tests and messages.
    #[must_use]
    pub fn text(&self, arg: Arg) -> Option<String> {
        let Arg::Data(offset) = arg else { return None };
        let start =
            usize::try_from(self.words[1] & 0xffff_ffff).ok()? + usize::try_from(offset).ok()?;
        let bytes = (start..).map_while(|at| {
            let word = self.words.get(at / 8)?;
            Some(word.to_ne_bytes()[at % 8])
        });
        String::from_utf8(bytes.take_while(|byte| *byte != 0).collect()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_again() {
        let mut builder = Builder::new(1);
        let path = builder.string("/proc/self");
        builder.push(
            Step::call(257, &[Arg::int(-100), path])
                .into_slot(3)
                .tolerating(&[2, 17]),
        );
        let program = builder.finish().expect("within limits");
        assert_eq!(
            program.text(program.steps()[0].args[1]).as_deref(),
            Some("/proc/self")
        );
        assert_eq!(program.words()[0], 1);
    }

    #[test]
    fn too_many_slots_are_refused() {
        let mut builder = Builder::new(0);
        for _ in 0..=SLOTS {
            builder.slot();
        }
        assert!(builder.finish().is_none());
    }
}
