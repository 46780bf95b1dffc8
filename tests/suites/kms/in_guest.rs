//! KMS for an unmodified app, through guest and host: `odyn_tests::kms` stands in for KMS, a metadata
//! service gives the host its role.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use odyn_kms::attest::{AWS_NITRO_ROOT, Expected, SIMULATED_ROOT, verify};
use odyn_tests::third_party::installed;
use odyn_tests::world::{Builder, NOBODY, as_user, executable};
use odyn_tests::{Guest, Output, Process, World, process};

use crate::{program, start};

const SOON: Duration = Duration::from_secs(20);
const IMDS: &str = "http://127.0.0.1:1338";
/// The role of the host, as `imds.py` has it.
const ROLE: [&str; 3] = [
    "ASIAINSTANCEROLE",
    "instance-role-hush",
    "instance-role-token",
];
const KMS: &str = "kms.eu-west-1.amazonaws.com";

fn builder() -> Builder {
    World::builder()
        .name(KMS, &["203.0.113.10"])
        .name("evil.example.net", &["203.0.113.10"])
        .outer_env("AWS_EC2_METADATA_SERVICE_ENDPOINT", IMDS)
}

/// KMS on the internet, and the metadata service of the host.
fn services(world: &World) -> (Process, Process) {
    services_for(world, ROLE)
}

fn services_for(world: &World, [id, secret, token]: [&str; 3]) -> (Process, Process) {
    let path = |name: &str| world.dir().join(name).display().to_string();
    let stand_in = executable("ODYN_KMS_STAND_IN", "odyn-kms-stand-in");
    let stand_in = stand_in.display().to_string();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let words = [
        &stand_in,
        "203.0.113.10:443",
        &certificate,
        &key,
        id,
        secret,
        token,
    ];
    let mut kms = world.internet_spawn("kms", &words);
    kms.wait_for("ready", SOON);
    let imds = ["python3", "-c", program!("imds"), "1338"];
    let mut imds = world.host_spawn("imds", &imds);
    imds.wait_for("ready", SOON);
    (kms, imds)
}

/// A policy with nothing but KMS and the API, and what else is said of KMS.
fn policy(world: &World, more: &str) -> PathBuf {
    let ca = world.dir().join("ca.pem");
    let text = format!(
        "version: v1\nname: kms\nkms_proxy:\n  listen_port: 9999\n  ca_file: {}\n{more}api:\n  listen_port: 9998\n",
        ca.display()
    );
    world.file("kms.yaml", text)
}

fn guest(world: &World, guest: Guest, more: &str) -> Output {
    let policy = policy(world, more);
    guest
        .policy(policy)
        .flag("--nsm")
        .flag("simulated")
        .run(world)
}

/// A copy of a folder where the guest's user may read it.
fn readable(world: &World, folder: &Path) -> String {
    let copy = world.dir().join(folder.file_name().expect("a name"));
    let mut command = Command::new("cp");
    command.arg("-r").arg(folder).arg(&copy);
    process::run(command);
    copy.display().to_string()
}

/// The data key that the client has printed, in hexadecimal.
fn key(output: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix("key "));
    let line = line.unwrap_or_else(|| panic!("no key: {output}"));
    assert!(line.ends_with("region eu-west-1"), "{line}");
    line.split(' ').next().expect("a word").to_owned()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(pair).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn an_unmodified_boto3_app_decrypts_and_the_host_sees_nothing() {
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let (kms, _imds) = services(&world);
    let capture = world.dir().join("capture");
    let file = capture.display().to_string();
    let mut sniffer = world.host_spawn("sniff", &["python3", "-c", program!("sniff"), &file]);
    sniffer.wait_for("ready", SOON);
    let client = Guest::python(program!("kms_client"), &[]);
    let out = guest(&world, client, "");
    let key = bytes(&key(out.ok()));
    assert_eq!(key.len(), 32);
    // The sniffer is a process of its own, and may be late.
    let mut captured = Vec::new();
    process::until(SOON, "the handshake's name", || {
        captured = fs::read(&capture).expect("a capture");
        contains(&captured, KMS.as_bytes())
    });
    assert!(!contains(&captured, &key), "the host has seen the key");
    assert!(!contains(&captured, b"hello from outside"));
    let seen = String::from_utf8(kms.stdout()).expect("text");
    for line in [
        "GenerateDataKey ASIAINSTANCEROLE attested",
        "Decrypt ASIAINSTANCEROLE attested",
        "GenerateDataKeyPair ASIAINSTANCEROLE attested",
        "GenerateRandom ASIAINSTANCEROLE attested",
        "Encrypt ASIAINSTANCEROLE plain",
        "ListKeys ASIAINSTANCEROLE plain",
    ] {
        assert!(seen.contains(line), "no {line}: {seen}");
    }
    // No flow of the app: its policy has no rule, and needs none.
    assert!(out.audit.is_empty(), "{:?}", out.audit);
    let log = world.guest_log();
    for secret in [ROLE[1], ROLE[2], "hello from outside"] {
        assert!(!log.contains(secret), "{secret} stands in a log");
    }
}

