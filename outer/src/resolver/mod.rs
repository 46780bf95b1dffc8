//! The host's side of name resolution: a DNS message from a guest in, the system's answer out.
//!
//! The guest decides what may be asked; here a question is only checked for being one, and then
//! asked as any program on this machine would ask it: /etc/hosts first, then the name servers of
//! /etc/resolv.conf, both read again when they change. Names are absolute: the search list is the
//! guest's own.
//!
//! Answers are passed on byte for byte, so that response code, alias chain, SOA and Extended DNS
//! Errors reach the guest as the server gave them. That is why this is a small forwarder and not
//! hickory-resolver: its pool turns negative answers and error codes into Rust errors that have
//! lost their EDNS options, and its answers have been taken apart and put together again.

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

/// How long one exchange may take: less than the guest waits for it (4.5 s), so that the reason of
/// a failure gets there.
const BUDGET: Duration = Duration::from_secs(4);
/// How long one server may be silent before the next is asked as well.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many exchanges run at once; each has a socket or two. More wait.
const CONCURRENT: usize = 256;

/// Why a message from a guest gets no answer message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadQuery {
    /// It is not a query with one question of class IN for a type that can be looked up.
    #[error("not a DNS query with one question")]
    BadQuery,
}

/// Answers questions as this machine's own resolver would.
#[derive(Debug)]
pub struct SystemResolver {
    source: ResolverSource,
    /// The place in the list of the server that answered last; asked first while it answers.
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
    /// By /etc/hosts and /etc/resolv.conf.
    #[must_use]
    pub fn system() -> Self {
        Self::with_files("/etc/hosts".as_ref(), "/etc/resolv.conf".as_ref())
    }

    /// By these servers only. With none at all every answer is a failure.
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
            permits: Semaphore::new(CONCURRENT),
        }
    }

    /// Answers one query message. Whatever goes wrong on the way to an answer becomes a SERVFAIL
    /// message with an Extended DNS Error.
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
        let deadline = Instant::now() + BUDGET;
        // In this order: a guest that waits for its own share does not stand in the others' way.
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

    /// Asks one server after the other, `conf.attempts` times round: the next one as soon as the
    /// last has failed or was silent for a while. The first good answer wins.
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
                next_at = Instant::now() + PATIENCE.min(conf.timeout);
            }
            let more = in_time && schedule.peek().is_some();
            tokio::select! {
                Some((index, server, answer)) = under_way.next() => match answer {
                    Ok(answer) if answer.is_good() => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    // The server said that it cannot say. Another may know better; if none does,
                    // what this one said is the answer.
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

/// The codes after which no other server needs to be asked.
fn is_good(rcode: ResponseCode) -> bool {
    matches!(rcode, ResponseCode::NoError | ResponseCode::NXDomain)
}
