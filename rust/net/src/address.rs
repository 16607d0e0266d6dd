//! Addresses with their prefix, and MAC addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::error::{Error, Result};

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

    /// First and last address of an IPv4 network; None for IPv6.
    #[must_use]
    pub fn range_v4(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let IpAddr::V4(address) = self.address else {
            return None;
        };
        let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        Some((
            Ipv4Addr::from(u32::from(address) & !host),
            Ipv4Addr::from(u32::from(address) | host),
        ))
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
        assert_eq!(
            cidr.range_v4(),
            Some((Ipv4Addr::new(10, 88, 0, 0), Ipv4Addr::new(10, 88, 255, 255)))
        );
        assert_eq!(cidr.to_string(), "10.88.3.5/16");
        let all: Cidr = "1.2.3.4/0".parse().unwrap();
        assert_eq!(
            all.range_v4(),
            Some((Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST))
        );
        let one: Cidr = "1.2.3.4/32".parse().unwrap();
        assert_eq!(
            one.range_v4(),
            Some((Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(1, 2, 3, 4)))
        );
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