/// The distribution's boto3 is too old to look for KMS in its environment.
#[test]
fn a_boto3_of_today_finds_kms_by_itself() {
    let Some(packages) = installed("ODYN_TEST_PYTHONPATH") else {
        return;
    };
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let (kms, _imds) = services(&world);
    // What boto3 needs of them.
    let parts = [
        "boto3",
        "botocore",
        "dateutil",
        "jmespath",
        "s3transfer",
        "urllib3",
        "six.py",
    ];
    for part in parts {
        readable(&world, &Path::new(&packages).join(part));
    }
    let path = world.dir().display().to_string();
    let script = format!(
        "{}assert boto3.__file__.startswith('{path}') and not old\n",
        program!("kms_client")
    );
    let client = Guest::python(&script, &[]).env("PYTHONPATH", &path);
    key(guest(&world, client, "").ok());
    let seen = String::from_utf8(kms.stdout()).expect("text");
    let line = "GenerateDataKeyPair ASIAINSTANCEROLE attested";
    assert!(seen.contains(line), "{seen}");
}

#[test]
fn an_unmodified_rust_app_decrypts() {
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let (kms, _imds) = services(&world);
    let client = executable("ODYN_KMS_CLIENT", "examples/kms_client");
    let client = world.install(&client).display().to_string();
    let out = guest(&world, Guest::new(&[&client]), "");
    key(out.ok());
    let seen = String::from_utf8(kms.stdout()).expect("text");
    for action in ["Decrypt", "DeriveSharedSecret", "GenerateDataKeyPair"] {
        let line = format!("{action} ASIAINSTANCEROLE attested");
        assert!(seen.contains(&line), "no {line}: {seen}");
    }
}

#[test]
fn an_unmodified_javascript_app_decrypts() {
    let Some(modules) = installed("ODYN_TEST_NODE_MODULES") else {
        return;
    };
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let modules = readable(&world, Path::new(&modules));
    let (kms, _imds) = services(&world);
    let client = Guest::new(&["node", "-e", include_str!("../../programs/kms_client.js")]);
    let out = guest(&world, client.env("NODE_PATH", &modules), "");
    key(out.ok());
    let seen = String::from_utf8(kms.stdout()).expect("text");
    assert!(
        seen.contains("DeriveSharedSecret ASIAINSTANCEROLE attested"),
        "{seen}"
    );
}

#[test]
fn the_way_to_kms_leads_to_kms_only() {
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let _services = services(&world);
    let script = "import boto3, os, botocore.config as c\n\
        k = boto3.client('kms', endpoint_url=os.environ['AWS_ENDPOINT_URL_KMS'], config=c.Config(retries={'max_attempts': 0}))\n\
        try: k.generate_random(NumberOfBytes=1)\n\
        except k.exceptions.ClientError as e: print(e)\n";
    for other in ["evil.example.net", "kms.eu-west-1.amazonaws.com:8443"] {
        let more = format!("  endpoints: {{ eu-west-1: '{other}' }}\n");
        let out = guest(&world, Guest::python(script, &[]), &more);
        let text = out.ok();
        assert!(text.contains("ServiceUnavailableException"), "{text}");
        assert!(text.contains("prohibited"), "{text}");
    }
}

#[test]
fn the_operator_may_keep_kms_from_guests() {
    let world = start!(builder().outer(&["--kms", "deny"]));
    if world.direct() {
        return;
    }
    let _services = services(&world);
    let script = "import boto3, os, botocore.config as c\n\
        k = boto3.client('kms', region_name='eu-west-1', endpoint_url=os.environ['AWS_ENDPOINT_URL_KMS'], config=c.Config(retries={'max_attempts': 0}))\n\
        try: k.generate_random(NumberOfBytes=1)\n\
        except k.exceptions.ClientError as e: print(e)\n";
    let out = guest(&world, Guest::python(script, &[]), "");
    let text = out.ok();
    assert!(text.contains("no credentials"), "{text}");
}

