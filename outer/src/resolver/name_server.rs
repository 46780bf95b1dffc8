//! Asks one name server: over UDP, and over TCP if the answer is truncated (RFC 7766).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use hickory_proto::op::{Header, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::question::DnsQuestion;

/// Buffer for a datagram, in bytes. Servers are told a smaller limit.
const MAX_DATAGRAM: usize = 4096;

/// Why a lookup failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupFailure {
    /// No server is configured.
    #[error("no name server is configured on the host")]
    NoServer,
    /// No answer came in time.
    #[error("no name server of the host answered in time")]
    Silent,
    /// The server can't be reached.
    #[error("the host's name server cannot be reached: {0}")]
    Network(#[from] io::Error),
    /// The message that came over TCP is no answer to the question.
    #[error("the host's name server sent nonsense")]
    Nonsense,
    /// Too many lookups at once.
    #[error("too many lookups on the host")]
    Busy,
}

impl LookupFailure {
    /// The code of the Extended DNS Error (RFC 8914 section 4).
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Busy => 0,
            Self::NoServer | Self::Silent => 22,
            Self::Network(_) => 23,
            Self::Nonsense => 24,
        }
    }
}

/// A server's answer, unchanged.
#[derive(Debug)]
pub(super) struct ServerAnswer {
    bytes: Vec<u8>,
    rcode: ResponseCode,
    truncated: bool,
}

impl ServerAnswer {
    /// `bytes`, if they answer `question` with this `id`.
    fn check(bytes: Vec<u8>, question: &DnsQuestion, id: u16) -> Option<Self> {
        let header = Header::read(&mut BinDecoder::new(&bytes)).ok()?;
        question.is_answered_by(&bytes, id).then_some(Self {
            rcode: header.response_code,
            truncated: header.truncation,
            bytes,
        })
    }

    /// Whether no other server needs to be asked.
    pub(super) fn is_good(&self) -> bool {
        super::is_good(self.rcode)
    }

    /// The same message with the guest's id.
    pub(super) fn for_guest(mut self, question: &DnsQuestion) -> Bytes {
        for (to, from) in self.bytes.iter_mut().zip(question.id.to_be_bytes()) {
            *to = from;
        }
        self.bytes.into()
    }
}

/// Asks `server`. Without a time limit: drop the future to stop.
pub(super) async fn exchange(
    server: SocketAddr,
    question: &DnsQuestion,
    tcp_only: bool,
) -> Result<ServerAnswer, LookupFailure> {
    let answer = once(server, question, tcp_only, true).await?;
    // Servers that do not know EDNS answer with one of these (RFC 6891 section 7).
    if matches!(answer.rcode, ResponseCode::FormErr | ResponseCode::NotImp) {
        return once(server, question, tcp_only, false).await;
    }
    Ok(answer)
}

async fn once(
    server: SocketAddr,
    question: &DnsQuestion,
    tcp_only: bool,
    edns: bool,
) -> Result<ServerAnswer, LookupFailure> {
    let (id, query) = question.query(edns).ok_or(LookupFailure::Nonsense)?;
    if !tcp_only {
        let answer = udp(server, question, id, &query).await?;
        if !answer.truncated {
            return Ok(answer);
        }
    }
    tcp(server, question, id, &query).await
}

/// Asks over UDP, from a random port for each query.
///
/// The socket is connected, so that only the server can answer and ICMP errors are seen.
async fn udp(
    server: SocketAddr,
    question: &DnsQuestion,
    id: u16,
    query: &[u8],
) -> Result<ServerAnswer, LookupFailure> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let datagram = buffer.get(..length).unwrap_or_default();
        // Another message may be forged: keep waiting for the answer.
        if let Some(answer) = ServerAnswer::check(datagram.to_vec(), question, id) {
            return Ok(answer);
        }
    }
}

async fn tcp(
    server: SocketAddr,
    question: &DnsQuestion,
    id: u16,
    query: &[u8],
) -> Result<ServerAnswer, LookupFailure> {
    let length = u16::try_from(query.len()).map_err(|_| LookupFailure::Nonsense)?;
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = Vec::with_capacity(2 + query.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    ServerAnswer::check(bytes, question, id).ok_or(LookupFailure::Nonsense)
}
