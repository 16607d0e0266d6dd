//! Reading rules that other programs have written: as much of them as is asked about.

use super::expression::{ACCEPT, EQUAL, META_IIFNAME, META_OIFNAME};
use super::{GET_RULE, NFTA_DATA_VALUE, NFTA_TABLE_NAME, RULE_CHAIN, is_missing, message};
use crate::error::Result;
use crate::names::LinkName;
use crate::netlink::{Batch, Socket, attributes, text, u32_be, u64_be};

pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const META_KEY: u16 = 2;
const COMPARE_OPERATOR: u16 = 2;
const COMPARE_DATA: u16 = 3;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFT_RETURN`.
const RETURN: u32 = (-5_i32).cast_unsigned();

/// Which of a packet's links a rule asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

/// A rule of somebody's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: String,
    pub(super) handle: u64,
    terms: Vec<Term>,
}

/// One expression of a rule. Counters, which decide nothing, are left out.
#[derive(Debug, PartialEq, Eq)]
enum Term {
    Link(Side),
    Equals(Vec<u8>),
    Verdict { code: u32, chain: Option<String> },
    Other,
}

impl Rule {
    /// `iifname <link> accept` or `oifname <link> accept`, and nothing else.
    pub(super) fn accepts(&self, wanted: Side, link: &LinkName) -> bool {
        let [
            Term::Link(side),
            Term::Equals(name),
            Term::Verdict { code: ACCEPT, .. },
        ] = &self.terms[..]
        else {
            return false;
        };
        *side == wanted && is_name(name, link)
    }

    /// `return`, for every packet.
    pub(super) fn returns(&self) -> bool {
        matches!(self.terms[..], [Term::Verdict { code: RETURN, .. }])
    }

    /// Whether it goes on in that chain, for some packets.
    pub(super) fn leads_to(&self, wanted: &str) -> bool {
        self.terms
            .iter()
            .any(|term| matches!(term, Term::Verdict { chain: Some(chain), .. } if chain == wanted))
    }

    /// Whether it is about that link, by its name or by how its name begins.
    pub(super) fn is_about(&self, link: &LinkName) -> bool {
        self.terms.windows(2).any(|pair| match pair {
            [Term::Link(_), Term::Equals(name)] => is_name(name, link) || begins(name, link),
            _ => false,
        })
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut rule = Self {
            chain: String::new(),
            handle: 0,
            terms: Vec::new(),
        };
        for (kind, value) in attributes(body.get(4..)?) {
            match kind {
                RULE_CHAIN => rule.chain = text(value)?,
                RULE_HANDLE => rule.handle = u64_be(value)?,
                RULE_EXPRESSIONS => {
                    rule.terms = attributes(value)
                        .filter_map(|(_, expression)| Term::parse(expression))
                        .collect();
                }
                _ => {}
            }
        }
        Some(rule)
    }
}

impl Term {
    /// None for a counter.
    fn parse(expression: &[u8]) -> Option<Self> {
        let name = find(expression, EXPRESSION_NAME).and_then(text);
        let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
        match name.as_deref() {
            Some("counter") => None,
            Some("meta") => Some(match find(data, META_KEY).and_then(u32_be) {
                Some(META_IIFNAME) => Self::Link(Side::Input),
                Some(META_OIFNAME) => Self::Link(Side::Output),
                _ => Self::Other,
            }),
            Some("cmp") if find(data, COMPARE_OPERATOR).and_then(u32_be) == Some(EQUAL) => {
                let value = find(data, COMPARE_DATA).and_then(|data| find(data, NFTA_DATA_VALUE));
                Some(Self::Equals(value.unwrap_or_default().to_vec()))
            }
            Some("immediate") => {
                let verdict = find(data, IMMEDIATE_DATA).and_then(|data| find(data, DATA_VERDICT));
                let code = verdict
                    .and_then(|verdict| find(verdict, VERDICT_CODE))
                    .and_then(u32_be);
                let chain = verdict
                    .and_then(|verdict| find(verdict, VERDICT_CHAIN))
                    .and_then(text);
                Some(code.map_or(Self::Other, |code| Self::Verdict { code, chain }))
            }
            _ => Some(Self::Other),
        }
    }
}

/// The rules of a table, or of one chain of it; none where there is no such thing.
pub(super) fn rules(
    socket: &mut Socket,
    family: u8,
    table: &str,
    chain: Option<&str>,
) -> Result<Vec<Rule>> {
    let messages = socket.dump(|batch, flags| {
        batch.request(
            format!("list the rules of the nftables table {table}"),
            message(GET_RULE),
            flags,
            |body| {
                body.header(&[family, 0, 0, 0]);
                body.text(NFTA_TABLE_NAME, table);
                if let Some(chain) = chain {
                    body.text(RULE_CHAIN, chain);
                }
            },
        );
    })?;
    Ok(messages
        .iter()
        .filter_map(|(_, body)| Rule::parse(body))
        .collect())
}

/// The rule of that handle in a chain; None where it has gone, or the chain.
pub(super) fn rule(
    socket: &mut Socket,
    family: u8,
    table: &str,
    chain: &str,
    handle: u64,
) -> Result<Option<Rule>> {
    let mut batch = Batch::new();
    batch.request(
        format!("look up rule {handle} of the nftables chain {chain}"),
        message(GET_RULE),
        0,
        |body| {
            body.header(&[family, 0, 0, 0]);
            body.text(NFTA_TABLE_NAME, table);
            body.text(RULE_CHAIN, chain);
            body.bytes(RULE_HANDLE, &handle.to_be_bytes());
        },
    );
    match socket.get(batch) {
        Ok(body) => Ok(Rule::parse(&body)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

/// The whole name, with its NUL: nft pads it to 16 bytes, iptables does not.
fn is_name(value: &[u8], link: &LinkName) -> bool {
    value.ends_with(&[0]) && text(value).as_deref() == Some(link.as_str())
}

/// The beginning of a name, which has no NUL.
fn begins(value: &[u8], link: &LinkName) -> bool {
    !value.is_empty() && link.as_str().as_bytes().starts_with(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> LinkName {
        LinkName::parse(name).unwrap()
    }

    fn rule(name: &[u8], code: u32) -> Rule {
        let chain = None;
        Rule {
            chain: String::new(),
            handle: 1,
            terms: vec![
                Term::Link(Side::Input),
                Term::Equals(name.to_vec()),
                Term::Verdict { code, chain },
            ],
        }
    }

    #[test]
    fn a_name_is_the_whole_name() {
        let wanted = link("knarr-00");
        for (name, accepts, about) in [
            (&b"knarr-00\0"[..], true, true),
            (b"knarr-00\0\0\0\0\0\0\0\0", true, true),
            (b"knarr-00", false, true),
            (b"knarr-", false, true),
            (b"knarr-000\0", false, false),
            (b"knarr-0\0", false, false),
            (b"", false, false),
        ] {
            let rule = rule(name, ACCEPT);
            assert_eq!(rule.accepts(Side::Input, &wanted), accepts, "{name:?}");
            assert!(!rule.accepts(Side::Output, &wanted), "{name:?}");
            assert_eq!(rule.is_about(&wanted), about, "{name:?}");
        }
        assert!(!rule(b"knarr-00\0", RETURN).accepts(Side::Input, &wanted));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 1u64;
        for round in 0..20_000_u64 {
            let mut bytes = vec![0; 4];
            for _ in 0..round % 67 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                bytes.push(state.to_be_bytes()[0] % 24);
            }
            if let Some(rule) = Rule::parse(&bytes) {
                assert!(rule.terms.len() <= bytes.len());
            }
        }
        assert_eq!(Rule::parse(&[]), None);
    }
}
