//! knarr-supervisor: the parent of an engine's containers, and the keeper behind it.

use std::process::ExitCode;

fn main() -> ExitCode {
    knarr_supervisor::run(std::env::args_os().skip(1))
}
