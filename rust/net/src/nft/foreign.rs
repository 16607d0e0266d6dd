//! Other programs' tables. A packet is forwarded only if no base chain on its way drops it, and an
//! `accept` of ours ends none but our own chain.
//!
//! Docker gives its `ip filter FORWARD` the policy `drop`, and jumps from there to `DOCKER-USER` first,
//! a chain that it makes, leaves to the administrator and does not touch again; `ip6 filter` is the same for IPv6. There
//! we put two rules a bridge:
//!
//! ```text
//! iifname <bridge> counter accept
//! oifname <bridge> counter accept
//! ```
//!
//! They are found by what they say, and come last, so that whatever the administrator has put there is asked before
//! (older versions of Docker end the chain with a `return`: before that one). In any other table we write nothing,
//! and only say what it should let through.
//!
//! Whoever looks first and writes then gives the ruleset's generation along with the change: the kernel refuses it if
//! anybody has changed anything between, and we look again. So no rule is there twice.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::Rule as Writer;
use super::rule::{RULE_EXPRESSIONS, RULE_HANDLE, Rule, Side, rule, rules};
use super::ruleset::HOOK_FORWARD;
use super::{
    DELETE_RULE, FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, GET_CHAIN, GET_GENERATION, NEW_RULE,
    NFTA_TABLE_NAME, RULE_CHAIN, Transaction, is_missing, message,
};
use crate::address::Family;
use crate::bridge::Bridge;
use crate::error::{Error, Result};
use crate::names::LinkName;
use crate::netlink::{APPEND, Batch, CREATE, Socket, attributes, text, u32_be};

pub(super) const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";

const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const POLICY_DROP: u32 = 0;
const RULE_POSITION: u16 = 6;
const GENERATION_ID: u16 = 1;
const FAMILY_ANY: u8 = 0;

/// How often somebody else may change something while we look.
const ATTEMPTS: usize = 64;
const ERESTART: i32 = 85;

/// The number of the ruleset as it is: every transaction of anybody's in this network namespace makes it another.
pub(crate) fn generation(socket: &mut Socket) -> Result<u32> {
    let doing = "ask for the generation of the nftables rules";
    let mut batch = Batch::new();
    batch.request(doing, message(GET_GENERATION), 0, |body| {
        body.header(&[FAMILY_ANY, 0, 0, 0]);
    });
    let answer = socket.get(batch)?;
    attributes(answer.get(4..).unwrap_or_default())
        .find(|(kind, _)| *kind == GENERATION_ID)
        .and_then(|(_, value)| u32_be(value))
        .ok_or_else(|| Error::malformed(doing))
}

/// Where a bridge's two rules were found, so that the next look asks for these, however many others there are.
pub(crate) type Handles = BTreeMap<(Family, LinkName), [u64; 2]>;

const SIDES: [Side; 2] = [Side::Input, Side::Output];

/// Have Docker's chain of a family, if there is one, accept what comes from these bridges and goes to them.
pub(crate) fn admit(
    socket: &mut Socket,
    family: Family,
    bridges: &[&LinkName],
    handles: &mut Handles,
) -> Result<()> {
    if all_are_there(socket, family, bridges, handles)? {
        return Ok(());
    }
    handles.retain(|(of, _), _| *of != family);
    change(socket, family, |transaction, rules| {
        let end = rules.last().filter(|rule| rule.returns());
        for bridge in bridges {
            let found = SIDES.map(|side| {
                let rule = rules.iter().find(|rule| rule.accepts(side, bridge));
                rule.map(|rule| rule.handle)
            });
            if let [Some(input), Some(output)] = found {
                handles.insert((family, (*bridge).clone()), [input, output]);
            }
            for (side, _) in SIDES.iter().zip(found).filter(|(_, rule)| rule.is_none()) {
                add(transaction, *side, bridge, end);
            }
        }
    })
}