#[test]
fn only_the_app_that_was_given_credentials_is_served() {
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let (kms, _imds) = services(&world);
    let script = "import boto3, os, botocore.config as c\n\
        assert os.environ['AWS_KMS_ENDPOINT'] == 'http://127.0.0.1:9999'\n\
        k = boto3.client('kms', endpoint_url=os.environ['AWS_KMS_ENDPOINT'], aws_access_key_id='AKIA', aws_secret_access_key='x', \
            config=c.Config(retries={'max_attempts': 0}))\n\
        try: k.generate_random(NumberOfBytes=1)\n\
        except k.exceptions.ClientError as e: print(e)\n";
    let out = guest(&world, Guest::python(script, &[]), "");
    assert!(
        out.ok().contains("UnrecognizedClientException"),
        "{}",
        out.ok()
    );
    let seen = String::from_utf8(kms.stdout()).expect("text");
    assert!(!seen.contains("GenerateRandom"), "{seen}");
}

#[test]
fn a_policy_without_kms_has_neither_door_nor_environment() {
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let script = "env | grep ^AWS_; curl -s -m 2 http://127.0.0.1:9999/; echo $?; \
        curl -s -m 2 http://127.0.0.1:9998/; echo $?";
    let policy = world.file("plain.yaml", crate::SHOP);
    let out = Guest::sh(script).policy(policy).run(&world);
    assert_eq!(out.ok(), "7\n7\n");
}

#[test]
fn attestation_documents_are_made_for_the_app() {
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let url = "http://127.0.0.1:9998/v1/attestation";
    let script = format!(
        "curl -sf -o get '{url}?nonce=AQID' && \
         openssl genrsa 2048 2>/dev/null | openssl rsa -pubout -out key.pem 2>/dev/null && \
         python3 -c 'import json; print(json.dumps({{\"nonce\": \"BAU=\", \"user_data\": \"aGk=\", \
            \"public_key\": open(\"key.pem\").read()}}))' | \
         curl -sf -o post -H 'Content-Type: application/json' -d @- '{url}' && \
         python3 -c 'print(\"{{\\\"user_data\\\": \\\"\" + \"A\" * 1000 + \"\\\"}}\")' | \
         curl -s -w ' %{{http_code}}\\n' -d @- '{url}' && \
         curl -s -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:9998/other"
    );
    let out = guest(&world, Guest::sh(&script), "");
    let text = out.ok();
    assert!(text.contains("user_data has 750 bytes"), "{text}");
    assert!(
        text.contains("0 to 512") && text.contains(" 400\n404\n"),
        "{text}"
    );
    let now = SystemTime::now();
    for (file, nonce, data) in [
        ("get", &[1, 2, 3][..], None),
        ("post", &[4, 5], Some(&b"hi"[..])),
    ] {
        let bytes = fs::read(world.scratch().join(file)).expect("a document");
        let document = verify(&bytes, &Expected::of_root(SIMULATED_ROOT, now)).expect("valid");
        assert_eq!(document.claims.nonce.as_deref(), Some(nonce));
        assert_eq!(document.claims.user_data.as_deref(), data);
        assert_eq!(
            document.claims.public_key.map(|k| k.len()),
            data.map(|_| 294)
        );
        let real = verify(&bytes, &Expected::of_root(AWS_NITRO_ROOT, now));
        assert!(real.is_err(), "a simulated document is never real");
    }
}

#[test]
fn without_a_module_documents_are_refused_and_say_why() {
    let world = start!(builder());
    if world.direct() || std::path::Path::new("/dev/nsm").exists() {
        return;
    }
    let script = "curl -s -w ' %{http_code}' 'http://127.0.0.1:9998/v1/attestation'";
    let out = Guest::sh(script).policy(policy(&world, "")).run(&world);
    let text = out.ok();
    assert!(
        text.contains("no Nitro enclave") && text.ends_with(" 503"),
        "{text}"
    );
}

#[test]
fn a_developer_has_kms_in_a_simulation() {
    let world = start!(builder());
    if world.direct() {
        return;
    }
    let _services = services_for(&world, ["AKIADEVELOPER", "developer-hush", ""]);
    let enclaver = world.install(&executable("ENCLAVER", "enclaver"));
    let mut command: Command = world.host().command();
    command.arg("env").arg("--chdir").arg(world.scratch());
    as_user(&mut command, NOBODY);
    command
        .arg(enclaver)
        .arg("simulate")
        .arg("--policy")
        .arg(policy(&world, ""));
    command.args(["--", "python3", "-c", program!("kms_client")]);
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIADEVELOPER"),
        ("AWS_SECRET_ACCESS_KEY", "developer-hush"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        command.env(name, value);
    }
    let name = world.unique("simulate");
    let mut run = Process::spawn(command, &name, &world.logs(), true);
    let status = run.wait(Duration::from_secs(60));
    let errors = String::from_utf8_lossy(&run.stderr()).into_owned();
    assert_eq!(process::code(status), 0, "{errors}");
    key(&String::from_utf8(run.stdout()).expect("text"));
}
