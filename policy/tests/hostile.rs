//! Hostile policy texts: each must be refused with a reason, and soon.
//!
//! The tests measure no time. At this size, a quadratic algorithm would exceed their time limit.

mod common;

use odyn_policy::{check_bytes, render};

use common::Random;

const SIZE: usize = 1 << 19;

fn texts() -> Vec<(&'static str, String)> {
    let repeat = |text: &str| text.repeat(SIZE / text.len());
    let many = |each: &dyn Fn(usize) -> String| -> String { (0..SIZE / 16).map(each).collect() };
    let nested_anchors = format!(
        "{}[{}]",
        (0..40)
            .map(|i| format!("- &a{i}\n{}", " ".repeat(i + 1)))
            .collect::<String>(),
        "a,".repeat(SIZE / 4)
    );
    vec![
        ("flow lists", repeat("[")),
        ("flow mappings", repeat("{")),
        ("flow mappings with keys", repeat("a: {")),
        ("block lists", repeat("- ")),
        ("complex keys", repeat("? ")),
        ("anchors", repeat("&a ")),
        ("aliases", format!("[&a x,{}]", repeat("*a,"))),
        ("alias bomb", {
            let level = |i: usize| format!("a{i}: &a{i} [{}]\n", format!("*a{},", i - 1).repeat(9));
            format!("a0: &a0 x\n{}", (1..30).map(level).collect::<String>())
        }),
        ("alias in itself", "a: &a [*a]\n".to_owned()),
        ("anchors around a large value", nested_anchors),
        ("open string", format!("\"{}", repeat("a"))),
        ("open flow", format!("[{}", repeat("a "))),
        ("one long word", repeat("a")),
        ("long lines of words", repeat("a\n")),
        ("comments", repeat("#\n")),
        ("spaces", repeat(" ")),
        ("tabs", repeat("\t")),
        ("line ends", repeat("\r")),
        ("documents", repeat("---\n")),
        ("document ends", repeat("...\n")),
        ("colons", repeat(":")),
        ("bangs", repeat("!")),
        ("tags", repeat("!a ")),
        ("directives", repeat("%YAML 1.2\n")),
        ("unknown keys", many(&|i| format!("versionx{i}: v1\n"))),
        ("the same key", repeat("version: v1\n")),
        (
            "bad rules",
            format!(
                "version: v1\negress: {{allow: [{}]}}",
                repeat("10.0.0.0/33,")
            ),
        ),
        (
            "a long name",
            format!("version: v1\negress: {{allow: [{}]}}", repeat("a.")),
        ),
        (
            "a long pattern",
            format!("version: v1\negress: {{allow: ['{}b']}}", repeat("*.")),
        ),
        (
            "a long glob",
            format!("version: v1\negress: {{allow: ['{}']}}", repeat("*a")),
        ),
        (
            "a long number",
            format!("version: v1\napi: {{listen_port: {}}}", repeat("9")),
        ),
        ("too large", " ".repeat((16 << 20) + 1)),
        ("NUL", "version: v1\n\0egress: {}\n".to_owned()),
        ("bidi", "version: v1 # \u{202e}\n".to_owned()),
        ("empty", String::new()),
        ("null", "~".to_owned()),
        ("number", "1".to_owned()),
    ]
}

#[test]
fn every_hostile_text_is_refused_with_a_reason() {
    for (what, text) in texts() {
        let loaded = check_bytes("hostile.yaml", text.as_bytes());
        assert!(loaded.policy.is_none(), "{what} was accepted");
        let error = loaded.errors().next();
        let error = error.unwrap_or_else(|| panic!("{what} was refused without a reason"));
        let shown = render(error, &text);
        assert!(
            shown.len() < 2000,
            "{what}: {} bytes of message",
            shown.len()
        );
        assert!(loaded.diagnostics.len() <= 10_000, "{what}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_at_their_place() {
    for (bytes, line, column) in [
        (&b"\xff"[..], 1, 1),
        (&b"version: v1\nname: \xc3"[..], 2, 7),
        (&b"version: v1\n\xed\xa0\x80"[..], 2, 1),
        (&b"\xff\xfev\0e\0r\0"[..], 1, 1),
    ] {
        let loaded = check_bytes("bytes.yaml", bytes);
        assert!(loaded.policy.is_none());
        let [error] = &loaded.diagnostics[..] else {
            panic!("{:?}", loaded.diagnostics);
        };
        assert_eq!(
            (error.code, error.span.line, error.span.column),
            ("not-utf8", line, column)
        );
    }
}

#[test]
fn a_text_cut_anywhere_is_handled() {
    let text = include_str!("policies/full.yaml");
    for (end, _) in text.char_indices() {
        let loaded = check_bytes("cut.yaml", &text.as_bytes()[..end]);
        let refused = loaded.policy.is_none();
        assert_eq!(refused, loaded.errors().next().is_some(), "cut at {end}");
    }
}

#[test]
fn texts_with_random_damage_are_handled() {
    let text = include_bytes!("policies/full.yaml");
    let pieces: [&[u8]; 22] = [
        b"*",
        b"&a ",
        b"*a",
        b"- ",
        b": ",
        b"\n",
        b"  ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"\"",
        b"'",
        b"#",
        b"!!str ",
        b"|\n",
        b"? ",
        b"\t",
        b"\xc3",
        b"\xe2\x80\xae",
        b"---\n",
        b"0",
    ];
    let mut accepted = 0;
    for round in 0..3000 {
        let mut random = Random(round);
        let mut bytes = text.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
                _ => drop(bytes.splice(at..at, random.pick(&pieces).iter().copied())),
            }
        }
        let loaded = check_bytes("damaged.yaml", &bytes);
        assert_eq!(
            loaded.policy.is_none(),
            loaded.errors().next().is_some(),
            "round {round}"
        );
        accepted += usize::from(loaded.policy.is_some());
        let shown = String::from_utf8_lossy(&bytes);
        for diagnostic in &loaded.diagnostics {
            assert!(!render(diagnostic, &shown).is_empty());
        }
    }
    assert!(
        (100..2900).contains(&accepted),
        "{accepted} of 3000 accepted"
    );
}
