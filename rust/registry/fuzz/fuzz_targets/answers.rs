//! Any bytes where a registry's answer is parsed: heads, challenges, locations, ranges, dates, manifests.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| knarr_registry::fuzzing::answers(data));
