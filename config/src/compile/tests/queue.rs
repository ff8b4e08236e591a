//! Waiting: who goes first, who is one client, how long, and what new endpoints get.

use super::*;
use crate::revision::{FairBy, Priority, Queue, RampUp, Revision, Wait};
use crate::snapshot::{PriorityFrom, Urgency};

/// A revision that goes on after `name: a,`.
#[track_caller]
fn revision(rest: &str) -> Revision {
    let compiled = compiled(&format!("revisions: [{{name: a, {rest}}}]"));
    let revision = compiled.snapshot.revisions().next();
    Revision::clone(revision.expect("it is there"))
}

fn class(class: i64) -> Priority {
    Priority::new(class).expect("there is this class")
}

#[test]
fn a_queue_has_its_defaults() {
    let wanted = Queue {
        depth: 1000,
        bytes: None,
        wait: Wait::For(Duration::from_secs(300)),
        per_client: 0,
        fair_by: FairBy::Address,
        priority: class(4),
    };
    assert_eq!(*revision("").queue, wanted);
    assert_eq!(*revision("queue: {}").queue, wanted);
}

#[test]
fn every_key_of_a_queue_is_read() {
    let text = "queue: {depth: 7, bytes: 6, wait: auto, perClient: 5, fairBy: 'header:X-User', priority: 0}";
    let wanted = Queue {
        depth: 7,
        bytes: Some(6),
        wait: Wait::Auto,
        per_client: 5,
        fair_by: FairBy::Header("x-user".into()),
        priority: class(0),
    };
    assert_eq!(*revision(text).queue, wanted);
}

#[test]
fn clients_are_told_apart_by_address_header_claim_or_not_at_all() {
    for (written, wanted) in [
        ("address", FairBy::Address),
        ("none", FairBy::Nothing),
        ("header:x-user", FairBy::Header("x-user".into())),
        ("claim:sub", FairBy::Claim("sub".into())),
        (
            "claim:https://a.example/id",
            FairBy::Claim("https://a.example/id".into()),
        ),
    ] {
        let queue = revision(&format!("queue: {{fairBy: '{written}'}}")).queue;
        assert_eq!(queue.fair_by, wanted, "{written}");
    }
}

