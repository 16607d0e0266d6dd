//! What others have answered (RFC 1035, section 4.1.3): of their messages the addresses are read that the name in question
//! leads to, and nothing else is looked at.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::message::{CLASS_IN, HEADER, TYPE_A, TYPE_AAAA, name_by_way_of, u16_at};

const TYPE_CNAME: u16 = 5;
/// How often a name of an answer may go on somewhere else, and how many names and addresses are followed: more than
/// anybody needs.
const POINTERS_MAX: usize = 16;
const ALIASES_MAX: usize = 16;
const ADDRESSES_MAX: usize = 64;

/// The addresses that a name leads to, by itself or by its aliases (RFC 1034, section 3.6.2), with how long each may be
/// kept; what else an answer has is nobody's. As far as it can be read.
pub(crate) fn addresses(message: &[u8], name: &str) -> Vec<(IpAddr, Duration)> {
    let records = answers(message);
    let mut names = BTreeSet::from([name.to_owned()]);
    // An alias may come after what it leads to.
    for _ in 0..ALIASES_MAX {
        let before = names.len();
        for record in &records {
            if let Data::Alias(target) = &record.data
                && names.contains(&record.name)
            {
                names.insert(target.clone());
            }
        }
        if names.len() == before || names.len() > ALIASES_MAX {
            break;
        }
    }
    let found = records.iter().filter(|record| names.contains(&record.name));
    let found = found.filter_map(|record| match record.data {
        Data::Address(address) => Some((address, record.keep)),
        Data::Alias(_) => None,
    });
    found.take(ADDRESSES_MAX).collect()
}

/// A record of somebody else's answer.
struct Answered {
    name: String,
    keep: Duration,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(String),
}

/// The addresses and aliases of a message's answer section, up to what cannot be read.
fn answers(message: &[u8]) -> Vec<Answered> {
    let mut found = Vec::new();
    let Some((_, mut at)) = name_by_way_of(message, HEADER, 0) else {
        return found;
    };
    at += 4;
    for _ in 0..u16_at(message, 6).unwrap_or_default() {
        let Some((record, end)) = answered(message, at) else {
            break;
        };
        found.extend(record);
        at = end;
    }
    found
}

/// The record at a place, None where it is of no interest, and where it ends.
fn answered(message: &[u8], at: usize) -> Option<(Option<Answered>, usize)> {
    let (name, at) = name_by_way_of(message, at, POINTERS_MAX)?;
    let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
    let keep = u32::from_be_bytes(*message.get(at + 4..)?.first_chunk()?);
    let begin = at + 10;
    let end = begin + usize::from(u16_at(message, at + 8)?);
    let bytes = message.get(begin..end)?;
    let data = match (class, kind) {
        (CLASS_IN, TYPE_A) => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(IpAddr::from)
            .map(Data::Address),
        (CLASS_IN, TYPE_AAAA) => <[u8; 16]>::try_from(bytes)
            .ok()
            .map(IpAddr::from)
            .map(Data::Address),
        (CLASS_IN, TYPE_CNAME) => {
            name_by_way_of(message, begin, POINTERS_MAX).map(|(target, _)| Data::Alias(target))
        }
        _ => None,
    };
    let keep = Duration::from_secs(u64::from(keep));
    Some((data.map(|data| Answered { name, keep, data }), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::ask;
    use crate::message::{QUESTION_NAME, labels};

    /// What a server says: an owner, a type, and the data.
    fn told(name: &str, records: &[(&str, u16, &[u8])]) -> Vec<u8> {
        let mut message = ask(7, name, TYPE_A, None);
        message[2] |= 0x80;
        message[7] = u8::try_from(records.len()).unwrap();
        for (owner, kind, data) in records {
            if *owner == name {
                message.extend(QUESTION_NAME.to_be_bytes());
            } else {
                message.extend(labels(owner));
            }
            message.extend(kind.to_be_bytes());
            message.extend(CLASS_IN.to_be_bytes());
            message.extend(90_u32.to_be_bytes());
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn the_addresses_of_a_name_are_its_own_and_its_aliases() {
        let alias = labels("edge.net");
        let further = labels("far.net");
        let message = told(
            "web.example",
            &[
                ("far.net", TYPE_A, &[5, 5, 5, 5]),
                ("Edge.NET", TYPE_CNAME, &further),
                ("web.example", TYPE_CNAME, &alias),
                ("edge.net", TYPE_AAAA, &[1; 16]),
                ("other.net", TYPE_A, &[6, 6, 6, 6]),
                ("web.example", TYPE_A, &[7, 7, 7]),
                ("web.example", 16, b"text"),
            ],
        );
        let found: Vec<String> = addresses(&message, "web.example")
            .iter()
            .map(|(address, keep)| format!("{address} {}", keep.as_secs()))
            .collect();
        assert_eq!(found, ["5.5.5.5 90", "101:101:101:101:101:101:101:101 90"]);
        assert!(addresses(&message, "example").is_empty());
    }

    #[test]
    fn an_answer_that_leads_in_circles_ends() {
        let (one, two) = (labels("one.net"), labels("two.net"));
        let message = told(
            "one.net",
            &[("one.net", TYPE_CNAME, &two), ("two.net", TYPE_CNAME, &one)],
        );
        assert!(addresses(&message, "one.net").is_empty());
        // A name that is a pointer to itself.
        let mut message = told("one.net", &[("one.net", TYPE_A, &[5, 5, 5, 5])]);
        let at = message.len() - 16;
        assert_eq!(message[at..at + 2], QUESTION_NAME.to_be_bytes());
        message[at + 1] = u8::try_from(at).unwrap();
        assert!(addresses(&message, "one.net").is_empty());
        let many = vec![("one.net", TYPE_A, &[5, 5, 5, 5][..]); 200];
        assert_eq!(
            addresses(&told("one.net", &many), "one.net").len(),
            ADDRESSES_MAX
        );
    }
}
