//! The names of everything that is global on the host: parsed once, derived in one place.

use std::fmt;

use crate::error::{Error, Result};

/// The kernel's limit for a link's name, without the final NUL.
const LINK_NAME_MAX: usize = 15;

/// An engine's ID: 8 lower-case hex digits. All that is global on the host is named by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EngineId(String);

impl EngineId {
    /// Parse an ID; `InvalidArgument` for anything but 8 lower-case hex digits.
    pub fn parse(text: &str) -> Result<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 8 && text.bytes().all(hex) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::Invalid {
            what: "engine ID",
            value: text.to_owned(),
            expected: "8 lower-case hex digits",
        })
    }

    /// The engine's nftables table (family inet): `knarr-<engine>`.
    #[must_use]
    pub fn table(&self) -> String {
        format!("knarr-{}", self.0)
    }

    /// What a link bears as its alias that the engine has made under a name of somebody else's choice: `knarr-<engine>`.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("knarr-{}", self.0)
    }

    /// The engine's default bridge: `knarr-<engine>`.
    #[must_use]
    pub fn bridge(&self) -> LinkName {
        LinkName(format!("knarr-{}", self.0))
    }

    /// The host's side of the veth pair of that number: `kv<engine, 5 digits><number, base 32>`.
    ///
    /// A number has 40 bits, so that a name is never used twice by one process.
    #[must_use]
    pub fn veth(&self, number: u64) -> LinkName {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let mut name = self.veth_prefix();
        for place in (0..8).rev() {
            let digit = (number >> (place * 5)) & 31;
            name.push(char::from(
                DIGITS[usize::try_from(digit).unwrap_or_default()],
            ));
        }
        LinkName(name)
    }

    /// What the names of all of the engine's veths begin with.
    #[must_use]
    pub fn veth_prefix(&self) -> String {
        format!("kv{}", &self.0[..5])
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a network interface: 1 to 15 bytes, as the kernel takes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName(String);

impl LinkName {
    /// Parse a name; `InvalidArgument` where the kernel would not take it.
    pub fn parse(text: &str) -> Result<Self> {
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if text.is_empty()
            || text.len() > LINK_NAME_MAX
            || text == "."
            || text == ".."
            || text.contains(odd)
        {
            return Err(Error::Invalid {
                what: "network interface name",
                value: text.to_owned(),
                expected: "1 to 15 bytes without '/', ':' and white space",
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_ids_are_eight_hex_digits() {
        assert!(EngineId::parse("0123abcd").is_ok());
        for bad in [
            "",
            "0123abc",
            "0123abcde",
            "0123ABCD",
            "../..abc",
            "0123abcg",
        ] {
            assert!(EngineId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn derived_names_fit_the_kernel() {
        let engine = EngineId::parse("0123abcd").unwrap();
        assert_eq!(engine.bridge().as_str(), "knarr-0123abcd");
        assert_eq!(engine.veth(0).as_str(), "kv0123a00000000");
        assert_eq!(engine.veth((1 << 40) - 1).as_str(), "kv0123avvvvvvvv");
        assert_eq!(engine.veth(33).as_str(), "kv0123a00000011");
        assert!(LinkName::parse(engine.veth(1 << 39).as_str()).is_ok());
    }

    #[test]
    fn link_names_are_the_kernels() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "a\0b",
            "sixteen-bytes-xx",
        ] {
            assert!(LinkName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(LinkName::parse("fifteen-bytes-x").is_ok());
    }
}
