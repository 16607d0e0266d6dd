//! knarr-supervisor: the parent of an engine's containers, and the keeper behind it.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A container's small init is this program, executed again inside it.
    if let Some(status) = knarr_runtime::init::enter(std::env::args_os()) {
        return ExitCode::from(status);
    }
    knarr_supervisor::run(std::env::args_os().skip(1))
}
