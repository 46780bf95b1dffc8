//! What goes wrong at KMS, on the way, and with credentials and clocks: each an error that an SDK
//! understands, and nothing secret in a log.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use odyn_tests::kms::Fault;

use super::client::{INSTANCE, Wanted, instance, world};

const RANDOM: &str = r#"{"NumberOfBytes":24}"#;

#[tokio::test]
async fn an_envelope_that_is_not_for_us_or_not_whole_is_an_error() {
    let world = world(Wanted::default()).await;
    for (fault, part) in [
        (Fault::Truncated, "end of contents"),
        (Fault::Padded, "the end"),
        (Fault::Replayed, "another key"),
        (Fault::Plain, "no CiphertextForRecipient"),
    ] {
        world.kms.fail([fault]);
        let answer = world.ask("GenerateRandom", RANDOM).await;
        let message = answer.is_error(502, "EnclaveProxyException");
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(world.ask("GenerateRandom", RANDOM).await.status, 200);
}

#[tokio::test]
async fn throttling_and_failures_are_tried_again_three_times() {
    let world = world(Wanted::default()).await;
    for fault in [
        Fault::Error(400, "ThrottlingException"),
        Fault::Error(500, "KMSInternalException"),
        Fault::Error(503, "x"),
        Fault::Close,
    ] {
        world.kms.fail([fault, fault]);
        let answer = world.ask("GenerateRandom", RANDOM).await;
        assert_eq!(answer.status, 200, "{fault:?}: {}", answer.json());
    }
    world
        .kms
        .fail([Fault::Error(400, "ThrottlingException"); 3]);
    let answer = world.ask("GenerateRandom", RANDOM).await;
    answer.is_error(400, "ThrottlingException");
    world.kms.seen();
    world.kms.fail([Fault::Error(400, "DisabledException")]);
    let answer = world.ask("GenerateRandom", RANDOM).await;
    answer.is_error(400, "DisabledException");
    assert_eq!(world.kms.seen().len(), 1, "no second attempt");
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_by_what_kms_says() {
    let world = world(Wanted::default()).await;
    let body = r#"{"KeyId":"alias/app"}"#;
    for ahead in [3600, -7200, 0] {
        world.kms.clock(ahead);
        let answer = world.ask("DescribeKey", body).await;
        assert_eq!(answer.status, 200, "{ahead}: {}", answer.json());
    }
    assert_eq!(world.kms.seen().len(), 6, "one more each");
}

#[tokio::test]
async fn a_document_that_kms_takes_for_expired_is_an_error_of_kms() {
    let world = world(Wanted::default()).await;
    // Within what a signature may differ, and past the age of a document.
    world.kms.clock(600);
    let answer = world.ask("GenerateRandom", RANDOM).await;
    let message = answer.is_error(400, "ValidationException");
    assert!(message.contains("expired"), "{message}");
}

#[tokio::test]
async fn credentials_that_expire_in_the_middle_are_fetched_again() {
    let world = world(Wanted::default()).await;
    assert_eq!(world.ask("GenerateRandom", RANDOM).await.status, 200);
    *world.given.lock().expect("not poisoned") = instance("AKIANEW", "new-hush", "new-token");
    world.kms.accept("AKIANEW", "new-hush", Some("new-token"));
    assert_eq!(world.ask("GenerateRandom", RANDOM).await.status, 200);
    let keys: Vec<String> = world.kms.seen().into_iter().map(|s| s.access_key).collect();
    assert_eq!(keys, [INSTANCE.0, INSTANCE.0, "AKIANEW"]);
    // The host has no better ones.
    world.kms.accept("AKIAOTHER", "x", None);
    let answer = world.ask("GenerateRandom", RANDOM).await;
    answer.is_error(400, "ExpiredTokenException");
}

#[tokio::test]
async fn a_foreign_certificate_is_no_kms() {
    let world = world(Wanted {
        trusted: false,
        ..Wanted::default()
    })
    .await;
    let answer = world.ask("GenerateRandom", RANDOM).await;
    let message = answer.is_error(503, "ServiceUnavailableException");
    assert!(message.contains("certificate"), "{message}");
    assert!(world.kms.seen().is_empty(), "not a byte of the request");
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_a_time_out() {
    let world = world(Wanted {
        answer_timeout: Duration::from_millis(200),
        ..Wanted::default()
    })
    .await;
    world.kms.fail([Fault::Hang; 3]);
    let start = Instant::now();
    let answer = world.ask("GenerateRandom", RANDOM).await;
    answer.is_error(504, "RequestTimeoutException");
    assert!(start.elapsed() < Duration::from_secs(8));
    world.kms.fail([Fault::Hang]);
    assert_eq!(world.ask("GenerateRandom", RANDOM).await.status, 200);
}

#[tokio::test]
async fn long_answers_pass_and_endless_ones_do_not() {
    let world = world(Wanted::default()).await;
    world.kms.fail([Fault::Long(12 * 1024)]);
    let answer = world.ask("GenerateRandom", RANDOM).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json()["Long"].as_str().map(str::len),
        Some(12 * 1024)
    );
    world.kms.fail([Fault::Long(2 << 20); 3]);
    let answer = world.ask("GenerateRandom", RANDOM).await;
    let message = answer.is_error(503, "ServiceUnavailableException");
    assert!(message.contains("length limit"), "{message}");
}

/// The log as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_has_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trace,aws_sigv4=warn")
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = world(Wanted::default()).await;
    let answer = world.ask("GenerateRandom", RANDOM).await;
    let plain = answer.json()["Plaintext"]
        .as_str()
        .expect("a text")
        .to_owned();
    world
        .kms
        .fail([Fault::Truncated, Fault::Error(400, "ThrottlingException")]);
    world.ask("GenerateRandom", RANDOM).await;
    world.ask("GenerateRandom", RANDOM).await;
    let text = log.0.lock().expect("not poisoned").clone();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("credentials for KMS"), "{text}");
    for secret in [&plain, INSTANCE.1, INSTANCE.2, "program-hush"] {
        assert!(!text.contains(secret), "{secret} stands in the log");
    }
}
