//! `mode: report`: let it pass, and record what would have been denied.

use odyn_tests::{World, serve};

use crate::{program, start};

#[test]
fn report_mode_lets_pass_and_says_what_would_be_denied() {
    let policy = "\
version: v1
name: t
egress:
  mode: report
  allow:
    - api.shop.example
";
    let world = start!(
        World::builder()
            .policy(policy)
            .name("api.shop.example", &["203.0.113.10"])
            .name("other.shop.example", &["203.0.113.11"])
    );
    serve::banner(world.internet().listen("0.0.0.0:443"), "hello");
    let words = [
        "tcp",
        "api.shop.example",
        "443",
        "other.shop.example",
        "443",
        "203.0.113.30",
        "443",
    ];
    let out = world.python(program!("connect"), &words);
    assert_eq!(
        out.ok(),
        "ok hello\nok hello\nok hello\n",
        "{}",
        out.describe()
    );
    out.allowed("tcp", "api.shop.example", 443, "api.shop.example");
    for who in ["other.shop.example", "203.0.113.30"] {
        if let Some(record) = out.flow("tcp", who, 443) {
            assert_eq!(record.verdict, "report", "{}", out.describe());
            assert_eq!(record.reason.as_deref(), Some("no-rule"));
            assert!(record.dialled.is_some());
        }
    }
}
