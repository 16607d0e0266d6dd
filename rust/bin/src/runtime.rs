//! knarr-runtime: the runtime crate behind runc's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(status) = knarr_runtime::init::enter(std::env::args_os()) {
        return ExitCode::from(status);
    }
    knarr_runtime::cli::main(std::env::args_os().skip(1))
}
