//! Resolves names for guests: a DNS message from a guest in, the system's answer out.
//!
//! The guest decides by its policy which names may be looked up. The host checks that a message is
//! one question, and asks as every process on this machine does: /etc/hosts first, then the name
//! servers of /etc/resolv.conf, both read again when they change. Names are absolute: the guest
//! applies its search list itself.
//!
//! Answers are passed on byte for byte, so that response code, alias chain, SOA and Extended DNS
//! Errors reach the guest as the server sent them. Therefore this is a small forwarder and not
//! hickory-resolver: its pool turns negative answers and error codes into Rust errors without their
//! EDNS options, and encodes answers anew.

mod hosts;
mod lookup_share;
mod name_server;
mod question;
mod resolv_conf;
#[cfg(test)]
mod tests;
mod watched_file;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use tokio::sync::{AcquireError, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use hosts::HostsFile;
use name_server::{LookupFailure, ServerAnswer};
use question::DnsQuestion;
use resolv_conf::ResolvConf;

pub use lookup_share::LookupShare;
use watched_file::WatchedFile;

/// Longest lookup. The guest waits longer (4.5 s), so that it hears why a lookup failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Silence of one server after which the next is asked as well.
const NEXT_SERVER_INTERVAL: Duration = Duration::from_secs(1);
/// Most lookups at once; each has one or two sockets. More lookups wait.
const MAX_LOOKUPS: usize = 256;

/// Why a message from a guest is not answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadQuery {
    /// It is no query with one question of class IN for a data type.
    #[error("not a DNS query with one question")]
    BadQuery,
}

/// Answers queries as the resolver of this machine does.
#[derive(Debug)]
pub struct SystemResolver {
    source: ResolverSource,
    /// Index of the server that answered last, which is asked first.
    preferred: AtomicUsize,
    permits: Semaphore,
}

#[derive(Debug)]
enum ResolverSource {
    Files {
        hosts: WatchedFile<HostsFile>,
        conf: WatchedFile<ResolvConf>,
    },
    Fixed(Arc<ResolvConf>),
}

impl SystemResolver {
    /// A resolver that uses /etc/hosts and /etc/resolv.conf.
    #[must_use]
    pub fn system() -> Self {
        Self::with_files("/etc/hosts".as_ref(), "/etc/resolv.conf".as_ref())
    }

    /// A resolver that asks these servers only. Without any, every answer is SERVFAIL.
    #[must_use]
    pub fn fixed(servers: Vec<SocketAddr>) -> Self {
        let conf = ResolvConf {
            servers,
            ..ResolvConf::default()
        };
        Self::with_source(ResolverSource::Fixed(Arc::new(conf)))
    }

    fn with_files(hosts: &Path, conf: &Path) -> Self {
        Self::with_source(ResolverSource::Files {
            hosts: WatchedFile::new(hosts, HostsFile::parse),
            conf: WatchedFile::new(conf, ResolvConf::parse),
        })
    }

    fn with_source(source: ResolverSource) -> Self {
        Self {
            source,
            preferred: AtomicUsize::new(0),
            permits: Semaphore::new(MAX_LOOKUPS),
        }
    }

    /// Answers one query message. A failed lookup is answered by SERVFAIL and an Extended DNS Error.
    ///
    /// # Errors
    /// [`BadQuery::BadQuery`]: `query` is not a proper question, and nothing was sent.
    pub async fn exchange(&self, query: Bytes, share: &LookupShare) -> Result<Bytes, BadQuery> {
        let question = DnsQuestion::parse(&query).ok_or(BadQuery::BadQuery)?;
        let conf = match &self.source {
            ResolverSource::Fixed(conf) => Arc::clone(conf),
            ResolverSource::Files { hosts, conf } => {
                if let Some(answer) = hosts.get().answer(&question) {
                    return Ok(answer);
                }
                conf.get()
            }
        };
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        // The guest's own share first: a guest that waits for it holds no place of the others.
        let turn = async {
            let own = share.acquire().await?;
            Ok::<_, AcquireError>((own, self.permits.acquire().await?))
        };
        let answer = match timeout_at(deadline, turn).await {
            Ok(Ok(_turn)) => self.ask(&question, &conf, deadline).await,
            Ok(Err(_)) | Err(_) => Err(LookupFailure::Busy),
        };
        Ok(match answer {
            Ok(answer) => answer.for_guest(&question),
            Err(failure) => {
                tracing::debug!(name = %question.name, qtype = %question.qtype, %failure, "lookup failed");
                question.failure(failure)
            }
        })
    }

    /// Asks one server after the other, `conf.attempts` times round. The first good answer wins.
    ///
    /// The next server is asked as soon as the last one has failed or was silent for a while.
    async fn ask(
        &self,
        question: &DnsQuestion,
        conf: &ResolvConf,
        deadline: Instant,
    ) -> Result<ServerAnswer, LookupFailure> {
        let count = conf.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut schedule = (0..count.saturating_mul(conf.attempts))
            .filter_map(|step| {
                let index = first.wrapping_add(step) % count;
                Some((index, *conf.servers.get(index)?))
            })
            .peekable();
        let mut under_way = FuturesUnordered::new();
        let mut outcome = Err(LookupFailure::NoServer);
        let mut next_at = Instant::now();
        loop {
            let in_time = Instant::now() < deadline;
            if in_time
                && (Instant::now() >= next_at || under_way.is_empty())
                && let Some((index, server)) = schedule.next()
            {
                let until = deadline.min(Instant::now() + conf.timeout);
                let attempt = name_server::exchange(server, question, conf.tcp_only);
                under_way.push(async move {
                    let answer = timeout_at(until, attempt).await;
                    (index, server, answer.unwrap_or(Err(LookupFailure::Silent)))
                });
                next_at = Instant::now() + NEXT_SERVER_INTERVAL.min(conf.timeout);
            }
            let more = in_time && schedule.peek().is_some();
            tokio::select! {
                Some((index, server, answer)) = under_way.next() => match answer {
                    Ok(answer) if answer.is_good() => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    // A server error. Another server may know better; if none does, this is the
                    // answer.
                    Ok(answer) => {
                        outcome = Ok(answer);
                        next_at = Instant::now();
                    }
                    Err(failure) => {
                        tracing::debug!(%server, %failure, "name server failed");
                        if outcome.is_err() {
                            outcome = Err(failure);
                        }
                        next_at = Instant::now();
                    }
                },
                () = sleep_until(next_at), if more => {}
                else => return outcome,
            }
        }
    }
}

/// Whether a response code is an answer, so that no other server needs to be asked.
fn is_good(rcode: ResponseCode) -> bool {
    matches!(rcode, ResponseCode::NoError | ResponseCode::NXDomain)
}
