//! Device rules of either version: those of the specification, between what everybody starts from
//! and what everybody gets.

use crate::spec::DeviceRule;

fn rule(
    allow: bool,
    kind: &str,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> DeviceRule {
    DeviceRule {
        allow,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    }
}

/// (major, minor) of the character devices that every container may use: null, zero, full, random,
/// urandom, tty, terminals, and their multiplexer.
const EVERYBODYS: [(i64, Option<i64>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// Whether a rule is about every device.
pub(super) fn is_all(rule: &DeviceRule) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
    matches!(rule.kind.as_str(), "" | "a") && any(rule.major) && any(rule.minor)
}

/// The whole list of rules, in the order in which they hold: later ones win.
pub(super) fn complete(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    // Whatever comes before a rule about every device has no effect.
    let start = rules.iter().rposition(is_all);
    if start.is_some_and(|at| rules[at].allow)
        && rules[start.unwrap_or(0)..].iter().all(|rule| rule.allow)
    {
        return vec![rule(true, "a", None, None, "rwm")];
    }
    let mut complete = Vec::with_capacity(rules.len() + EVERYBODYS.len() + 3);
    if start.is_none() {
        complete.push(rule(false, "a", None, None, "rwm"));
    }
    complete.extend_from_slice(&rules[start.unwrap_or(0)..]);
    // Nodes may be made of any device: using them is another matter.
    complete.push(rule(true, "c", None, None, "m"));
    complete.push(rule(true, "b", None, None, "m"));
    complete.extend(
        EVERYBODYS
            .iter()
            .map(|(major, minor)| rule(true, "c", Some(*major), *minor, "rwm")),
    );
    complete
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_containers_have_one_rule() {
        let all = complete(&[rule(true, "a", None, None, "rwm")]);
        assert_eq!(all.len(), 1);
        assert!(all[0].allow);
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        for rules in [&[][..], &[rule(false, "", None, None, "rwm")]] {
            let complete = complete(rules);
            assert!(!complete[0].allow && is_all(&complete[0]));
            assert_eq!(complete.iter().filter(|rule| is_all(rule)).count(), 1);
        }
    }
}
