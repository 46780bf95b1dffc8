//! Errors of the link, by who is at fault.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use odyn_proto::wire::authority::TargetError;
use odyn_proto::wire::capsule::CapsuleError;
use odyn_proto::wire::hybrid::HybridError;
use odyn_proto::wire::ingress::IngressError;
use odyn_proto::{EndpointError, Refusal};

/// The refusal that describes a failed `connect()`.
pub fn refusal_from_io(error: &io::Error) -> Refusal {
    use io::ErrorKind as K;
    match error.kind() {
        // A reset instead of an answer to the SYN is a refusal too.
        K::ConnectionRefused | K::ConnectionReset | K::ConnectionAborted => {
            Refusal::ConnectionRefused
        }
        K::TimedOut => Refusal::ConnectionTimeout,
        // EINVAL: no address of the target's scope to send from.
        K::NetworkUnreachable
        | K::HostUnreachable
        | K::AddrNotAvailable
        | K::NetworkDown
        | K::InvalidInput => Refusal::Unroutable,
        // EACCES and EPERM: the host's firewall rejects the packet.
        K::PermissionDenied => Refusal::Prohibited,
        _ => match error.raw_os_error() {
            Some(nix::libc::EMFILE | nix::libc::ENFILE | nix::libc::ENOBUFS) => {
                Refusal::LimitReached
            }
            Some(nix::libc::EAFNOSUPPORT | nix::libc::EPROTONOSUPPORT) => Refusal::Unroutable,
            _ => Refusal::Internal,
        },
    }
}

/// Opening a flow failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The host refused the flow.
    #[error("refused by the host: {0}")]
    Refused(Refusal),
    /// There is no connection to the host.
    #[error("the link is down: {0}")]
    LinkDown(String),
    /// The connection ended while the flow was being opened.
    #[error("the link was lost")]
    LinkLost,
    /// The destination accepted the connection and reset it before the host had answered.
    #[error("reset by the destination")]
    Reset,
    /// The host did not answer in this time.
    #[error("the host did not answer in {0:?}")]
    Timeout(Duration),
    /// The link is being closed.
    #[error("the link is being closed")]
    Closing,
    /// The target can't be written as a request.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The message is longer than DNS allows, or than the answer may be.
    #[error("a DNS message of {0} bytes is longer than 65535")]
    TooLong(usize),
    /// The request can't be written as HTTP.
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
    /// The host does not follow the protocol.
    #[error("the host broke the protocol: {0}")]
    Protocol(#[from] PeerMisbehaved),
}

/// Why a UDP flow was cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The destination answered with an ICMP error: its port is closed.
    #[error("destination port unreachable")]
    Refused,
    /// The peer of the link reset the flow.
    #[error("reset by the other half")]
    Reset,
    /// The link ended.
    #[error("the link was lost")]
    LinkLost,
    /// The datagram is longer than UDP over IPv4 carries.
    #[error("a datagram of {0} bytes is longer than 65507")]
    TooLong(usize),
    /// The peer sent a malformed capsule.
    #[error("malformed capsule: {0}")]
    Capsule(#[from] CapsuleError),
}

/// Connecting the transport failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The socket could not be connected.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connect was not completed in this time.
    #[error("no connection in {0:?}")]
    Timeout(Duration),
    /// The virtual machine monitor did not connect the socket.
    #[error("{0}")]
    Hybrid(#[from] HybridError),
    /// The endpoint is for listening only.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
}

/// Listening failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The directory of the socket does not exist.
    #[error("the directory {} does not exist", .0.display())]
    NoDirectory(PathBuf),
    /// Another process listens on the socket.
    #[error("another process is already listening on {}", .0.display())]
    InUse(PathBuf),
    /// The path exists and is not a socket.
    #[error("{} exists and is not a socket: not removed", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("can't listen on {endpoint}: {source}")]
    Io {
        /// The endpoint that was to be listened on.
        endpoint: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// Why a connection of the link failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The transport or HTTP/2 failed.
    #[error("{0}")]
    Http(#[from] h2::Error),
    /// The transport failed before HTTP/2 started on it.
    #[error("{0}")]
    Transport(io::Error),
    /// The transport could not be connected.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The guest's answer about its identity can't be read.
    #[error("the guest's answer has {0}")]
    Ingress(#[from] IngressError),
    /// A PING was not answered in this time.
    #[error("no answer to a PING in {0:?}")]
    Dead(Duration),
    /// The transport was connected, but HTTP/2 did not start on it in this time.
    #[error("no HTTP/2 on the connection in {0:?}")]
    Handshake(Duration),
    /// The peer does not follow the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] PeerMisbehaved),
    /// A request can't be written as HTTP.
    #[error("a request can't be written: {0}")]
    Request(#[from] http::Error),
    /// h2 gave no handle for PINGs, which it gives once for each connection.
    #[error("h2 gave no handle for its PINGs")]
    NoPings,
    /// The limit of lanes is reached.
    #[error("no room for one more lane")]
    TooManyLanes,
    /// The limit of guests, or of connections of this guest, is reached.
    #[error("too many connections for ingress")]
    TooManyConnections,
    /// Flows were still open at the end of the time allowed for draining.
    #[error("{0} flows were cut at the end of the drain time")]
    DrainTimeout(usize),
}

/// What a peer did that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// It closed a connection before it said anything.
    #[error("the connection was closed at once")]
    ClosedAtOnce,
    /// The host's SETTINGS lack extended CONNECT (RFC 8441).
    #[error("the host does not offer extended CONNECT")]
    NoExtendedConnect,
    /// It refused every attempt of a request as unprocessed.
    #[error("no request is taken")]
    NoRequestTaken,
    /// It reset a request without a reason that has a meaning here.
    #[error("the request was reset")]
    RequestReset,
    /// It reset a message in the middle.
    #[error("the message was reset")]
    MessageReset,
    /// Its proxy-status (RFC 9209) can't be read.
    #[error("malformed proxy-status")]
    MalformedProxyStatus,
    /// Its answer to a DNS message has another media type.
    #[error("the answer is not a DNS message")]
    NotDns,
    /// Its answer has another media type than JSON.
    #[error("the answer is not JSON")]
    NotJson,
    /// The guest answered the question for its name with an error.
    #[error("the guest does not say who it is")]
    NoIdentity,
    /// The host answered a dialled lane with another byte than READY.
    #[error("the host does not open a lane")]
    LaneNotOpened,
    /// The guest dialled a lane for a flow that does not exist.
    #[error("a lane for no flow")]
    LaneWithoutFlow,
    /// The host does not say which record of a feed it wants.
    #[error("the host does not say which record it wants")]
    NoWantedRecord,
    /// The host wants a record of a feed that does not exist yet.
    #[error("the host wants a record that is not there yet")]
    FutureRecordWanted,
    /// The host acknowledged a record that was not sent.
    #[error("the host acknowledges what was not sent")]
    UnsentAcknowledged,
    /// The host acknowledged less than before.
    #[error("an acknowledgement goes back")]
    AcknowledgementBack,
}
