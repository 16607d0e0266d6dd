//! Host ports for what is to be published: one that is asked for, the first free one of a range, or the kernel's choice;
//! the same one for all addresses of a group.

use crate::error::{Error, Result};
use crate::nft::Forward;
use crate::ports::{Publish, Published, reserve};

/// How often the kernel is asked for another port where the one that it chose is taken on a group's other addresses.
const CHOICES: usize = 32;

/// Reserve all ports, group by group. `ours` knows what has a host port in this engine.
pub(crate) fn reserve_all<'a>(
    ports: &[Publish],
    ours: impl Fn(&Publish) -> Option<&'a Forward>,
) -> Result<Vec<Published>> {
    let mut found = Vec::with_capacity(ports.len());
    for group in ports.chunk_by(|_, next| next.same_port) {
        found.extend(reserve_group(group, &ours)?);
    }
    Ok(found)
}

fn reserve_group<'a>(
    group: &[Publish],
    ours: &impl Fn(&Publish) -> Option<&'a Forward>,
) -> Result<Vec<Published>> {
    let Some(asked) = group.first() else {
        return Ok(Vec::new());
    };
    let first = asked.host_port;
    let Some(last) = asked.host_port_last else {
        return match (first, group) {
            (0, [_, _, ..]) => choose(group, ours),
            _ => reserve_at(group, first, ours),
        };
    };
    if first == 0 || last < first {
        return Err(Error::Invalid {
            what: "range of host ports",
            value: format!("{first}-{last}"),
            expected: "a first port from 1 on, and a last one that is not below it",
        });
    }
    for host_port in first..=last {
        // Who has a port is looked for among all processes: not for each of our own.
        if group
            .iter()
            .any(|port| ours(&at(port, host_port)).is_some())
        {
            continue;
        }
        match reserve_at(group, host_port, ours) {
            Err(Error::PortTaken { .. }) => {}
            done => return done,
        }
    }
    Err(Error::RangeTaken {
        protocol: asked.protocol,
        address: asked.host_ip,
        first,
        last,
    })
}

/// A port of the kernel's choice that is free on all addresses.
fn choose<'a>(
    group: &[Publish],
    ours: &impl Fn(&Publish) -> Option<&'a Forward>,
) -> Result<Vec<Published>> {
    let mut refusal = None;
    // Held until one is found, so that none is chosen twice.
    let mut tried = Vec::new();
    for _ in 0..CHOICES {
        let chosen = reserve_one(&at(&group[0], 0), ours)?;
        let host_port = chosen.port.host_port;
        match reserve_at(&group[1..], host_port, ours) {
            Ok(others) => {
                let mut found = vec![chosen];
                found.extend(others);
                return Ok(found);
            }
            Err(error @ (Error::PortTaken { .. } | Error::PortOurs { .. })) => {
                refusal = Some(error);
            }
            Err(error) => return Err(error),
        }
        tried.push(chosen);
    }
    Err(refusal.unwrap_or_else(|| Error::malformed("choose a port")))
}

fn reserve_at<'a>(
    group: &[Publish],
    host_port: u16,
    ours: &impl Fn(&Publish) -> Option<&'a Forward>,
) -> Result<Vec<Published>> {
    group
        .iter()
        .map(|port| reserve_one(&at(port, host_port), ours))
        .collect()
}

fn at(port: &Publish, host_port: u16) -> Publish {
    Publish {
        host_port,
        host_port_last: None,
        ..*port
    }
}

fn reserve_one<'a>(
    port: &Publish,
    ours: &impl Fn(&Publish) -> Option<&'a Forward>,
) -> Result<Published> {
    reserve(port).map_err(|error| match (error, ours(port)) {
        (
            Error::PortTaken {
                protocol,
                address,
                port,
                ..
            },
            Some(forward),
        ) => Error::PortOurs {
            protocol,
            address,
            port,
            owner: forward.owner.clone(),
        },
        (error, _) => error,
    })
}
