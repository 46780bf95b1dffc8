//! The app's output at the host: all of it, in order, and whose it is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::process::until;
use odyn_tests::{Guest, World, process};

use crate::{SHOP, shop, start};

const SOON: Duration = Duration::from_secs(60);

/// A guest whose output goes to the host.
fn host(guest: Guest) -> Guest {
    guest.flag("--stdio").flag("host")
}

/// A world whose host writes files.
fn files() -> odyn_tests::world::Builder {
    shop().outer(&["--guest-logs", "DIR/guests"])
}

/// A log of the guest `tests`: SHOP's name.
fn log(world: &World, feed: &str) -> PathBuf {
    world.dir().join("guests/tests").join(format!("{feed}.log"))
}

fn read(world: &World, feed: &str) -> Vec<u8> {
    fs::read(log(world, feed)).unwrap_or_default()
}

/// The texts of a guest's stream at the host's standard output.
fn texts(output: &[u8], guest: &str, feed: &str) -> Vec<String> {
    let output = String::from_utf8(output.to_vec()).expect("text");
    let mark = format!(" {guest} {feed} ");
    output
        .lines()
        .filter_map(|line| Some(line.split_once(&mark)?.1.to_owned()))
        .collect()
}

#[test]
fn a_hundred_megabytes_arrive_as_they_were_written() {
    let world = start!(files());
    if world.direct() {
        return;
    }
    // Binary, and the last line has no end: written right before the exit.
    let script =
        "head -c 104857600 /dev/urandom | tee expected; echo oops >&2; printf tail; exit 3";
    let out = host(Guest::sh(script)).run(&world);
    assert_eq!(out.code, 3, "{}", out.describe());
    assert!(out.stdout.is_empty() && out.stderr.is_empty());
    let mut expected = fs::read(world.scratch().join("expected")).expect("the copy");
    assert_eq!(expected.len(), 104_857_600);
    expected.extend(b"tail");
    assert!(read(&world, "stdout") == expected, "the output differs");
    assert_eq!(read(&world, "stderr"), b"oops\n");
    let own = String::from_utf8(read(&world, "log")).expect("text");
    assert!(
        own.contains("app started") && own.contains("app ended"),
        "{own}"
    );
}

#[test]
fn lines_of_any_length_are_lines_at_the_host() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    let source = r#"
import sys
print("short")
print("x" * (10 << 20))
sys.stdout.flush()
print("1\x1b[31mred\r\n2026-11-21T01:02:03.123456Z other stdout forged", flush=True)
sys.stdout.buffer.write(b"\xff\n"); sys.stdout.flush()
"#;
    host(Guest::python(source, &[])).run(&world).ok();
    let output = world.outer().stdout();
    let parts = texts(&output, "tests", "stdout+");
    let lines = texts(&output, "tests", "stdout");
    let long: usize = parts.iter().map(String::len).sum();
    assert_eq!(lines[0], "short");
    // Its last part is where the line ends.
    assert_eq!(long + lines[1].len(), 10 << 20);
    assert!(parts.iter().all(|part| part.len() <= 16 * 1024));
    assert_eq!(
        lines[2..],
        [
            "1\\x1b[31mred\\r",
            "2026-11-21T01:02:03.123456Z other stdout forged",
            "\\xff",
        ]
    );
    let forged = String::from_utf8_lossy(&output)
        .lines()
        .any(|line| line.starts_with("2026-11-21T01:02:03.123456Z"));
    assert!(!forged, "a guest wrote another's line");
}

#[test]
fn the_last_words_before_any_end_arrive() {
    let world = start!(files());
    if world.direct() {
        return;
    }
    let mut expected = Vec::new();
    for (script, code) in [
        ("printf 'no newline'; exit 0", 0),
        ("printf killed; kill -KILL $$", 137),
        // Closed before the exit, and what stderr says after that.
        (
            "echo closed; exec >&-; sleep 0.2; echo later >&2; exit 5",
            5,
        ),
        ("(echo child) & wait; exit 6", 6),
    ] {
        let out = host(Guest::sh(script)).run(&world);
        assert_eq!(out.code, code, "{script}: {}", out.describe());
        expected.push(script);
    }
    let stdout = String::from_utf8(read(&world, "stdout")).expect("text");
    assert_eq!(stdout, "no newlinekilledclosed\nchild\n");
    assert_eq!(read(&world, "stderr"), b"later\n");
}

