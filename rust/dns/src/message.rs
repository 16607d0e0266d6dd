//! Messages on the wire (RFC 1035, section 4): questions are read, answers written. What others have answered is read
//! in [`crate::response`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The length of a header.
pub(crate) const HEADER: usize = 12;
/// What a datagram may hold where its asker does not say more (RFC 1035, section 4.2.1).
const DATAGRAM: usize = 512;
/// What we say that we take, and the most that we send in a datagram (the DNS flag day's figure).
const PAYLOAD: u16 = 1232;
const NAME_MAX: usize = 255;
const LABEL_MAX: u8 = 63;
const POINTER: u8 = 0b1100_0000;

const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0b1111 << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;

pub(crate) const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
pub(crate) const TYPE_A: u16 = 1;
pub(crate) const TYPE_PTR: u16 = 12;
pub(crate) const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
pub(crate) const TYPE_ANY: u16 = 255;

/// Where the question's name is in a message, as a compression pointer (RFC 1035, section 4.1.4).
pub(crate) const QUESTION_NAME: u16 = 0xc00c;

/// Seconds that an answer may be kept. Short: an address leads to somebody else soon after its container's end.
const TTL: u32 = 5;

/// How an answer is (RFC 1035, section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Fine = 0,
    Malformed = 1,
    Failed = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// A question that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The asker's number.
    pub(crate) id: u16,
    flags: u16,
    /// In lower case, without the final dot. Bytes that are no letters of a host's name are escaped.
    pub(crate) name: String,
    pub(crate) kind: u16,
    class: u16,
    /// Name, type and class as they were sent.
    section: Vec<u8>,
    /// What the asker takes in a datagram, if it speaks EDNS (RFC 6891).
    payload: Option<u16>,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// It asks something.
    Question(Question),
    /// It is answered with an error.
    Refused(Vec<u8>),
    /// It is no question at all.
    Ignored,
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Address(IpAddr),
    Name(String),
}

/// Read a packet.
pub(crate) fn parse(packet: &[u8]) -> Parsed {
    let (Some(id), Some(flags)) = (u16_at(packet, 0), u16_at(packet, 2)) else {
        return Parsed::Ignored;
    };
    if flags & RESPONSE != 0 {
        return Parsed::Ignored;
    }
    if flags & OPCODE != 0 {
        return Parsed::Refused(header(id, flags, Outcome::NotImplemented, [0; 4]));
    }
    match question(packet, id, flags) {
        Some(question) => Parsed::Question(question),
        None => Parsed::Refused(header(id, flags, Outcome::Malformed, [0; 4])),
    }
}

fn question(packet: &[u8], id: u16, flags: u16) -> Option<Question> {
    if u16_at(packet, 4)? != 1 {
        return None;
    }
    let (name, end) = name(packet, HEADER)?;
    let (kind, class) = (u16_at(packet, end)?, u16_at(packet, end + 2)?);
    Some(Question {
        id,
        flags,
        name,
        kind,
        class,
        section: packet.get(HEADER..end + 4)?.to_vec(),
        payload: payload(packet, end + 4),
    })
}

/// The name at a place, and where it ends. A question's is never compressed: nothing comes before it.
fn name(packet: &[u8], at: usize) -> Option<(String, usize)> {
    name_by_way_of(packet, at, 0)
}

/// The same of a name that may go on somewhere before it, so many times (section 4.1.4).
pub(crate) fn name_by_way_of(
    packet: &[u8],
    mut at: usize,
    mut pointers: usize,
) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut end = None;
    let mut total = 0;
    loop {
        let length = *packet.get(at)?;
        at += 1;
        if length == 0 {
            return Some((text, end.unwrap_or(at)));
        }
        if length & POINTER == POINTER && pointers > 0 {
            pointers -= 1;
            end = end.or(Some(at + 1));
            at = usize::from(length & !POINTER) << 8 | usize::from(*packet.get(at)?);
            continue;
        }
        total += usize::from(length) + 1;
        if length > LABEL_MAX || total >= NAME_MAX {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for byte in packet.get(at..at + usize::from(length))? {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                    text.push(char::from(byte.to_ascii_lowercase()));
                }
                _ => {
                    text.push('\\');
                    text.extend(byte.escape_ascii().map(char::from));
                }
            }
        }
        at += usize::from(length);
    }
}

/// The size in an OPT record among the additional ones, where a question has no other records before it.
fn payload(packet: &[u8], at: usize) -> Option<u16> {
    let others = [u16_at(packet, 6)?, u16_at(packet, 8)?];
    if others != [0, 0] || u16_at(packet, 10)? == 0 {
        return None;
    }
    let root = *packet.get(at)? == 0;
    (root && u16_at(packet, at + 1)? == TYPE_OPT).then_some(u16_at(packet, at + 3)?)
}

impl Question {
    /// Whether it is of the Internet's class.
    pub(crate) fn is_internet(&self) -> bool {
        self.class == CLASS_IN || self.class == CLASS_ANY
    }