#[test]
fn what_a_queue_cannot_be_is_refused() {
    const FORM: &str = "write address, header:NAME, claim:NAME or none";
    for (written, wanted) in [
        (
            "fairBy: ip",
            format!("fairBy: this does not tell clients apart (ip); {FORM}"),
        ),
        (
            "fairBy: 'cookie:a'",
            format!("fairBy: this does not tell clients apart (cookie:a); {FORM}"),
        ),
        (
            "fairBy: 'header:'",
            format!("fairBy: the name of the header is missing (header:); {FORM}"),
        ),
        (
            "fairBy: 'header: X-Tenant'",
            "fairBy: there is a space beside the name (header: X-Tenant); write header:X-Tenant"
                .to_owned(),
        ),
        (
            "fairBy: 'header:a b'",
            "fairBy: bad header name (a b); use letters, digits and `-`".to_owned(),
        ),
        (
            "fairBy: 'claim:'",
            "fairBy: bad claim name (claim:); write 1 to 256 characters, like claim:sub".to_owned(),
        ),
        (
            "priority: 8",
            "priority: there is no such class (8); write an integer of 0 to 7; 7 goes first"
                .to_owned(),
        ),
        (
            "priority: -1",
            "priority: there is no such class (-1); write an integer of 0 to 7; 7 goes first"
                .to_owned(),
        ),
        (
            "perClient: 1000001",
            "perClient: the number is out of range (1000001); write an integer of 0 to 1000000"
                .to_owned(),
        ),
        (
            "wait: 0s",
            "wait: the duration must not be zero (0s); write at least 1ms, for instance 300s"
                .to_owned(),
        ),
        (
            "wait: Auto",
            "wait: this is not a duration (Auto); \
             write auto, or a number and a unit: 500ms, 10s, 5m, 1h"
                .to_owned(),
        ),
    ] {
        let problems = revision_refused(&format!("    queue: {{{written}}}\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        let ends = format!("revisions[0].queue.{wanted}");
        assert!(problems[0].ends_with(&ends), "{problems:?}");
    }
}

#[test]
fn headers_that_anybody_makes_up_tell_nobody_apart() {
    for name in [
        "X-Forwarded-For",
        "x-forwarded-for",
        "FORWARDED",
        "X-Real-IP",
    ] {
        assert_eq!(
            revision_refused(&format!("    queue: {{fairBy: 'header:{name}'}}\n")),
            [format!(
                "f.yaml:3:21: revisions[0].queue.fairBy: anybody can make this header up \
                 (header:{name}); write address: behind `gateway.trustedProxies` it is what they \
                 say in X-Forwarded-For"
            )]
        );
    }
}

#[test]
fn the_schema_has_the_bounds_that_are_checked() {
    let schema = crate::schema();
    for (of, key, written) in [
        ("Queue", "depth", "queue: {depth: #}"),
        ("Queue", "bytes", "queue: {bytes: #}"),
        (
            "Queue",
            "perClient",
            "queue: {depth: 1000000, perClient: #}",
        ),
        ("Queue", "priority", "queue: {priority: #}"),
        ("RampUp", "initial", "scale: {rampUp: {initial: #}}"),
    ] {
        let bound = |name| schema["$defs"][of]["properties"][key][name].as_i64();
        let (least, most) = (bound("minimum"), bound("maximum"));
        let (least, most) = least.zip(most).expect(key);
        for (number, fine) in [
            (least - 1, false),
            (least, true),
            (most, true),
            (most + 1, false),
        ] {
            let written = written.replace('#', &number.to_string());
            let text = format!("revisions: [{{name: a, {written}}}]");
            assert_eq!(compile(&text).is_ok(), fine, "{text}");
        }
    }
}

#[test]
fn new_endpoints_are_ramped_up_unless_the_file_says_otherwise() {
    let ramp = |initial, millis| RampUp {
        initial,
        interval: Duration::from_millis(millis),
    };
    assert_eq!(revision("").ramp_up, Some(ramp(8, 1000)));
    let all = "process: {command: [x]}, scale: {min: 1, rampUp: {initial: 2, interval: 50ms}}";
    assert_eq!(revision(all).ramp_up, Some(ramp(2, 50)));
    let fixed = "endpoints: ['10.0.0.1:80'], scale: {rampUp: {initial: 0}}";
    assert_eq!(revision(fixed).ramp_up, None);
    let problems = revision_refused("    scale: {rampUp: {initial: 0, interval: 2s}}\n");
    assert_eq!(
        problems,
        [
            "f.yaml:3:44: revisions[0].scale.rampUp.interval: `interval` with `initial: 0` (2s); \
             remove it: new endpoints are like any other, and nothing grows"
        ]
    );
    let problems = revision_refused("    scale: {rampUp: {initial: -1, interval: 1ms}}\n");
    assert_eq!(
        problems,
        [
            "f.yaml:3:31: revisions[0].scale.rampUp.initial: the number is out of range (-1); \
             write an integer of 0 to 1000000",
            "f.yaml:3:45: revisions[0].scale.rampUp.interval: the duration is shorter than 10ms \
             (1ms); write at least 10ms, for instance 1s",
        ]
    );
}

#[test]
fn streams_are_demand_for_ever_unless_the_file_says_otherwise() {
    assert_eq!(revision("").idle_stream, None);
    assert_eq!(revision("scale: {idleStream: 0s}").idle_stream, None);
    assert_eq!(
        revision("scale: {idleStream: 2m}").idle_stream,
        Some(Duration::from_secs(120))
    );
}

#[test]
fn what_is_no_duration_hears_how_to_switch_off_where_zero_does() {
    for written in ["off", "never", "false"] {
        for (key, within) in [("idleStream", "scale"), ("timeout", ""), ("idle", "")] {
            let line = match within {
                "" => format!("    {key}: {written}\n"),
                within => format!("    {within}: {{{key}: {written}}}\n"),
            };
            let problems = revision_refused(&line);
            assert_eq!(problems.len(), 1, "{problems:?}");
            let ends = format!(
                "{key}: this is not a duration ({written}); \
                 write a number and a unit: 500ms, 10s, 5m, 1h; `0s` switches it off"
            );
            assert!(problems[0].ends_with(&ends), "{problems:?}");
        }
    }
    let problems = refused("gateway: {limits: {connectionAge: never}}");
    assert!(
        problems[0].ends_with("`0s` switches it off"),
        "{problems:?}"
    );
}

/// What a rule of route `a` says of urgency: that number of those written.
#[track_caller]
fn urgency(of_route: &str, rules: &str, number: usize) -> Option<Urgency> {
    let compiled = compiled(&format!(
        "{REVISION}routes: [{{name: a, traffic: [{{revision: r1}}], {of_route} rules: [{rules}]}}]"
    ));
    let route = route(&compiled, "a");
    let number = u32::try_from(number).expect("there are few");
    let rule = route.rules.iter().find(|rule| rule.number == number);
    route.urgency_of(rule.expect("there is this rule")).cloned()
}

#[test]
fn a_rule_is_as_urgent_as_it_says_else_as_its_route_says() {
    let route = "priority: 6, deadline: {header: X-Deadline},";
    let rules = "{path: /a, traffic: [{revision: r1}]}, \
                 {path: /b, priority: {header: X-Class}, traffic: [{revision: r1}]}, \
                 {path: /c, deadline: {header: other}, traffic: [{revision: r1}]}";
    let said = |priority, deadline: &str| {
        Some(Urgency {
            priority: Some(priority),
            deadline: Some(deadline.into()),
        })
    };
    let six = PriorityFrom::Class(class(6));
    assert_eq!(urgency(route, rules, 1), said(six.clone(), "x-deadline"));
    let header = PriorityFrom::Header("x-class".into());
    assert_eq!(urgency(route, rules, 2), said(header, "x-deadline"));
    assert_eq!(urgency(route, rules, 3), said(six, "other"));
    assert_eq!(urgency("", "{traffic: [{revision: r1}]}", 1), None);
    assert_eq!(
        urgency("priority: 0,", "", 1).map(|it| it.deadline),
        Some(None)
    );
}

#[test]
fn classes_and_deadlines_that_cannot_be_are_refused() {
    let rest = "    traffic: [{revision: r1}]
    priority: 9
    deadline: {header: 'a b'}
    rules: [{traffic: [{revision: r1}], priority: {header: ''}}]
";
    assert_eq!(
        route_refused(rest),
        [
            "f.yaml:8:15: routes[0].priority: there is no such class (9); \
             write an integer of 0 to 7; 7 goes first",
            "f.yaml:9:24: routes[0].deadline.header: bad header name (a b); \
             use letters, digits and `-`",
            "f.yaml:10:60: routes[0].rules[0].priority.header: bad header name; \
             use letters, digits and `-`",
        ]
    );
    for (written, wanted) in [
        (
            "priority: {cookie: a}",
            "routes[0].priority.cookie: unknown key (cookie); \
             it belongs under `routes[].sticky`; here, one of: header",
        ),
        ("priority: {}", "the key `header` is missing"),
        (
            "deadline: 5s",
            "expected a mapping (5s); write `{ header: NAME }`",
        ),
        ("deadline: {}", "the key `header` is missing"),
    ] {
        let problems = route_refused(&format!("    {written}\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(wanted), "{problems:?}");
    }
}

#[test]
fn what_says_no_class_is_refused_where_it_stands() {
    for (written, shown) in [
        ("header:X-Class", "header:X-Class"),
        ("'3'", "3"),
        ("high", "high"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("[1, {a: b}]", "[…]"),
    ] {
        let rest = format!(
            "    priority: {written}
    rules:
      - traffic: [{{revision: r1}}]
        priority: {written}
"
        );
        let wanted = |place| {
            format!(
                "f.yaml:{place}.priority: this says no class ({shown}); \
                 write an integer of 0 to 7, or {{header: NAME}}"
            )
        };
        assert_eq!(
            route_refused(&rest),
            [
                wanted("7:15: routes[0]"),
                wanted("10:19: routes[0].rules[0]")
            ]
        );
    }
}

#[test]
fn a_route_says_whether_targets_are_warmed_first() {
    let warm = |rest: &str| {
        let text = format!("{REVISION}routes: [{{name: a, traffic: [{{revision: r1}}]{rest}}}]");
        route(&compiled(&text), "a").warm_before_shift
    };
    assert!(!warm(""));
    assert!(!warm(", warmBeforeShift: false"));
    assert!(warm(", warmBeforeShift: true"));
}

#[test]
fn what_is_said_of_waiting_survives_a_change_of_the_domain() {
    let text = format!(
        "{REVISION}routes:
  - {{name: a, traffic: [{{revision: r1}}], priority: {{header: x}}, deadline: {{header: y}}, warmBeforeShift: true}}
  - {{name: b, traffic: [{{revision: r1}}], priority: 3}}
"
    );
    let mut compiler = Compiler::default();
    let apply = |compiler: &mut Compiler, file: &str, text: &str| {
        compiler
            .apply(vec![fragment(file, text)])
            .expect("it is valid")
    };
    let before = apply(&mut compiler, "f.yaml", &text);
    let after = apply(&mut compiler, "g.yaml", "domain: other.test");
    for name in ["a", "b"] {
        let (before, after) = (route(&before, name), route(&after, name));
        assert_ne!(before.default_host(), after.default_host());
        assert_eq!(before.urgency, after.urgency);
        assert!(after.urgency.is_some());
        assert_eq!(before.warm_before_shift, after.warm_before_shift);
    }
}

#[test]
fn a_token_file_lies_beside_the_file_that_names_it() {
    let apply = |text| Compiler::default().apply(vec![fragment("/etc/t/f.yaml", text)]);
    let none = apply("gateway: {}").expect("it is valid").settings;
    assert_eq!((none.admin_token, none.server_timing), (None, false));
    let some = apply("gateway: {adminTokenFile: token, serverTiming: true}");
    let some = some.expect("it is valid").settings;
    let file = some.admin_token.expect("it is read");
    assert_eq!(file.path, std::path::Path::new("/etc/t/token"));
    assert!(some.server_timing);
    let problems = refused("gateway: {adminTokenFile: ''}");
    assert!(
        problems[0].contains("gateway.adminTokenFile: bad file name"),
        "{problems:?}"
    );
}

#[test]
fn a_bound_of_a_part_is_no_wider_than_that_of_the_whole() {
    revision("queue: {depth: 9, perClient: 9}");
    compiled("gateway: {limits: {held: 8, heldPerAddress: 8, heldPerNamespace: 8}}");
    for (depth, one, whole) in [("depth: 9", 10, 9), ("bytes: 1", 1001, 1000)] {
        assert_eq!(
            revision_refused(&format!("    queue: {{{depth}, perClient: {one}}}\n")),
            [format!(
                "f.yaml:3:34: revisions[0].queue.perClient: `perClient` is greater than `depth` \
                 ({one}); it has no effect: write at most depth ({whole}), or raise depth"
            )]
        );
    }
    let problems =
        refused("gateway: {limits: {heldPerAddress: 10001, heldPerNamespace: 10002, held: 10000}}");
    let wanted = |column, key, number| {
        format!(
            "f.yaml:1:{column}: gateway.limits.{key}: `{key}` is greater than `held` ({number}); \
             it has no effect: write at most held (10000), or raise held"
        )
    };
    assert_eq!(
        problems,
        [
            wanted(36, "heldPerAddress", 10_001),
            wanted(61, "heldPerNamespace", 10_002)
        ]
    );
}

#[test]
fn what_one_address_may_hold_is_a_number_and_zero_is_none() {
    let most = |most: i64| {
        let text = format!("gateway: {{limits: {{heldPerAddress: {most}}}}}");
        compiled(&text).settings.limits.held_per_address
    };
    assert_eq!((most(0), most(7)), (None, Some(7)));
    let problems = refused("gateway: {limits: {heldPerAddress: -1}}");
    assert!(problems[0].contains("out of range"), "{problems:?}");
}
