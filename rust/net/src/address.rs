//! Addresses with their prefix, and MAC addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{Error, Result};

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address that bytes begin with, and the rest.
    pub(crate) fn split(self, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
        match self {
            Self::V4 => {
                let (address, rest) = bytes.split_first_chunk::<4>()?;
                Some((IpAddr::from(*address), rest))
            }
            Self::V6 => {
                let (address, rest) = bytes.split_first_chunk::<16>()?;
                Some((IpAddr::from(*address), rest))
            }
        }
    }
}

/// The bytes of an address, as they are in packets.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address after that one; None after the last.
pub(crate) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address)
            .checked_add(1)
            .map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(address) => u128::from(address)
            .checked_add(1)
            .map(|next| Ipv6Addr::from(next).into()),
    }
}

/// An address and the length of its network's prefix: `10.88.0.5/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `InvalidArgument` where the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        if prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(invalid(&format!("{address}/{prefix}")));
        }
        Ok(Self { address, prefix })
    }

    /// The address itself.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits name the network.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// First and last address of the network.
    #[must_use]
    pub fn range(&self) -> (IpAddr, IpAddr) {
        let prefix = u32::from(self.prefix);
        match self.address {
            IpAddr::V4(address) => {
                let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
                let address = u32::from(address);
                (
                    Ipv4Addr::from(address & !host).into(),
                    Ipv4Addr::from(address | host).into(),
                )
            }
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
                let address = u128::from(address);
                (
                    Ipv6Addr::from(address & !host).into(),
                    Ipv6Addr::from(address | host).into(),
                )
            }
        }
    }

    /// Whether an address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last) = self.range();
        (first..=last).contains(&address) // IPv4 comes before all of IPv6
    }

    /// Which address of its network it is, from 0 on.
    #[must_use]
    pub fn place(&self) -> u128 {
        let prefix = u32::from(self.prefix);
        match self.address {
            IpAddr::V4(address) => {
                u128::from(u32::from(address) & u32::MAX.checked_shr(prefix).unwrap_or(0))
            }
            IpAddr::V6(address) => u128::from(address) & u128::MAX.checked_shr(prefix).unwrap_or(0),
        }
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, prefix) = text.split_once('/').ok_or_else(|| invalid(text))?;
        let address = address.parse().map_err(|_| invalid(text))?;
        let prefix = prefix.parse().map_err(|_| invalid(text))?;
        Self::new(address, prefix).map_err(|_| invalid(text))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A unicast MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// `InvalidArgument` for a group address and for all zeros: no interface may have these.
    pub fn new(bytes: [u8; 6]) -> Result<Self> {
        let mac = Self(bytes);
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(Error::Invalid {
                what: "MAC address",
                value: mac.to_string(),
                expected: "a unicast address, such as 02:42:0a:58:00:05",
            });
        }
        Ok(mac)
    }

    /// The locally administered address that goes with an IPv4 address: `02:42` and its four bytes.
    #[must_use]
    pub fn of_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The one that goes with an address: for IPv6, the last 8 bytes folded into 5, so that neighbours' are not alike.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_ipv4(address),
            IpAddr::V6(address) => {
                let own = u128::from(address) & u128::from(u64::MAX);
                let folded = (own & 0xff_ffff_ffff) ^ (own >> 40 << 8);
                let [.., first, second, third, fourth, fifth] = folded.to_be_bytes();
                Self([0x02, first, second, third, fourth, fifth])
            }
        }
    }

    /// The six bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid {
            what: "MAC address",
            value: text.to_owned(),
            expected: "six pairs of hex digits, such as 02:42:0a:58:00:05",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| {
                    part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
                })
                .ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Self::new(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

fn invalid(text: &str) -> Error {
    Error::Invalid {
        what: "address",
        value: text.to_owned(),
        expected: "an address and a prefix length, such as 10.88.0.5/16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_their_prefix() {
        let cidr: Cidr = "10.88.3.5/16".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.88.3.5/16");
        for (text, first, last, place) in [
            ("10.88.3.5/16", "10.88.0.0", "10.88.255.255", 0x305),
            ("1.2.3.4/0", "0.0.0.0", "255.255.255.255", 0x0102_0304),
            ("1.2.3.4/32", "1.2.3.4", "1.2.3.4", 0),
            ("fd00:1::5/64", "fd00:1::", "fd00:1::ffff:ffff:ffff:ffff", 5),
            ("fd00::5/128", "fd00::5", "fd00::5", 0),
            ("::5/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 5),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            let range = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!((cidr.range(), cidr.place()), (range, place), "{text}");
        }
        let after = |text: &str| next(text.parse().unwrap()).map(|next| next.to_string());
        assert_eq!(after("10.0.0.255").as_deref(), Some("10.0.1.0"));
        assert_eq!(after("fd00::ffff").as_deref(), Some("fd00::1:0"));
        assert_eq!(after("255.255.255.255"), None);
        assert_eq!(after("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), None);
        for bad in [
            "10.88.0.5",
            "10.88.0.5/33",
            "10.88.0/16",
            "/16",
            "10.88.0.5/",
            "fd00::1/129",
            "10.88.0.5/-1",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn mac_addresses_are_unicast() {
        let mac: Mac = "02:42:0a:58:00:05".parse().unwrap();
        assert_eq!(mac, Mac::of_ipv4(Ipv4Addr::new(10, 88, 0, 5)));
        assert_eq!(mac.to_string(), "02:42:0a:58:00:05");
        let of = |text: &str| Mac::of(text.parse().unwrap()).to_string();
        assert_eq!(of("10.88.0.5"), "02:42:0a:58:00:05");
        assert_eq!(of("fd00:9::1:2345:6789"), "02:01:23:45:67:89");
        assert_eq!(of("fd00::1122:3344:5566:7788"), "02:44:44:44:44:88");
        for bad in [
            "",
            "02:42",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "02:42:0a:58:00:05:06",
            "02:42:0a:58:00:+5",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?} was accepted");
        }
    }
}
