//! OCI runtime spec to plan to Steps: seccomp, capabilities, cgroups, exec, state.
