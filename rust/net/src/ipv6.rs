//! IPv6's switches: those that netlink has no message for, and so are files below /proc/sys/net/ipv6.
//!
//! What is written is about the network namespace of the calling thread. A container's namespace begins with IPv6 off for
//! the links that it gets (`lo` is there already, and keeps `::1`), or on where its first network has IPv6. Nobody's router
//! advertisements are believed, on the host's side or inside: a container may send any. Duplicate addresses are not
//! looked for, as a start would have to wait for a second: the engine gives no address twice.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::names::LinkName;

const CONF: &str = "/proc/sys/net/ipv6/conf";
const OFF: [(&str, &str); 2] = [("accept_ra", "0"), ("disable_ipv6", "1")];
const ON: [(&str, &str); 4] = [
    ("accept_ra", "0"),
    ("accept_dad", "0"),
    ("ndisc_notify", "1"),
    ("disable_ipv6", "0"),
];

/// Whether the kernel has IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether links that the calling thread's namespace gets from now on have IPv6.
pub(crate) fn set_default(on: bool) -> Result<()> {
    set("default", on)
}

/// Whether a link has IPv6.
pub(crate) fn set_link(link: &LinkName, on: bool) -> Result<()> {
    set(link.as_str(), on)
}

fn set(link: &str, on: bool) -> Result<()> {
    let switches: &[(&str, &str)] = if on { &ON } else { &OFF };
    for (name, value) in switches {
        let path = format!("{CONF}/{link}/{name}");
        match fs::write(&path, value) {
            // Inside another container /proc/sys is read-only: a link without an address of its own is as good as off.
            // A link whose MTU is below IPv6's least has no switches.
            Err(cause)
                if !on
                    && matches!(
                        cause.kind(),
                        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound
                    ) => {}
            other => other.map_err(|cause| Error::system(format!("write {path}"), cause))?,
        }
    }
    Ok(())
}

/// Have the host forward IPv6. A host that forwards believes no router advertisements any more, unless it is told to
/// (`accept_ra=2`): those of its links that did are told, so that it keeps its own addresses and its way out.
pub(crate) fn forward() -> Result<()> {
    let all = format!("{CONF}/all/forwarding");
    if is_on(&all)? {
        return Ok(());
    }
    let listed =
        fs::read_dir(CONF).map_err(|cause| Error::system(format!("list {CONF}"), cause))?;
    for entry in listed.flatten() {
        // What comes later is nobody's way out yet.
        if entry.file_name() == "all" || entry.file_name() == "default" {
            continue;
        }
        let accepts = entry.path().join("accept_ra");
        let forwards = entry.path().join("forwarding").display().to_string();
        // A link may have gone meanwhile: then so has what it believed.
        if is_on(&accepts.display().to_string()).unwrap_or(false)
            && !is_on(&forwards).unwrap_or(true)
        {
            match fs::write(&accepts, "2") {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    let doing = format!("write 2 to {}", accepts.display());
                    return Err(Error::system(doing, cause));
                }
                _ => {}
            }
        }
    }
    turn_on(&all)
}

/// Write 1 to a switch that may be on already (and that may be read-only, as in a container).
pub(crate) fn turn_on(path: &str) -> Result<()> {
    if is_on(path)? {
        return Ok(());
    }
    fs::write(path, "1").map_err(|cause| Error::system(format!("write 1 to {path}"), cause))
}

fn is_on(path: &str) -> Result<bool> {
    let value = fs::read(path).map_err(|cause| Error::system(format!("read {path}"), cause))?;
    Ok(value.first() == Some(&b'1'))
}
