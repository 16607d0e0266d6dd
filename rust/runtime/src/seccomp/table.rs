//! System call numbers by name, from the data beside this file.

use std::sync::OnceLock;

/// An architecture whose calls we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit x86 with 32-bit pointers.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
}

/// The bit that x32 numbers have.
pub const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// The machine's own.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::X86_64
    };

    /// The architecture of a name of the runtime specification; `None` for others that exist.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            _ => return None,
        })
    }

    /// The kernel's `AUDIT_ARCH_*`: x32 has that of `x86_64`.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether its system calls can be made on this machine at all.
    #[must_use]
    pub const fn possible(self) -> bool {
        match Self::NATIVE {
            Self::Aarch64 | Self::Arm => matches!(self, Self::Aarch64 | Self::Arm),
            _ => matches!(self, Self::X86_64 | Self::X86 | Self::X32),
        }
    }

    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }
}

type Row = (&'static str, [Option<u32>; 5]);

fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        include_str!("syscalls.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut fields = line.split(' ');
                let name = fields.next()?;
                let mut numbers = [None; 5];
                for (number, field) in numbers.iter_mut().zip(fields) {
                    *number = field.parse().ok();
                }
                Some((name, numbers))
            })
            .collect()
    })
}

/// A call's number on every architecture; `None` where nobody knows the name.
#[must_use]
pub fn find(name: &str) -> Option<Numbers> {
    let rows = rows();
    rows.binary_search_by(|(known, _)| (*known).cmp(name))
        .ok()
        .map(|at| Numbers(rows[at].1))
}

/// One call's numbers.
#[derive(Clone, Copy, Debug)]
pub struct Numbers([Option<u32>; 5]);

impl Numbers {
    /// Its number, with x32's bit, where the architecture has it.
    #[must_use]
    pub fn on(&self, arch: Arch) -> Option<u32> {
        let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
        self.0[arch.column()].map(|number| number | bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_whole() {
        assert!(rows().windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(rows().len() > 480);
    }

    #[test]
    fn numbers_are_the_kernels() {
        let cases = [
            ("execve", Arch::X86_64, Some(59)),
            ("execve", Arch::X86, Some(11)),
            ("execve", Arch::X32, Some(0x4000_0208)),
            ("execve", Arch::Aarch64, Some(221)),
            ("socketcall", Arch::X86_64, None),
            ("mseal", Arch::Arm, Some(462)),
        ];
        for (name, arch, number) in cases {
            assert_eq!(find(name).expect(name).on(arch), number, "{name} {arch:?}");
        }
        assert!(find("no_such_call").is_none());
    }
}
