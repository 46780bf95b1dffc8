//! A decision allocates nothing: the test counts allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::IpAddr;

use odyn_policy::{Decision, Destination, Flow, Policy, Protocol, load};
use odyn_proto::DnsName;

struct Counting;

thread_local! {
    /// Allocations of this thread. Const-initialised and without a destructor, so that reading it
    /// does not allocate.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count_one() {
    COUNT.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: `pointer` came from `System.alloc` with this layout; `size` is the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations that `what` makes on this thread.
fn allocations<T>(what: impl FnOnce() -> T) -> (usize, T) {
    let before = COUNT.with(Cell::get);
    let result = what();
    (COUNT.with(Cell::get) - before, result)
}

fn policy(mode: &str) -> Policy {
    let text = format!(
        "version: v1
egress:
  mode: {mode}
  allow:
    - exact.example
    - '**.deep.example'
    - '*.one.example'
    - 'api-*.glob.example'
    - 'x.*.odd.example'
    - {{ to: ports.example, ports: [1, 3, '5-9'], protocol: tcp }}
    - 10.0.0.0/8
    - '2001:db8::/32'
    - 127.0.0.0/8
    - host
  deny:
    - '**.bad.deep.example'
    - 10.9.0.0/16
"
    );
    let loaded = load("p.yaml", &text);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    loaded.policy.unwrap()
}

#[test]
fn the_counter_counts() {
    let (count, _) = allocations(|| vec![1, 2, 3]);
    assert_eq!(count, 1);
}

#[test]
fn decisions_allocate_nothing() {
    let resolved: Vec<IpAddr> = [
        "203.0.113.1",
        "127.0.0.1",
        "10.9.0.1",
        "::ffff:10.0.0.1",
        "fe80::1",
    ]
    .map(|a| a.parse().unwrap())
    .to_vec();
    let long = format!("{}deep.example", "a.".repeat(110));
    let names = [
        "exact.example",
        "a.b.deep.example",
        "x.bad.deep.example",
        "a.one.example",
        "api-7.glob.example",
        "x.y.odd.example",
        "ports.example",
        "nowhere.example",
        "localhost",
        "host",
        &long,
    ]
    .map(|name| DnsName::parse(name).unwrap());
    let addresses = [
        "10.1.2.3",
        "10.9.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "198.18.0.1",
        "2001:db8::1",
    ]
    .map(|a| a.parse::<IpAddr>().unwrap());

    let mut decisions = 0;
    let mut allowed = 0;
    for mode in ["enforce", "report"] {
        let policy = policy(mode);
        let destinations = names
            .iter()
            .flat_map(|name| {
                [
                    Destination::Name {
                        name,
                        resolved: &resolved,
                    },
                    Destination::Name {
                        name,
                        resolved: &[],
                    },
                ]
            })
            .chain(addresses.map(Destination::Address))
            .chain([Destination::Host]);
        for destination in destinations {
            for port in [0, 1, 2, 443] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let flow = Flow {
                        destination,
                        port,
                        protocol,
                    };
                    let (count, decision) = allocations(|| policy.decide(&flow));
                    assert_eq!(count, 0, "{flow:?}");
                    decisions += 1;
                    allowed += usize::from(matches!(decision, Decision::Allow(_)));
                }
            }
        }
        for name in &names {
            let (count, _) = allocations(|| policy.decide_name(name));
            assert_eq!(count, 0, "decide_name {name}");
            let (count, _) = allocations(|| policy.denies_name(name));
            assert_eq!(count, 0, "denies_name {name}");
        }
    }
    assert!(
        allowed > 50 && decisions - allowed > 50,
        "{allowed} of {decisions}"
    );
}