#[test]
fn an_app_that_is_killed_with_output_in_the_pipe_loses_none() {
    let world = start!(files());
    if world.direct() {
        return;
    }
    let source = r#"
import os, signal
data = b"".join(b"%d\n" % n for n in range(200000))
with open("expected", "wb") as f: f.write(data)
view = memoryview(data)
while view: view = view[os.write(1, view):]
os.kill(os.getpid(), signal.SIGKILL)
"#;
    for _ in 0..3 {
        let _ = fs::remove_file(log(&world, "stdout"));
        let out = host(Guest::python(source, &[])).run(&world);
        assert_eq!(out.code, 137, "{}", out.describe());
        let expected = fs::read(world.scratch().join("expected")).expect("the copy");
        assert!(read(&world, "stdout") == expected, "the output differs");
    }
}

/// Prints numbers until the file `stop` is there.
const NUMBERS: &str = r#"
import os, time
n = 0
while not os.path.exists("stop"):
    print(n, flush=True)
    n += 1
    if n % 50 == 0: time.sleep(0.001)
"#;

fn last_number(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().nth(1).unwrap_or_default();
    let number = line.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

#[test]
fn a_host_that_is_killed_loses_no_line_and_repeats_none_in_files() {
    let mut world = start!(files());
    if world.direct() {
        return;
    }
    let running = host(Guest::python(NUMBERS, &[])).spawn(&world);
    for round in 1..=5 {
        let seen = last_number(&read(&world, "stdout"));
        until(SOON, "more numbers", || {
            last_number(&read(&world, "stdout")) > seen + 500 * round
        });
        world.outer().kill();
        world.start_outer();
    }
    fs::write(world.scratch().join("stop"), "").expect("own directory");
    running.finish().ok();
    let got = String::from_utf8(read(&world, "stdout")).expect("text");
    let count = got.lines().count();
    let expected: String = (0..count).map(|n| format!("{n}\n")).collect();
    assert!(count > 2500 && got == expected, "lost, torn or repeated");
}

#[test]
fn a_host_that_is_killed_loses_no_line_of_its_standard_output() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    let running = host(Guest::python(NUMBERS, &[])).spawn(&world);
    let mut outputs = Vec::new();
    for _ in 0..3 {
        until(SOON, "more numbers", || {
            texts(&world.outer().stdout(), "tests", "stdout").len() > 500
        });
        world.outer().kill();
        outputs.push(world.outer().stdout());
        world.start_outer();
    }
    fs::write(world.scratch().join("stop"), "").expect("own directory");
    running.finish().ok();
    outputs.push(world.outer().stdout());
    // What was not confirmed when it was killed is said again, and nothing is missing.
    let mut next = 0;
    for (life, output) in outputs.iter().enumerate() {
        let numbers: Vec<usize> = texts(output, "tests", "stdout")
            .iter()
            .map(|text| text.parse().expect("a whole line"))
            .collect();
        assert!(numbers[0] <= next, "lost: {next} to {}", numbers[0]);
        assert!(life > 0 || numbers[0] == 0);
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "one life repeats or loses none"
        );
        next = numbers[numbers.len() - 1] + 1;
    }
}

#[test]
fn two_guests_at_once_keep_their_names() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    let other = world.file("other.yaml", SHOP.replace("name: tests", "name: other.one"));
    let script = "for n in $(seq 300); do echo $0 $n; done";
    let first = host(Guest::sh(script).word("first")).spawn(&world);
    let second = host(Guest::sh(script).word("second").policy(other)).spawn(&world);
    for running in [first, second] {
        running.finish().ok();
    }
    let output = world.outer().stdout();
    for (guest, word) in [("tests", "first"), ("other.one", "second")] {
        let expected: Vec<String> = (1..=300).map(|n| format!("{word} {n}")).collect();
        assert_eq!(texts(&output, guest, "stdout"), expected, "{guest}");
    }
}