    /// The address whose name is asked for (RFC 1035, section 3.5; RFC 3596, section 2.5).
    pub(crate) fn reverse(&self) -> Option<IpAddr> {
        if let Some(digits) = self.name.strip_suffix(".in-addr.arpa") {
            let parts: Vec<u8> = digits
                .rsplit('.')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .ok()?;
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(parts).ok()?).into());
        }
        let digits = self.name.strip_suffix(".ip6.arpa")?;
        let mut value: u128 = 0;
        let mut count = 0;
        for digit in digits.rsplit('.') {
            if digit.len() != 1 {
                return None;
            }
            value = value << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
            count += 1;
        }
        (count == 32).then(|| Ipv6Addr::from(value).into())
    }

    /// How many bytes an answer in a datagram may have.
    pub(crate) fn limit(&self) -> usize {
        usize::from(self.payload.unwrap_or(0).min(PAYLOAD)).max(DATAGRAM)
    }

    /// An answer without records.
    pub(crate) fn outcome(&self, outcome: Outcome) -> Vec<u8> {
        self.write(outcome, &[], usize::MAX)
    }

    /// An answer of at most so many bytes; what it has no room for is left out, and the answer says so.
    pub(crate) fn answer(&self, records: &[Record], limit: usize) -> Vec<u8> {
        self.write(Outcome::Fine, records, limit)
    }

    /// That there is more than a datagram holds.
    pub(crate) fn truncated(&self) -> Vec<u8> {
        let mut message = self.write(Outcome::Fine, &[], usize::MAX);
        set_truncated(&mut message);
        message
    }

    fn write(&self, outcome: Outcome, records: &[Record], limit: usize) -> Vec<u8> {
        let extra = u16::from(self.payload.is_some());
        let room = limit.saturating_sub(usize::from(extra) * 11);
        let mut message = header(self.id, self.flags, outcome, [1, 0, 0, extra]);
        message.extend(&self.section);
        let mut count: u16 = 0;
        for record in records {
            let before = message.len();
            put(&mut message, record);
            if message.len() > room || count == u16::MAX {
                message.truncate(before);
                set_truncated(&mut message);
                break;
            }
            count += 1;
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());
        if extra == 1 {
            message.push(0);
            message.extend(TYPE_OPT.to_be_bytes());
            message.extend(PAYLOAD.to_be_bytes());
            message.extend([0; 6]);
        }
        message
    }

    /// Whether a message answers this very question, under a number of ours.
    pub(crate) fn is_answered_by(&self, message: &[u8], id: u16) -> bool {
        let same = |end: usize| {
            message
                .get(HEADER..end)
                .is_some_and(|section| section.eq_ignore_ascii_case(&self.section))
        };
        u16_at(message, 0) == Some(id)
            && u16_at(message, 2).is_some_and(|flags| flags & RESPONSE != 0)
            && u16_at(message, 4) == Some(1)
            && same(HEADER + self.section.len())
    }
}

