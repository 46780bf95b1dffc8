# What people and CI both call. `just` lists it.

default:
    @just --list

# Formatting
fmt:
    cargo fmt --all --check
    cd fuzz && cargo fmt --check
    cd link/loom && cargo fmt --check

# Lints
clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Everything that CI runs
test:
    scripts/test

# Tests that need neither root nor namespaces
test-unit:
    scripts/test unit doctest

# Tests in namespaces (root, or sudo)
test-net:
    scripts/test build net

# The same with capture by a TUN device
test-net-tun:
    scripts/test build net-tun

# The same without the product: servers, clients and probes themselves
test-control:
    scripts/test build control

# The static executables in a virtual machine, over real AF_VSOCK
test-vm:
    scripts/test vm

# The static executables in root file systems with little in them (root, or sudo)
test-roots:
    scripts/test roots

# One static file each, into dist/
dist:
    scripts/dist

# The same bytes from another folder?
repro:
    scripts/dist
    scripts/repro

# Models of the link's concurrency, with every interleaving of their threads
loom:
    cd link/loom && cargo run --locked

# A few seconds of each fuzz target; `just fuzz-smoke 600` for longer
fuzz-smoke seconds="5":
    scripts/fuzz-smoke {{ seconds }}

# Figures: odyn-net beside other proxies and networks, all in one run (scripts/setup bench first)
bench *words:
    cargo build --release --locked --bin odyn-net --bin enclaver-outer
    ODYN_TEST_LOG=error cargo run --release --locked -p odyn-benches -- \
        --json target/bench/results.json --svg-dir target/bench {{ words }}

# The same over real AF_VSOCK, in a virtual machine; figures are for ratios where there is no KVM
bench-vm *words:
    scripts/bench-vm {{ words }}

# How the code is: sizes, names, arrows, habits, of any revision
figures revision="HEAD":
    scripts/figures {{ revision }}

# Documentation, with warnings as errors
doc:
    scripts/test doc

# Licences, advisories, sources (needs cargo-deny)
deny:
    cargo deny --all-features check

# What it does, on this machine, without internet and without root
demo:
    scripts/demo
