//! nftables over nfnetlink (`linux/netfilter/nf_tables.h`): one table an engine, changed by transactions.
//!
//! Rules are written once; what comes and goes are set elements, so the cost of publishing a port does
//! not depend on how many there are. [`ruleset`] says what the table holds, [`foreign`] what other tables have to do
//! with us. [`resolver`] is about another table, in a container's own namespace.

mod balanced;
mod elements;
mod expression;
mod foreign;
mod guard;
mod limited;
mod resolver;
mod rule;
mod ruleset;
mod sets;

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::names::EngineId;
use crate::netlink::{Batch, Body, CREATE, Socket, attributes, text};

pub(crate) use balanced::{add_balance, balances, put_balance};
pub(crate) use elements::{
    Forward, add_bridge, add_forwards, bridges, delete_bridge, delete_forwards, delete_subnets,
    forwards, subnets_of,
};
pub(crate) use foreign::{Handles, admit, dismiss, generation, obstacles};
pub(crate) use guard::{Guarded, delete_guard, guarded, write_guard};
pub(crate) use limited::{Elements, flush_reachable, limited};
pub(crate) use resolver::redirect_resolver;
pub(crate) use ruleset::write_ruleset;

use crate::watch::Change;

const SUBSYSTEM: u16 = 10;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_BRIDGE: u8 = 7;
const FAMILY_IPV6: u8 = 10;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;

const NFTA_TABLE_NAME: u16 = 1;
const RULE_CHAIN: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
const BATCH_GENERATION: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const ELEMENT_KEY: u16 = 1;

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;

/// Changes that happen all at once, or not at all.
#[derive(Debug)]
pub(crate) struct Transaction {
    family: u8,
    table: String,
    batch: Batch,
}

impl Transaction {
    /// In the engine's table.
    pub(crate) fn new(engine: &EngineId) -> Self {
        Self::begin(FAMILY_INET, engine.table(), None)
    }

    /// In another's table; ERESTART where anybody has changed anything since that generation.
    fn unless_changed(family: u8, table: &str, generation: u32) -> Self {
        Self::begin(family, table.to_owned(), Some(generation))
    }

    fn begin(family: u8, table: String, generation: Option<u32>) -> Self {
        let mut batch = Batch::new();
        batch.request("begin an nftables transaction", BATCH_BEGIN, 0, |body| {
            body.header(&[0, 0, SUBSYSTEM.to_be_bytes()[0], SUBSYSTEM.to_be_bytes()[1]]);
            if let Some(generation) = generation {
                body.u32_be(BATCH_GENERATION, generation);
            }
        });
        Self {
            family,
            table,
            batch,
        }
    }

    /// Changes of the engine's table of another family, in the same transaction.
    fn of_family(&mut self, family: u8, write: impl FnOnce(&mut Self)) {
        let own = std::mem::replace(&mut self.family, family);
        write(self);
        self.family = own;
    }

    /// Add a change whose first attribute is the table's name, as it is attribute 1 of them all.
    fn change(
        &mut self,
        doing: impl Into<Cow<'static, str>>,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Body<'_>),
    ) {
        let (family, table) = (self.family, &self.table);
        self.batch.request(doing, message(kind), flags, |inner| {
            inner.header(&[family, 0, 0, 0]);
            inner.text(NFTA_TABLE_NAME, table);
            body(inner);
        });
    }

    /// Or do nothing where it exists.
    fn create_table(&mut self) {
        let doing = format!("create the nftables table {}", self.table);
        self.change(doing, NEW_TABLE, CREATE, |_| {});
    }

    pub(crate) fn delete_table(&mut self) {
        let doing = format!("delete the nftables table {}", self.table);
        self.change(doing, DELETE_TABLE, 0, |_| {});
    }

    pub(crate) fn commit(mut self, socket: &mut Socket) -> Result<()> {
        let changes = self.batch.len() - 1;
        if changes == 0 {
            return Ok(());
        }
        self.batch
            .request("end an nftables transaction", BATCH_END, 0, |body| {
                body.header(&[0, 0, SUBSYSTEM.to_be_bytes()[0], SUBSYSTEM.to_be_bytes()[1]]);
            });
        socket.exchange(&mut self.batch, changes)
    }
}

/// Whether the engine's table exists.
pub(crate) fn table_exists(socket: &mut Socket, engine: &EngineId) -> Result<bool> {
    let mut batch = Batch::new();
    batch.request(
        "look up the nftables table",
        message(GET_TABLE),
        0,
        |body| {
            body.header(&[FAMILY_INET, 0, 0, 0]);
            body.text(NFTA_TABLE_NAME, &engine.table());
        },
    );
    match socket.get(batch) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Which of the rules that matter to us a change is about, that the kernel tells of; `table` is ours.
pub(crate) fn concern(kind: u16, body: &[u8], table: &str) -> Option<Change> {
    if kind >> 8 != SUBSYSTEM || kind & 0xff == NEW_GENERATION {
        return None;
    }
    let (change, wanted) = match *body.first()? {
        FAMILY_INET | FAMILY_BRIDGE => (Change::Ours, table),
        FAMILY_IPV4 | FAMILY_IPV6 => (Change::Dockers, foreign::TABLE),
        _ => return None,
    };
    let (_, name) =
        attributes(body.get(4..)?).find(|(attribute, _)| *attribute == NFTA_TABLE_NAME)?;
    (text(name).as_deref() == Some(wanted)).then_some(change)
}

/// Whether what was to be changed does not exist.
pub(crate) fn is_missing(error: &Error) -> bool {
    error.errno() == Some(ENOENT)
}

/// Whether what was to be added is there, and is something else.
pub(crate) fn is_occupied(error: &Error) -> bool {
    matches!(error.errno(), Some(EBUSY | EEXIST))
}

fn message(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// A value of a key, of a comparison, of a map.
fn put_value(body: &mut Body<'_>, attribute: u16, value: &[u8]) {
    body.nest(attribute, |body| body.bytes(NFTA_DATA_VALUE, value));
}