/// Give a message another number.
pub(crate) fn renumber(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// Whether a server says that it cannot, or will not, answer.
pub(crate) fn has_failed(message: &[u8]) -> bool {
    let code = u16_at(message, 2).unwrap_or_default() & 0b1111;
    code == Outcome::Failed as u16 || code == Outcome::Refused as u16
}

/// Whether a message says that it is not whole.
pub(crate) fn is_truncated(message: &[u8]) -> bool {
    u16_at(message, 2).is_some_and(|flags| flags & TRUNCATED != 0)
}

fn set_truncated(message: &mut [u8]) {
    let flags = u16_at(message, 2).unwrap_or_default() | TRUNCATED;
    message[2..4].copy_from_slice(&flags.to_be_bytes());
}

fn header(id: u16, flags: u16, outcome: Outcome, counts: [u16; 4]) -> Vec<u8> {
    let flags =
        RESPONSE | flags & (OPCODE | RECURSION_DESIRED) | RECURSION_AVAILABLE | outcome as u16;
    [id, flags]
        .into_iter()
        .chain(counts)
        .flat_map(u16::to_be_bytes)
        .collect()
}

fn put(message: &mut Vec<u8>, record: &Record) {
    let (kind, data) = match record {
        Record::Address(IpAddr::V4(address)) => (TYPE_A, address.octets().to_vec()),
        Record::Address(IpAddr::V6(address)) => (TYPE_AAAA, address.octets().to_vec()),
        Record::Name(name) => (TYPE_PTR, labels(name)),
    };
    message.extend(QUESTION_NAME.to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message.extend(TTL.to_be_bytes());
    message.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(data);
}

/// A name as labels; what does not fit into one is cut off.
pub(crate) fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(usize::from(LABEL_MAX))];
        if bytes.len() + label.len() + 2 > NAME_MAX {
            break;
        }
        bytes.push(u8::try_from(label.len()).unwrap_or(LABEL_MAX));
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let found = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([found[0], found[1]]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A question as a resolver sends it.
    pub(crate) fn ask(id: u16, name: &str, kind: u16, payload: Option<u16>) -> Vec<u8> {
        let mut packet = Vec::new();
        for part in [id, 0x0100, 1, 0, 0, u16::from(payload.is_some())] {
            packet.extend(part.to_be_bytes());
        }
        packet.extend(labels(name));
        packet.extend(kind.to_be_bytes());
        packet.extend(CLASS_IN.to_be_bytes());
        if let Some(payload) = payload {
            packet.push(0);
            packet.extend(TYPE_OPT.to_be_bytes());
            packet.extend(payload.to_be_bytes());
            packet.extend([0; 6]);
        }
        packet
    }

    pub(crate) fn parsed(packet: &[u8]) -> Question {
        match parse(packet) {
            Parsed::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    fn code(message: &[u8]) -> u16 {
        u16_at(message, 2).unwrap() & 15
    }

    #[test]
    fn a_question_is_read() {
        let question = parsed(&ask(7, "Web.Example", TYPE_A, Some(4096)));
        assert_eq!(
            (question.name.as_str(), question.kind),
            ("web.example", TYPE_A)
        );
        assert_eq!(question.limit(), usize::from(PAYLOAD));
        assert_eq!(parsed(&ask(7, "a", TYPE_A, Some(100))).limit(), DATAGRAM);
        assert_eq!(parsed(&ask(7, "a", TYPE_A, None)).limit(), DATAGRAM);
        assert!(question.is_internet());
    }

    #[test]
    fn an_answer_is_what_resolvers_read() {
        let question = parsed(&ask(0x0102, "db", TYPE_A, None));
        let message = question.answer(&[Record::Address(Ipv4Addr::new(10, 0, 0, 9).into())], 512);
        #[rustfmt::skip]
        let expected = [
            1, 2, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0,
            2, b'd', b'b', 0, 0, 1, 0, 1,
            0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 9,
        ];
        assert_eq!(message, expected);
        assert!(question.is_answered_by(&message, 0x0102));
        assert!(!question.is_answered_by(&message, 0x0103));
        assert!(!parsed(&ask(0x0102, "dc", TYPE_A, None)).is_answered_by(&message, 0x0102));
    }

    #[test]
    fn what_has_no_room_is_left_out_and_told() {
        let question = parsed(&ask(1, "many", TYPE_A, Some(1232)));
        let many = vec![Record::Address(Ipv4Addr::LOCALHOST.into()); 200];
        let message = question.answer(&many, question.limit());
        assert!(message.len() <= 1232 && is_truncated(&message));
        assert_eq!(message[message.len() - 11..message.len() - 8], [0, 0, 41]);
        assert!(!is_truncated(
            &question.answer(&many, usize::from(u16::MAX))
        ));
    }

    #[test]
    fn addresses_are_read_backwards() {
        let reverse = |name: &str| parsed(&ask(1, name, TYPE_PTR, None)).reverse();
        assert_eq!(
            reverse("9.0.0.10.in-addr.arpa"),
            Some(Ipv4Addr::new(10, 0, 0, 9).into())
        );
        assert_eq!(reverse("0.0.10.in-addr.arpa"), None);
        assert_eq!(reverse("300.0.0.10.in-addr.arpa"), None);
        let zeros = "0.".repeat(31);
        assert_eq!(
            reverse(&format!("1.{zeros}ip6.arpa")),
            Some(Ipv6Addr::LOCALHOST.into())
        );
        assert_eq!(reverse("1.ip6.arpa"), None);
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        let good = ask(5, "a", TYPE_A, None);
        let refusal = |packet: &[u8]| match parse(packet) {
            Parsed::Refused(message) => code(&message),
            other => panic!("{other:?}"),
        };
        let with = |at: usize, byte: u8| {
            let mut packet = good.clone();
            packet[at] = byte;
            packet
        };
        assert_eq!(parse(&[]), Parsed::Ignored);
        assert_eq!(parse(&with(2, 0x81)), Parsed::Ignored);
        assert_eq!(refusal(&with(2, 0x29)), Outcome::NotImplemented as u16);
        assert_eq!(refusal(&with(5, 2)), Outcome::Malformed as u16);
        assert_eq!(refusal(&with(12, 0xc0)), Outcome::Malformed as u16); // a pointer, to itself
        assert_eq!(refusal(&good[..good.len() - 1]), Outcome::Malformed as u16);
        let endless = ask(5, &"abcdefgh.".repeat(40), TYPE_A, None);
        assert!(parsed(&endless).name.len() <= NAME_MAX);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        for round in 0..100_000_usize {
            let mut packet = ask(9, "some.name", TYPE_ANY, Some(512));
            for _ in 0..=round % 6 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = usize::try_from(state >> 32).unwrap() % packet.len();
                packet[at] = state.to_le_bytes()[0];
            }
            packet.truncate(packet.len() - round % packet.len());
            crate::response::addresses(&packet, "some.name");
            if let Parsed::Question(question) = parse(&packet) {
                question.reverse();
                question.answer(&[Record::Name("a.b".to_owned())], question.limit());
            }
        }
    }
}
