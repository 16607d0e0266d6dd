//! Requests about what containers use and may use.

use knarr_runtime::spec::Resources;
use serde::Deserialize;

use super::name::Id;

/// Fields of `stats`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Which. Those that do not run are left out of the answer.
    pub containers: Vec<Id>,
}

/// Fields of `update`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Which.
    pub container: Id,
    /// Its limits, all of them. Rules of devices are not looked at.
    pub resources: Resources,
}