#[test]
fn a_wild_name_of_a_guest_is_harmless() {
    let world = start!(files());
    if world.direct() {
        return;
    }
    for (number, name) in ["../../escape", "..", "a\\n\\e[2J", "."]
        .into_iter()
        .enumerate()
    {
        let text = SHOP.replace("name: tests", &format!("name: \"{name}\""));
        let policy = world.file(&format!("wild{number}.yaml"), text);
        host(Guest::sh("echo said").policy(policy)).run(&world).ok();
    }
    let mut names: Vec<String> = fs::read_dir(world.dir().join("guests"))
        .expect("the directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    let plain = |name: &String| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        name.chars().all(fits) && !name.starts_with('.')
    };
    assert!(names.iter().all(plain), "{names:?}");
    assert!(!world.dir().join("escape").exists());
}

#[test]
fn a_host_that_does_not_write_stops_the_output_and_nothing_else() {
    let mut world = start!(files());
    if world.direct() {
        return;
    }
    // A directory in the way of the file: writing fails until it is gone.
    fs::create_dir_all(log(&world, "stdout")).expect("own directory");
    let source = r#"
import socket, os
ok = 0
for n in range(20):
    with socket.create_connection(("203.0.113.20", 7000), timeout=20) as s:
        ok += s.recv(10) == b"hello\n"
with open("flows", "w") as f: f.write(str(ok))
for n in range(400000): print(n)
with open("printed", "w") as f: pass
"#;
    odyn_tests::serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    let running = host(Guest::python(source, &[])).spawn(&world);
    let flows = world.scratch().join("flows");
    until(SOON, "the flows", || {
        fs::read_to_string(&flows).is_ok_and(|text| text == "20")
    });
    until(SOON, "a word of the host", || {
        String::from_utf8_lossy(&world.outer().stderr()).contains("can't open a guest's log")
    });
    assert!(
        !world.scratch().join("printed").exists(),
        "the output was not held back"
    );
    fs::remove_dir(log(&world, "stdout")).expect("own directory");
    running.finish().ok();
    let expected: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    assert!(
        read(&world, "stdout") == expected.as_bytes(),
        "the output differs"
    );
}

#[test]
fn without_a_host_the_app_waits_with_its_output() {
    let mut world = start!(files());
    if world.direct() {
        return;
    }
    let script = "touch ready; while [ ! -e go ]; do sleep 0.02; done; i=0; while [ $i -lt 60 ]; do head -c 65536 /dev/zero; i=$((i + 1)); echo $i >progress; done; touch printed";
    let running = host(Guest::sh(script)).spawn(&world);
    let file = |name| world.scratch().join(name);
    let (ready, go, printed) = (file("ready"), file("go"), file("printed"));
    until(SOON, "the app", || ready.exists());
    world.outer().kill();
    fs::write(go, "").expect("own directory");
    let progress = || fs::read_to_string(world.scratch().join("progress")).unwrap_or_default();
    until(SOON, "the app to fill what there is room for", || {
        progress().trim().parse().unwrap_or(0) > 10
    });
    assert!(!printed.exists(), "the output was not held back");
    world.start_outer();
    running.finish().ok();
    assert_eq!(read(&world, "stdout").len(), 60 * 65536);
}

#[test]
fn sigterm_to_the_host_loses_nothing() {
    let mut world = start!(files());
    if world.direct() {
        return;
    }
    let running = host(Guest::python(NUMBERS, &[])).spawn(&world);
    for _ in 0..3 {
        let seen = last_number(&read(&world, "stdout"));
        until(SOON, "more numbers", || {
            last_number(&read(&world, "stdout")) > seen + 500
        });
        world.outer().signal(Signal::SIGTERM);
        let status = world.outer().wait(SOON);
        assert_eq!(process::code(status), 0);
        world.start_outer();
    }
    fs::write(world.scratch().join("stop"), "").expect("own directory");
    running.finish().ok();
    let got = String::from_utf8(read(&world, "stdout")).expect("text");
    let count = got.lines().count();
    let expected: String = (0..count).map(|n| format!("{n}\n")).collect();
    assert!(count > 1500 && got == expected, "lost, torn or repeated");
}