/// Handles are not given twice, but those of a table that was made anew are: what is there counts.
fn all_are_there(
    socket: &mut Socket,
    family: Family,
    bridges: &[&LinkName],
    handles: &Handles,
) -> Result<bool> {
    for bridge in bridges {
        let Some(handles) = handles.get(&(family, (*bridge).clone())) else {
            return Ok(false);
        };
        for (side, handle) in SIDES.iter().zip(handles) {
            let rule = rule(socket, of(family), TABLE, CHAIN, *handle)?;
            if !rule.is_some_and(|rule| rule.accepts(*side, bridge)) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn of(family: Family) -> u8 {
    match family {
        Family::V4 => FAMILY_IPV4,
        Family::V6 => FAMILY_IPV6,
    }
}

/// Take a bridge's rules out of Docker's chains.
pub(crate) fn dismiss(socket: &mut Socket, bridge: &LinkName) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        change(socket, family, |transaction, rules| {
            for rule in rules.iter().filter(|rule| {
                rule.accepts(Side::Input, bridge) || rule.accepts(Side::Output, bridge)
            }) {
                let doing = format!("remove the rule for {bridge} from the nftables chain {CHAIN}");
                transaction.change(doing, DELETE_RULE, 0, |body| {
                    body.text(RULE_CHAIN, CHAIN);
                    body.bytes(RULE_HANDLE, &rule.handle.to_be_bytes());
                });
            }
        })?;
    }
    Ok(())
}

/// What the administrator should know: chains that drop whatever they have no rule for, in tables without a rule
/// about this bridge.
pub(crate) fn obstacles(socket: &mut Socket, bridge: &Bridge) -> Result<Vec<String>> {
    let mut families = vec![FAMILY_INET];
    families.extend(
        bridge
            .gateways
            .iter()
            .map(|own| of(Family::of(own.address()))),
    );
    let bridge = &bridge.name;
    let mut found = Vec::new();
    for Base {
        family,
        table,
        chain,
    } in dropping_chains(socket, &families)?
    {
        let rules = rules(socket, family, &table, None)?;
        let docker = |name: &str| family != FAMILY_INET && table == TABLE && name == CHAIN;
        let open = rules.iter().any(|rule| {
            if rule.chain == chain && rule.leads_to(CHAIN) && docker(CHAIN) {
                return true;
            }
            // In Docker's chain there are ours, which nobody asks who does not come by.
            !docker(&rule.chain) && rule.is_about(bridge)
        });
        if !open {
            let words = match family {
                FAMILY_IPV4 => "ip",
                FAMILY_IPV6 => "ip6",
                _ => "inet",
            };
            found.push(format!(
                "the nftables table `{words} {table}` drops what its chain `{chain}` has no rule for, and nothing there \
                 is about the bridge {bridge}: its containers may not reach other hosts, nor be reached from there on \
                 published ports; let it accept what comes from and goes to {bridge}, for example with \
                 `nft insert rule {words} {table} {chain} iifname {bridge} accept` and \
                 `nft insert rule {words} {table} {chain} oifname {bridge} accept`"
            ));
        }
    }
    Ok(found)
}

/// A chain that packets pass on their way through the host, and which drops them in the end.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Base {
    family: u8,
    table: String,
    chain: String,
}

fn dropping_chains(socket: &mut Socket, families: &[u8]) -> Result<BTreeSet<Base>> {
    let messages = socket.dump(|batch, flags| {
        batch.request(
            "list the nftables chains",
            message(GET_CHAIN),
            flags,
            |body| body.header(&[FAMILY_ANY, 0, 0, 0]),
        );
    })?;
    Ok(messages
        .iter()
        .filter_map(|(_, body)| dropping(body, families))
        .collect())
}

/// None for all chains but those that drop what is forwarded, in tables of these families.
fn dropping(body: &[u8], families: &[u8]) -> Option<Base> {
    let (&family, rest) = body.split_first()?;
    if !families.contains(&family) {
        return None;
    }
    let (mut table, mut chain, mut hook, mut policy) = (None, None, None, None);
    for (kind, value) in attributes(rest.get(3..)?) {
        match kind {
            NFTA_TABLE_NAME => table = text(value),
            CHAIN_NAME => chain = text(value),
            CHAIN_HOOK => {
                hook = attributes(value)
                    .find(|(kind, _)| *kind == HOOK_NUMBER)
                    .and_then(|(_, value)| u32_be(value));
            }
            CHAIN_POLICY => policy = u32_be(value),
            _ => {}
        }
    }
    if hook != Some(HOOK_FORWARD) || policy != Some(POLICY_DROP) {
        return None;
    }
    Some(Base {
        family,
        table: table?,
        chain: chain?,
    })
}

/// Change Docker's chain according to what is in it; nothing where there is no such chain.
fn change(
    socket: &mut Socket,
    family: Family,
    mut decide: impl FnMut(&mut Transaction, &[Rule]),
) -> Result<()> {
    let family = of(family);
    let mut refusal = Ok(());
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::unless_changed(family, TABLE, generation(socket)?);
        // An empty list says nothing: the question is answered so for a chain that does not exist, too.
        let rules = rules(socket, family, TABLE, Some(CHAIN))?;
        if rules.is_empty() && !chain_exists(socket, family)? {
            return Ok(());
        }
        decide(&mut transaction, &rules);
        refusal = transaction.commit(socket);
        match &refusal {
            Err(error) if error.errno() == Some(ERESTART) => {}
            _ => break,
        }
    }
    refusal
}

fn chain_exists(socket: &mut Socket, family: u8) -> Result<bool> {
    let mut batch = Batch::new();
    batch.request(
        "look up the nftables chain DOCKER-USER",
        message(GET_CHAIN),
        0,
        |body| {
            body.header(&[family, 0, 0, 0]);
            body.text(NFTA_TABLE_NAME, TABLE);
            body.text(CHAIN_NAME, CHAIN);
        },
    );
    match socket.get(batch) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// As iptables writes it, so that it can read it.
fn add(transaction: &mut Transaction, side: Side, bridge: &LinkName, before: Option<&Rule>) {
    let doing = format!("let the nftables chain {CHAIN} accept {bridge}");
    let flags = if before.is_some() {
        CREATE
    } else {
        CREATE | APPEND
    };
    transaction.change(doing, NEW_RULE, flags, |body| {
        body.text(RULE_CHAIN, CHAIN);
        body.nest(RULE_EXPRESSIONS, |list| {
            let mut rule = Writer { list };
            match side {
                Side::Input => rule.input_is(bridge),
                Side::Output => rule.output_is(bridge),
            }
            .counter()
            .accept();
        });
        if let Some(before) = before {
            body.bytes(RULE_POSITION, &before.handle.to_be_bytes());
        }
    });
}
